//! What an answer means: the one table from HTTP statuses, codes and texts to error kinds.

use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderMap};

use super::addresses::without_addresses;
use super::retry::Failure;
use super::transport::Answer;
use crate::api::error::ErrorBody;
use crate::api::headers;
use crate::{Error, ErrorKind};

/// Who answered; the same status means different things from each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// The control plane.
    Control,
    /// A sandbox's processes and facts, and the proxies in front of it.
    Toolbox,
    /// A sandbox's files, likewise.
    Files,
}

/// Server messages can be pages long; an error has to be read.
const LONGEST_TEXT: usize = 600;

/// A row of the table: this status, and all of these texts in code or message, in any case.
struct Rule {
    status: u16,
    texts: &'static [&'static str],
    kind: ErrorKind,
    temporary: bool,
}

const fn rule(status: u16, texts: &'static [&'static str], kind: ErrorKind, temporary: bool) -> Rule {
    Rule { status, texts, kind, temporary }
}

/// The first row that fits wins, before [`by_status`]. Daytona has no codes for most of these.
const CONTROL: &[Rule] = &[
    rule(400, &["no available runners"], ErrorKind::NoCapacity, true),
    rule(400, &["exceeds maximum allowed per sandbox"], ErrorKind::LimitExceeded, false),
    rule(400, &["total ", "limit exceeded"], ErrorKind::QuotaExceeded, true),
    rule(400, &["quota exceeded"], ErrorKind::QuotaExceeded, true),
    rule(400, &["sandbox failed to start"], ErrorKind::CreationFailed, false),
    rule(400, &["snapshot ", " not found"], ErrorKind::NotFound, false),
    // before April 2026 this was not a 409
    rule(400, &["state change in progress"], ErrorKind::Conflict, true),
    rule(400, &["failed to get temporary credentials"], ErrorKind::Server, true),
    rule(503, &["object storage is not configured"], ErrorKind::Unsupported, false),
    rule(401, &["token validation error"], ErrorKind::Unauthenticated, true),
    // a route that this server does not have
    rule(404, &["cannot ", " /"], ErrorKind::Unsupported, false),
    rule(409, &["already exists"], ErrorKind::AlreadyExists, false),
    rule(409, &[], ErrorKind::Conflict, true),
];

const TOOLBOX: &[Rule] = &[
    rule(400, &["is the sandbox started"], ErrorKind::SandboxUnavailable, true),
    rule(400, &["no ip address found"], ErrorKind::SandboxUnavailable, true),
    rule(404, &["container not found"], ErrorKind::SandboxUnavailable, true),
    rule(400, &["failed to get runner info"], ErrorKind::Server, true),
    rule(400, &["failed to get sandbox public status"], ErrorKind::Server, true),
    rule(401, &["token validation error"], ErrorKind::Unauthenticated, true),
    rule(404, &["404 page not found"], ErrorKind::Unsupported, false),
];

/// Only for file routes, after [`TOOLBOX`].
const FILES: &[Rule] = &[
    rule(403, &["file_access_denied"], ErrorKind::PermissionDenied, false),
    rule(404, &["file_not_found"], ErrorKind::FileNotFound, false),
    rule(404, &["no such file"], ErrorKind::FileNotFound, false),
    rule(404, &["file not found"], ErrorKind::FileNotFound, false),
    rule(403, &["permission denied"], ErrorKind::PermissionDenied, false),
    rule(400, &["is a directory"], ErrorKind::IsADirectory, false),
    rule(400, &["permission denied"], ErrorKind::PermissionDenied, false),
    rule(400, &["no such file or directory"], ErrorKind::FileNotFound, false),
];

/// Older toolboxes answer for a file with a status and nothing else. The proxies always explain themselves.
const SILENT_FILES: &[Rule] =
    &[rule(404, &[], ErrorKind::FileNotFound, false), rule(403, &[], ErrorKind::PermissionDenied, false)];

fn by_status(status: u16) -> (ErrorKind, bool) {
    match status {
        300..=399 => (ErrorKind::Protocol, false),
        401 => (ErrorKind::Unauthenticated, false),
        403 => (ErrorKind::Forbidden, false),
        404 | 410 => (ErrorKind::NotFound, false),
        409 => (ErrorKind::Conflict, true),
        429 => (ErrorKind::RateLimited, true),
        501 => (ErrorKind::Unsupported, false),
        // 408 is what a command's own limit becomes at the toolbox, or a proxy's patience
        408 | 500.. => (ErrorKind::Server, true),
        _ => (ErrorKind::InvalidRequest, false),
    }
}

/// Turns an answer that is not a success into a failure. `base` is where it came from, `redact` hides credentials.
pub(super) fn failure(
    service: Service,
    base: &str,
    answer: &Answer,
    redact: impl Fn(&str) -> String,
) -> Failure {
    let status = answer.status;
    // a front that is overloaded or limits rates says so by a page, and means it
    if is_page(answer) && status < 500 && !matches!(status, 408 | 429) {
        return Failure::refused(stranger(service, base, status));
    }
    let body: ErrorBody = if is_page(answer) {
        ErrorBody::default()
    } else {
        serde_json::from_slice(&answer.body).unwrap_or_else(|_| ErrorBody {
            message: Some(String::from_utf8_lossy(&answer.body).trim().to_owned()),
            ..ErrorBody::default()
        })
    };
    let said = redact(&shorten(body.text().unwrap_or_default()));
    let text = match service {
        Service::Control => said.clone(),
        Service::Toolbox | Service::Files => without_addresses(&said),
    };
    if text != said {
        tracing::debug!("the sandbox's toolbox answered {status}: {said}");
    }
    let haystack =
        format!("{} {}", body.code.as_deref().unwrap_or_default(), body.text().unwrap_or_default())
            .to_lowercase();
    let tables: &[&[Rule]] = match service {
        Service::Control => &[CONTROL],
        Service::Toolbox => &[TOOLBOX],
        Service::Files if haystack.trim().is_empty() => &[SILENT_FILES],
        Service::Files => &[TOOLBOX, FILES],
    };
    let (kind, temporary) = tables
        .iter()
        .flat_map(|table| table.iter())
        .find(|rule| rule.status == status && rule.texts.iter().all(|text| haystack.contains(text)))
        .map_or_else(|| by_status(status), |rule| (rule.kind, rule.temporary));
    let who = match service {
        Service::Control => "Daytona",
        Service::Toolbox | Service::Files => "the sandbox's toolbox",
    };
    let message = match (text.is_empty(), is_page(answer)) {
        (false, _) => format!("{who} answered {status}: {text}"),
        (true, true) => format!("the front of {who} answered {status} with a web page"),
        (true, false) => format!("{who} answered {status} without a message"),
    };
    let mut error = Error::new(kind, message).with_http_status(status);
    if temporary {
        error = error.temporary();
    }
    if let Some(code) = &body.code {
        error = error.with_code(code.clone());
    }
    if let Some(after) = retry_after(&answer.headers) {
        error = error.with_retry_after(after);
    }
    if status >= 500 || status == 408 { Failure::ambiguous(error) } else { Failure::refused(error) }
}

/// Says what the user can do about an answer of the control plane. Apart from [`failure`], since callers that act on
/// an error themselves have better advice, and the first advice stays.
pub(super) fn advise(error: Error) -> Error {
    let hint = match error.kind() {
        ErrorKind::Unauthenticated => {
            "Check DAYTONA_API_KEY, and that DAYTONA_API_URL is the server that issued it"
        }
        ErrorKind::Forbidden if error.message().contains("suspended") => {
            "Ask the owner of the Daytona organization"
        }
        ErrorKind::Forbidden => {
            "The API key lacks a permission; evals need write:sandboxes and delete:sandboxes, and write:snapshots for \
             images"
        }
        ErrorKind::Unsupported => "The server is older than this feature",
        ErrorKind::LimitExceeded => {
            "Ask for fewer resources, or for a higher limit per sandbox in the Daytona dashboard"
        }
        _ => return error,
    };
    error.with_hint(hint)
}

/// An answer that Daytona would not give.
pub(super) fn stranger(service: Service, base: &str, status: u16) -> Error {
    let what = match status {
        300..=399 => "a redirect",
        _ => "something that is not Daytona's JSON",
    };
    let who = match service {
        Service::Control => base,
        Service::Toolbox | Service::Files => {
            tracing::debug!("{base} answered {status} with {what}");
            "the sandbox's toolbox"
        }
    };
    let error = Error::new(ErrorKind::Protocol, format!("{who} answered {status} with {what}"))
        .with_http_status(status);
    error.with_hint(match service {
        Service::Control => {
            "Check DAYTONA_API_URL: it ends in /api, for example https://app.daytona.io/api; a proxy or firewall may \
             also have answered"
        }
        Service::Toolbox | Service::Files => "A proxy or firewall may have answered instead of Daytona",
    })
}

fn is_page(answer: &Answer) -> bool {
    let html =
        answer.headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
    html || answer.body.trim_ascii_start().starts_with(b"<") || (300..=399).contains(&answer.status)
}

fn shorten(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(LONGEST_TEXT) {
        line.truncate(end);
        line.push('…');
    }
    line
}

/// The longest wait asked for by `Retry-After` or `Retry-After-<throttler>`, in whole seconds. The form with a date
/// is not used by Daytona; it is left to the back-off.
fn retry_after(map: &HeaderMap) -> Option<Duration> {
    map.iter()
        .filter(|(name, _)| name.as_str().starts_with(headers::RETRY_AFTER_PREFIX))
        .filter_map(|(_, value)| value.to_str().ok()?.trim().parse::<f64>().ok())
        .filter_map(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .max()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderValue;
    use http::header::HeaderName;

    use super::*;
    use crate::Status;
    use crate::client::retry::Effect;

    fn fail(service: Service, status: u16, body: &str) -> Failure {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let answer = Answer { status, headers: HeaderMap::new(), body, delimited: true };
        failure(service, "https://h/api", &answer, str::to_owned)
    }

    fn message(text: &str) -> String {
        serde_json::json!({"message": text}).to_string()
    }

    #[test]
    fn the_control_plane_speaks_in_texts() {
        use ErrorKind::*;
        for (status, text, kind, temporary) in [
            (400, "No available runners", NoCapacity, true),
            (400, "Total CPU limit exceeded. Maximum allowed: 10.\nTo increase …", QuotaExceeded, true),
            (400, "Snapshot quota exceeded. Maximum allowed: 30", QuotaExceeded, true),
            (400, "CPU request 8 exceeds maximum allowed per sandbox (4).", LimitExceeded, false),
            (400, "Snapshot x not found. Did you add it through the Daytona Dashboard?", NotFound, false),
            (400, "Sandbox failed to start: boom", CreationFailed, false),
            (400, "Sandbox state change in progress", Conflict, true),
            (400, "cpu must not be less than 0", InvalidRequest, false),
            (401, "Invalid credentials", Unauthenticated, false),
            (403, "Access denied", Forbidden, false),
            (404, "Sandbox with ID or name abc not found", NotFound, false),
            (404, "Cannot POST /api/sandbox/s/ttl/5", Unsupported, false),
            (400, "Failed to get temporary credentials: connect ECONNREFUSED", Server, true),
            (503, "Object storage is not configured", Unsupported, false),
            (409, "Sandbox with name n already exists", AlreadyExists, false),
            (409, "Sandbox was modified by another operation", Conflict, true),
            (422, "Pause is not supported", InvalidRequest, false),
            (429, "ThrottlerException: Too Many Requests", RateLimited, true),
            (503, "Service is currently under maintenance.", Server, true),
        ] {
            let error = fail(Service::Control, status, &message(text)).error;
            assert_eq!((error.kind(), error.status() == Status::Temporary), (kind, temporary), "{text}");
            assert_eq!(error.http_status(), Some(status));
        }
    }

    #[test]
    fn a_toolbox_answer_about_the_sandbox_is_not_one_about_a_file() {
        use ErrorKind::*;
        for (status, body, kind) in [
            (400, message("bad request: … no IP address found. Is the Sandbox started?"), SandboxUnavailable),
            (404, message("not found: sandbox container not found: x"), SandboxUnavailable),
            (404, String::new(), FileNotFound),
            (404, r#"{"code":"FILE_NOT_FOUND","message":"x"}"#.to_owned(), FileNotFound),
            (404, message("not found: not found"), NotFound),
            (403, message("forbidden: no access"), Forbidden),
            (404, "404 page not found".to_owned(), Unsupported),
            (403, String::new(), PermissionDenied),
            (400, String::new(), InvalidRequest),
            (400, message("read /x: is a directory"), IsADirectory),
            (502, String::new(), Server),
        ] {
            assert_eq!(fail(Service::Files, status, &body).error.kind(), kind, "{status} {body}");
        }
        assert_eq!(fail(Service::Toolbox, 404, "").error.kind(), NotFound);
    }

    #[test]
    fn a_web_page_is_never_shown_and_names_the_setting() {
        let error = fail(Service::Control, 404, "<!DOCTYPE html><p>secret").error;
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(error.to_string().contains("DAYTONA_API_URL"), "{error}");
        let error = fail(Service::Toolbox, 524, "<html>cloud front").error;
        assert_eq!((error.kind(), error.status()), (ErrorKind::Server, Status::Temporary));
        assert!(!error.to_string().contains("cloud front"), "{error}");
        assert_eq!(fail(Service::Control, 429, "<html>").error.kind(), ErrorKind::RateLimited);
    }

    #[test]
    fn what_a_server_failed_at_may_have_happened_and_what_it_refused_did_not() {
        for (status, effect) in
            [(500, Effect::Possible), (408, Effect::Possible), (429, Effect::None), (409, Effect::None)]
        {
            assert_eq!(fail(Service::Control, status, "{}").effect, effect, "{status}");
        }
    }

    #[test]
    fn any_throttler_may_say_when_to_come_back() {
        let mut map = HeaderMap::new();
        assert_eq!(retry_after(&map), None);
        map.insert(HeaderName::from_static("retry-after-sandbox-create"), HeaderValue::from_static("17"));
        map.insert(HeaderName::from_static("retry-after"), HeaderValue::from_static("soon"));
        assert_eq!(retry_after(&map), Some(Duration::from_secs(17)));
    }

    #[test]
    fn texts_are_one_short_line() {
        let text = fail(Service::Control, 400, &message(&"é \n".repeat(2000))).error.message().to_owned();
        assert!(text.chars().count() < LONGEST_TEXT + 60 && !text.contains('\n'));
    }
}
