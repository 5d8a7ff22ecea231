//! Whether a failure is about the request or about the sandbox.

use std::time::Duration;

use super::Client;
use super::addresses::without_addresses;
use super::age::age;
use super::classify::advise;
use super::retry::Failure;
use crate::api::routes::sandbox as routes;
use crate::api::sandbox::{Sandbox, SandboxState};
use crate::{Error, ErrorKind, Status};

/// An explanation is worth less than this; the failure itself is already known.
const DEADLINE: Duration = Duration::from_secs(10);

/// Whether this failure at a toolbox may only mean that the sandbox is not there: not started, container gone, key
/// not valid for it, nobody behind the proxy, or silence.
pub(super) fn is_suspicious(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::SandboxUnavailable | ErrorKind::Unauthenticated | ErrorKind::DeadlineExceeded
    ) || matches!(error.http_status(), Some(502..=504))
}

impl Client {
    /// Asks the control plane for the state of a sandbox after a suspicious failure. Returns a permanent
    /// `SandboxUnavailable` with state, age and reason, and `error` as its source, if it does not run, `Unauthenticated` if the key is not valid
    /// at all, and `error` itself if the sandbox runs or the control plane cannot tell.
    ///
    /// The methods of [`Toolbox`](super::Toolbox) do this themselves for what they can recognise.
    pub async fn explain(&self, error: Error, sandbox: &str) -> Error {
        let Ok(route) = routes::get(sandbox) else { return error };
        let found: Result<Sandbox, Failure> = self.attempt_json(self.control(&route, DEADLINE)).await;
        match found {
            Ok(found) if found.state == SandboxState::Started && !found.is_being_deleted() => error,
            Ok(found) => unavailable(&describe(&found), error),
            Err(failure) => match failure.error.kind() {
                ErrorKind::NotFound => unavailable("it does not exist any more", error),
                ErrorKind::Unauthenticated if failure.error.status() == Status::Permanent => {
                    advise(failure.error)
                }
                _ => error,
            },
        }
    }
}

/// Without the failure's own words, which Inspect would show to the model: what they tell of is infrastructure.
fn unavailable(what: &str, error: Error) -> Error {
    tracing::debug!("{error}; the sandbox: {what}");
    let mut explained = Error::new(ErrorKind::SandboxUnavailable, what);
    if let Some(status) = error.http_status() {
        explained = explained.with_http_status(status);
    }
    if let Some(operation) = error.operation() {
        explained = explained.with_operation(operation);
    }
    explained.with_source(error)
}

fn describe(sandbox: &Sandbox) -> String {
    let state = if sandbox.is_being_deleted() { "being deleted" } else { sandbox.state.as_str() };
    let age = sandbox
        .created_at
        .as_deref()
        .and_then(age)
        .map_or(String::new(), |age| format!(", {} s after its creation", age.as_secs()));
    let reason = sandbox
        .error_reason
        .as_deref()
        .filter(|reason| !reason.is_empty())
        .map_or(String::new(), |reason| format!(" ({})", without_addresses(reason)));
    format!("it is {state}{reason}{age}")
}
