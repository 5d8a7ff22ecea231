//! Requests as plain values: what to send where, without sending it.
//!
//! A [`Route`] is complete apart from the base URL and the credentials, so that URLs and bodies are tested without a
//! server. Routes of the control plane are relative to the API URL (which ends in `/api`), those of [`toolbox`] to
//! `{toolboxProxyUrl}/{sandboxId}`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use http::Method;
use serde::Serialize;

use super::sandbox::{CreateSandbox, Labels};
use super::snapshot::CreateSnapshot;
use crate::{Error, ErrorKind, Result};

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What it does, as it reads after "cannot": `create sandbox`.
    pub operation: &'static str,
    /// The method.
    pub method: Method,
    /// Path and query, percent-encoded, beginning with `/`.
    pub path: String,
    /// The JSON body, if any.
    pub body: Option<Bytes>,
    /// Whether sending it twice has the effect of sending it once.
    pub idempotent: bool,
}

impl Route {
    /// A request without a body; only `POST` counts as unsafe to repeat.
    pub fn new(operation: &'static str, method: Method, path: impl Into<String>) -> Self {
        let idempotent = method != Method::POST;
        Self { operation, method, path: path.into(), body: None, idempotent }
    }

    /// A `POST` that sets something to a value, so that repeating it changes nothing.
    fn set(operation: &'static str, path: String) -> Self {
        Self { idempotent: true, ..Self::new(operation, Method::POST, path) }
    }

    /// Adds a JSON body.
    fn json(mut self, body: &impl Serialize) -> Result<Self> {
        let text = serde_json::to_vec(body).map_err(|error| {
            Error::new(ErrorKind::Unexpected, "the request could not be written as JSON").with_source(error)
        })?;
        self.body = Some(Bytes::from(text));
        Ok(self)
    }

    /// Appends a query parameter.
    #[must_use]
    fn query(mut self, name: &str, value: &str) -> Self {
        self.path.push(if self.path.contains('?') { '&' } else { '?' });
        self.path.push_str(name);
        self.path.push('=');
        percent_encode(&mut self.path, value);
        self
    }
}

/// Everything but RFC 3986's unreserved characters, since a `/` or `?` in a name must not change the route.
fn percent_encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // writing to a String cannot fail
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// An id or name as one segment of a path.
///
/// # Errors
/// `InvalidRequest` for an empty name, which would address the whole collection, and for `.` and `..`, which URLs
/// resolve even when they are percent-encoded.
fn segment(name: &str) -> Result<String> {
    if matches!(name, "" | "." | "..") {
        return Err(Error::new(ErrorKind::InvalidRequest, format!("{name:?} is not an id or name")));
    }
    let mut out = String::with_capacity(name.len());
    percent_encode(&mut out, name);
    Ok(out)
}

/// Routes of `/sandbox`. `sandbox` is an id or a name unless it is called `id`.
///
/// # Errors
/// All of them: `InvalidRequest` where the id or name cannot be part of a URL.
pub mod sandbox {
    #![expect(clippy::missing_errors_doc, reason = "said once, above")]

    use super::{BTreeMap, CreateSandbox, Labels, Method, Result, Route, segment};

    /// Creates a sandbox. Repeating it makes a second one, unless it is named.
    pub fn create(request: &CreateSandbox) -> Result<Route> {
        Route::new("create sandbox", Method::POST, "/sandbox").json(request)
    }

    /// Reads one.
    pub fn get(sandbox: &str) -> Result<Route> {
        Ok(Route::new("get sandbox", Method::GET, format!("/sandbox/{}", segment(sandbox)?)))
    }

    /// One page of those that carry all of `labels`, in order of creation: with the server's default order, activity
    /// moves sandboxes across pages. `limit` is 1 to 200.
    pub fn list(labels: &BTreeMap<String, String>, cursor: Option<&str>, limit: u32) -> Result<Route> {
        let mut route = Route::new("list sandboxes", Method::GET, "/sandbox")
            .query("limit", &limit.to_string())
            .query("sort", "createdAt")
            .query("order", "asc");
        if !labels.is_empty() {
            let body = Route::new("list sandboxes", Method::GET, "").json(labels)?.body.unwrap_or_default();
            route = route.query("labels", &String::from_utf8_lossy(&body));
        }
        Ok(match cursor {
            Some(cursor) => route.query("cursor", cursor),
            None => route,
        })
    }

    /// Starts one; a started one stays as it is.
    pub fn start(sandbox: &str) -> Result<Route> {
        Ok(Route::set("start sandbox", format!("/sandbox/{}/start", segment(sandbox)?)))
    }

    /// Stops one, by SIGKILL with `force`. Stopping a stopped one is an error 400.
    pub fn stop(sandbox: &str, force: bool) -> Result<Route> {
        let route = Route::set("stop sandbox", format!("/sandbox/{}/stop", segment(sandbox)?));
        Ok(if force { route.query("force", "true") } else { route })
    }

    /// Deletes one.
    pub fn delete(sandbox: &str) -> Result<Route> {
        Ok(Route::new("delete sandbox", Method::DELETE, format!("/sandbox/{}", segment(sandbox)?)))
    }

    /// Replaces all labels.
    pub fn set_labels(sandbox: &str, labels: &BTreeMap<String, String>) -> Result<Route> {
        Route::new("set labels", Method::PUT, format!("/sandbox/{}/labels", segment(sandbox)?))
            .json(&Labels { labels: labels.clone() })
    }

    /// Sets the minutes after which the server destroys it, counted from now; 0 is never. Since 0.205.
    pub fn set_ttl(sandbox: &str, minutes: u32) -> Result<Route> {
        Ok(Route::set("set time-to-live", format!("/sandbox/{}/ttl/{minutes}", segment(sandbox)?)))
    }

    /// Sets the minutes of inactivity after which it stops; 0 is never.
    pub fn set_auto_stop(sandbox: &str, minutes: u32) -> Result<Route> {
        Ok(Route::set("set auto-stop", format!("/sandbox/{}/autostop/{minutes}", segment(sandbox)?)))
    }

    /// Counts as activity, so that auto-stop begins anew.
    pub fn keep_alive(id: &str) -> Result<Route> {
        Ok(Route::set("keep alive", format!("/sandbox/{}/last-activity", segment(id)?)))
    }

    /// The base of its toolbox URLs.
    pub fn toolbox_url(id: &str) -> Result<Route> {
        Ok(Route::new(
            "find the toolbox",
            Method::GET,
            format!("/sandbox/{}/toolbox-proxy-url", segment(id)?),
        ))
    }

    /// The URL of a port, with the token that it needs.
    pub fn preview_url(sandbox: &str, port: u16) -> Result<Route> {
        let path = format!("/sandbox/{}/ports/{port}/preview-url", segment(sandbox)?);
        Ok(Route::new("get preview URL", Method::GET, path))
    }

    /// Like [`preview_url`], with the token in the host name; valid for 1 to 86400 seconds.
    pub fn signed_preview_url(sandbox: &str, port: u16, seconds: u32) -> Result<Route> {
        let path = format!("/sandbox/{}/ports/{port}/signed-preview-url", segment(sandbox)?);
        Ok(Route::new("get preview URL", Method::GET, path).query("expiresInSeconds", &seconds.to_string()))
    }

    /// A new SSH token. It revokes all earlier ones, so a repeat leaves one valid token: the last.
    pub fn ssh_access(sandbox: &str, minutes: u32) -> Result<Route> {
        let route = Route::set("get SSH access", format!("/sandbox/{}/ssh-access", segment(sandbox)?));
        Ok(route.query("expiresInMinutes", &minutes.to_string()))
    }

    /// Revokes all SSH tokens.
    pub fn revoke_ssh_access(sandbox: &str) -> Result<Route> {
        let path = format!("/sandbox/{}/ssh-access", segment(sandbox)?);
        Ok(Route::new("revoke SSH access", Method::DELETE, path))
    }

    /// Where the log of its build is.
    pub fn build_log_url(sandbox: &str) -> Result<Route> {
        let path = format!("/sandbox/{}/build-logs-url", segment(sandbox)?);
        Ok(Route::new("find the build log", Method::GET, path))
    }
}

/// Routes of `/snapshots`. `delete` and `activate` need the id; a name is an error 400 there.
///
/// # Errors
/// All of them: `InvalidRequest` where the id or name cannot be part of a URL.
pub mod snapshot {
    #![expect(clippy::missing_errors_doc, reason = "said once, above")]

    use super::{CreateSnapshot, Method, Result, Route, segment};

    /// Creates one. The name is unique, so a repeat is an error 409.
    pub fn create(request: &CreateSnapshot) -> Result<Route> {
        Route::new("create snapshot", Method::POST, "/snapshots").json(request)
    }

    /// Reads one by id or name.
    pub fn get(snapshot: &str) -> Result<Route> {
        Ok(Route::new("get snapshot", Method::GET, format!("/snapshots/{}", segment(snapshot)?)))
    }

    /// A page, from 1, of those whose name contains `name`. `limit` is 1 to 200.
    pub fn list(name: Option<&str>, page: u32, limit: u32) -> Route {
        let route = Route::new("list snapshots", Method::GET, "/snapshots")
            .query("page", &page.to_string())
            .query("limit", &limit.to_string())
            .query("sort", "createdAt")
            .query("order", "asc");
        match name {
            Some(name) => route.query("name", name),
            None => route,
        }
    }

    /// Deletes one; it vanishes some seconds later.
    pub fn delete(id: &str) -> Result<Route> {
        Ok(Route::new("delete snapshot", Method::DELETE, format!("/snapshots/{}", segment(id)?)))
    }

    /// Makes an inactive one usable.
    pub fn activate(id: &str) -> Result<Route> {
        Ok(Route::set("activate snapshot", format!("/snapshots/{}/activate", segment(id)?)))
    }

    /// Where the log of its build is.
    pub fn build_log_url(id: &str) -> Result<Route> {
        let path = format!("/snapshots/{}/build-logs-url", segment(id)?);
        Ok(Route::new("find the build log", Method::GET, path))
    }
}

/// Routes about the server and the caller.
pub mod account {
    use super::{Method, Route};

    /// Public facts about the server.
    pub fn config() -> Route {
        Route::new("read the server's configuration", Method::GET, "/config")
    }

    /// Credentials for the object storage.
    pub fn push_access() -> Route {
        Route::new("get access to the object storage", Method::GET, "/object-storage/push-access")
    }

    /// The key that makes the request.
    pub fn current_api_key() -> Route {
        Route::new("check the API key", Method::GET, "/api-keys/current")
    }
}

/// Routes inside one sandbox.
pub mod toolbox {
    use super::{Method, Result, Route};
    use crate::api::toolbox::ExecuteRequest;

    /// Runs a script. Proxies may deliver it twice, so what must happen once has to protect itself.
    ///
    /// # Errors
    /// `Unexpected` if the request cannot be written as JSON.
    pub fn execute(request: &ExecuteRequest) -> Result<Route> {
        Route::new("run command", Method::POST, "/process/execute").json(request)
    }

    /// Writes files, replacing what is there; the body is multipart and not part of the route.
    pub fn bulk_upload() -> Route {
        Route::set("write file", "/files/bulk-upload".to_owned())
    }

    /// Reads a file.
    pub fn download(path: &str) -> Route {
        Route::new("read file", Method::GET, "/files/download").query("path", path)
    }

    /// Describes a file.
    pub fn info(path: &str) -> Route {
        Route::new("inspect file", Method::GET, "/files/info").query("path", path)
    }

    /// Makes a directory and its parents; an existing one is fine. `mode` is octal text.
    pub fn make_folder(path: &str, mode: &str) -> Route {
        Route::set("make directory", "/files/folder".to_owned()).query("path", path).query("mode", mode)
    }

    /// The directory that relative paths refer to.
    pub fn work_dir() -> Route {
        Route::new("find the working directory", Method::GET, "/work-dir")
    }

    /// The toolbox's version.
    pub fn version() -> Route {
        Route::new("ask for the toolbox version", Method::GET, "/version")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_segment() {
        let route = sandbox::get("a/b?c d#é").unwrap();
        assert_eq!((route.method, route.path.as_str()), (Method::GET, "/sandbox/a%2Fb%3Fc%20d%23%C3%A9"));
        for name in ["", ".", ".."] {
            assert_eq!(sandbox::delete(name).unwrap_err().kind(), ErrorKind::InvalidRequest, "{name:?}");
        }
    }

    #[test]
    fn a_create_sends_only_what_was_set() {
        let request = CreateSandbox { name: Some("n".to_owned()), ..CreateSandbox::default() };
        let route = sandbox::create(&request).unwrap();
        assert_eq!((route.method.clone(), route.path.as_str()), (Method::POST, "/sandbox"));
        assert!(!route.idempotent);
        let body: serde_json::Value = serde_json::from_slice(&route.body.unwrap()).unwrap();
        assert_eq!(body, serde_json::json!({"name": "n", "env": {}, "labels": {}, "volumes": []}));
    }

    #[test]
    fn a_list_is_ordered_by_creation_and_filters_by_labels_as_json() {
        let labels = BTreeMap::from([("run".to_owned(), "a&b".to_owned())]);
        let route = sandbox::list(&labels, Some("e30="), 200).unwrap();
        assert_eq!(
            route.path,
            "/sandbox?limit=200&sort=createdAt&order=asc&labels=%7B%22run%22%3A%22a%26b%22%7D&cursor=e30%3D"
        );
        let all = sandbox::list(&BTreeMap::new(), None, 1).unwrap();
        assert_eq!(all.path, "/sandbox?limit=1&sort=createdAt&order=asc");
    }

    #[test]
    fn setting_a_value_may_be_repeated_and_running_a_command_not() {
        assert!(sandbox::set_ttl("s", 90).unwrap().idempotent);
        assert_eq!(sandbox::set_ttl("s", 90).unwrap().path, "/sandbox/s/ttl/90");
        assert!(!toolbox::execute(&crate::api::toolbox::ExecuteRequest::default()).unwrap().idempotent);
    }

    #[test]
    fn paths_of_files_are_one_query_parameter() {
        assert_eq!(toolbox::download("/a b/ü&c").path, "/files/download?path=%2Fa%20b%2F%C3%BC%26c");
        assert_eq!(toolbox::make_folder("d", "755").path, "/files/folder?path=d&mode=755");
        assert_eq!(sandbox::stop("s", true).unwrap().path, "/sandbox/s/stop?force=true");
    }
}
