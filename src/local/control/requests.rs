//! Counts requests by method and route template, so that tests can assert round trips.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::state::Control;

/// More different keys than routes exist come from an agent that makes paths up.
const MOST_KEYS: usize = 1000;

/// Counts since the last reset, by `METHOD template`.
#[derive(Debug, Default)]
pub(super) struct Requests(Mutex<BTreeMap<String, u64>>);

impl Requests {
    fn count(&self, key: String) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key =
            if counts.len() < MOST_KEYS || counts.contains_key(&key) { key } else { "other".to_owned() };
        *counts.entry(key).or_default() += 1;
    }

    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn reset(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Counts a request, unless an administrator makes it.
pub(super) async fn count(State(control): State<Control>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if !path.starts_with("/api/admin/") {
        let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let template = match path.strip_prefix("/toolbox/").and_then(|rest| rest.split_once('/')) {
            Some((_, path)) => format!("/toolbox/{{sandbox}}/{}", toolbox_template(path)),
            None => route.unwrap_or("unmatched").to_owned(),
        };
        control.requests.count(format!("{} {template}", request.method()));
    }
    next.run(request).await
}

/// The path of a toolbox route with its parameters replaced, which follow fixed words.
fn toolbox_template(path: &str) -> String {
    let mut template = String::with_capacity(path.len());
    let mut previous = "";
    for segment in path.split('/') {
        if !previous.is_empty() {
            template.push('/');
        }
        let parameter = match previous {
            "session" if segment != "entrypoint" => Some("{session}"),
            "command" => Some("{command}"),
            "pty" => Some("{session}"),
            "context" => Some("{context}"),
            "port" | "proxy" => Some("{port}"),
            "recordings" if !matches!(segment, "start" | "stop") => Some("{recording}"),
            _ => None,
        };
        template.push_str(parameter.unwrap_or(segment));
        if parameter == Some("{port}") && previous == "proxy" {
            template.push_str("/{*path}");
            break;
        }
        previous = if segment.is_empty() { "-" } else { segment };
    }
    template
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toolbox_paths_are_counted_without_their_parameters() {
        for (path, template) in [
            ("process/execute", "process/execute"),
            ("process/session", "process/session"),
            ("process/session/a-b/command/7/logs", "process/session/{session}/command/{command}/logs"),
            ("process/session/entrypoint/logs", "process/session/entrypoint/logs"),
            ("process/pty/x/connect", "process/pty/{session}/connect"),
            ("process/interpreter/context/1", "process/interpreter/context/{context}"),
            ("port/80/in-use", "port/{port}/in-use"),
            ("proxy/8080/a/b", "proxy/{port}/{*path}"),
            ("files/download", "files/download"),
        ] {
            assert_eq!(toolbox_template(path), template);
        }
    }
}
