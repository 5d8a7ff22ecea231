//! Preview URLs: `http://{port}-{id or signed token}.localhost:{port of this server}/…` is a port of a sandbox.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::auth;
use super::error::ApiError;
use super::proxy;
use super::state::Control;

/// Names below this one are this machine, in every browser and most resolvers.
const DOMAIN: &str = "localhost";

/// The URL of a port; `subject` is a sandbox id or a signed token.
pub(super) fn url(control: &Control, port: u16, subject: &str) -> String {
    format!("http://{port}-{subject}.{DOMAIN}:{}", control.origin_port())
}

/// The pattern of all such URLs, as `GET /config` says it.
pub(super) fn template(control: &Control) -> String {
    format!("http://{{{{PORT}}}}-{{{{sandboxId}}}}.{DOMAIN}:{}", control.origin_port())
}

/// Sends requests for preview host names to the sandbox, whatever their path.
pub(super) async fn route(State(control): State<Control>, request: Request, next: Next) -> Response {
    let host = request.headers().get(http::header::HOST).and_then(|host| host.to_str().ok());
    let Some((port, subject)) = host.and_then(parse) else { return next.run(request).await };
    let subject = subject.to_owned();
    let signed = control.store().access.signed(&subject, port, control.now()).map(str::to_owned);
    let known = control.with(&subject, |record, _| Ok((record.sandbox.id.clone(), record.sandbox.public)));
    let id = match (signed, known) {
        (Some(id), _) => id,
        (None, Ok((id, true))) if id == subject => id,
        (None, Ok((id, false))) if id == subject => {
            let checked = auth::check_proxied(&control, &id, request.headers(), request.uri().query());
            match checked {
                Ok(()) => id,
                Err(error) => return plain(&error),
            }
        }
        _ => return plain(&ApiError::new(StatusCode::NOT_FOUND, "not found: no such sandbox or token")),
    };
    let path = format!("/proxy/{port}{}", request.uri().path());
    proxy::forward(&control, &id, &path, "", request).await
}

fn plain(error: &ApiError) -> Response {
    (error.status, error.message.clone()).into_response()
}

fn parse(host: &str) -> Option<(u16, &str)> {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let (port, subject) = name.strip_suffix(DOMAIN)?.strip_suffix('.')?.split_once('-')?;
    Some((port.parse().ok().filter(|port| *port > 0)?, subject))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_preview_host_names_a_port_and_a_subject() {
        assert_eq!(parse("8080-a-b-c.localhost:4000"), Some((8080, "a-b-c")));
        assert_eq!(parse("80-token.localhost"), Some((80, "token")));
        for host in ["localhost:4000", "127.0.0.1:4000", "0-a.localhost", "x-a.localhost", "80-a.example.org"]
        {
            assert_eq!(parse(host), None, "{host}");
        }
    }
}
