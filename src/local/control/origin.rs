//! Where this server is, as whoever asks sees it.
//!
//! The address to listen on says that only to this machine: others come to `0.0.0.0` by another name, and through a
//! tunnel by another port. They say in each request's `Host` where they went, so answers name that.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::header::HOST;
use http::uri::Authority;

use super::state::Control;

tokio::task_local! {
    /// The origin of the request that this task answers.
    static ASKED: Option<Authority>;
}

/// Notes where a request was sent to, while it is answered.
pub(super) async fn note(request: Request, next: Next) -> Response {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let asked = host.and_then(authority);
    ASKED.scope(asked, next.run(request)).await
}

/// A `Host` that can be part of a URL as it is.
fn authority(host: &str) -> Option<Authority> {
    let authority: Authority = host.parse().ok()?;
    let name = Some(authority.host()).filter(|name| !name.is_empty())?;
    // neither a user before the name nor something else than a port after it
    let rest = host.strip_prefix(name)?;
    let is_plain = rest.is_empty() || authority.port_u16().is_some_and(|port| rest == format!(":{port}"));
    is_plain.then_some(authority)
}

/// The host and port of the request that is answered.
fn asked() -> Option<Authority> {
    ASKED.try_with(Clone::clone).ok().flatten()
}

impl Control {
    /// `http://host:port`, as the client of the request that is answered reaches this server.
    pub(super) fn origin(&self) -> String {
        asked().map_or_else(|| self.own_origin.clone(), |authority| format!("http://{authority}"))
    }

    /// The port at which the client of the request that is answered reaches this server.
    pub(super) fn origin_port(&self) -> u16 {
        let own = || self.own_origin.rsplit(':').next()?.parse().ok();
        let asked = asked().map(|authority| authority.port_u16().unwrap_or(80));
        asked.or_else(own).unwrap_or(80)
    }
}

/// The base URL of all toolboxes below an origin.
pub(super) fn toolbox(origin: &str) -> String {
    format!("{origin}/toolbox")
}

/// The base URL of all toolboxes, where a request is answered.
pub(super) fn asked_toolbox() -> Option<String> {
    asked().map(|authority| toolbox(&format!("http://{authority}")))
}

#[cfg(test)]
mod tests {
    use super::authority;

    #[test]
    fn a_host_that_is_no_host_is_not_taken_into_urls() {
        for host in ["localhost:4000", "127.0.0.1:1", "[::1]:80", "machine.example", "machine"] {
            assert_eq!(authority(host).map(|found| found.to_string()), Some(host.to_owned()));
        }
        for host in ["", ":80", "me@machine", "machine:", "machine:99999", "a/b", "a b", "a\"b", "a?b"] {
            assert_eq!(authority(host), None, "{host}");
        }
    }
}
