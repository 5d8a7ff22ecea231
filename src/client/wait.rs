//! Waiting until a sandbox runs.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::Sandboxes;
use crate::api::sandbox::{DesiredState, Sandbox, SandboxState};
use crate::{Error, ErrorKind, Result};

/// A warm sandbox starts in tens of milliseconds; asking again costs little.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The control plane caches single reads, so asking more often tells nothing new.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Reads may lag behind a create.
const INVISIBLE: Duration = Duration::from_secs(10);

impl Sandboxes {
    /// Waits until a sandbox is started, at most for `within`.
    ///
    /// # Errors
    /// - `CreationFailed`, `BuildFailed`: it ended in an error state, with the server's reason
    /// - `NoCapacity`: no machine was free for it within its `queue_timeout`
    /// - `SandboxUnavailable`: it is in another state that it doesn't leave by itself, or is gone
    /// - `DeadlineExceeded`: it did not start in time; it still exists
    pub async fn wait_started(&self, id: &str, within: Duration) -> Result<Sandbox> {
        let began = Instant::now();
        let mut wait = FIRST_WAIT;
        let mut last = "unknown, since the server did not answer,";
        loop {
            let answer = timeout(within.saturating_sub(began.elapsed()), self.find(id)).await;
            match answer {
                Ok(Ok(Some(sandbox))) if is_running(&sandbox) => return Ok(sandbox),
                Ok(Ok(Some(sandbox))) if is_over(&sandbox) => return Err(over(&sandbox).with_sandbox(id)),
                Ok(Ok(Some(sandbox))) => last = sandbox.state.as_str(),
                Ok(Ok(None)) if began.elapsed() >= INVISIBLE.min(within) => {
                    return Err(Error::new(ErrorKind::SandboxUnavailable, "it does not exist any more")
                        .with_operation("start sandbox")
                        .with_sandbox(id));
                }
                Ok(Ok(None)) => last = "invisible",
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
            if began.elapsed() + wait > within {
                let message = format!("it was still {last} after {:.0} s", within.as_secs_f64());
                return Err(Error::new(ErrorKind::DeadlineExceeded, message)
                    .with_operation("start sandbox")
                    .with_sandbox(id));
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 3 / 2).min(LONGEST_WAIT);
        }
    }
}

fn is_running(sandbox: &Sandbox) -> bool {
    sandbox.state == SandboxState::Started && !sandbox.is_being_deleted()
}

/// Whether it can't become started by itself. Single reads call a sandbox that is being restored `archived`.
fn is_over(sandbox: &Sandbox) -> bool {
    let on_its_way = sandbox.desired_state == Some(DesiredState::Started)
        && !matches!(sandbox.state, SandboxState::Error | SandboxState::BuildFailed);
    sandbox.is_being_deleted() || (sandbox.state.is_terminal() && !on_its_way)
}

fn over(sandbox: &Sandbox) -> Error {
    if sandbox.queue_timed_out_at.is_some() {
        let message = "no machine was free for it in time";
        return Error::new(ErrorKind::NoCapacity, message)
            .with_operation("start sandbox")
            .with_hint("Allow more minutes (`queue_timeout` in x-daytona), or run fewer samples at once");
    }
    let kind = match sandbox.state {
        _ if sandbox.is_being_deleted() => ErrorKind::SandboxUnavailable,
        SandboxState::BuildFailed => ErrorKind::BuildFailed,
        SandboxState::Error => ErrorKind::CreationFailed,
        _ => ErrorKind::SandboxUnavailable,
    };
    let reason = sandbox.error_reason.as_deref().filter(|reason| !reason.is_empty());
    let state = if sandbox.is_being_deleted() { "being deleted" } else { sandbox.state.as_str() };
    let message =
        reason.map_or_else(|| format!("it is {state}"), |reason| format!("it is {state}: {}", reason.trim()));
    Error::new(kind, message).with_operation("start sandbox")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(state: SandboxState, desired_state: Option<DesiredState>) -> Sandbox {
        Sandbox { state, desired_state, ..Sandbox::default() }
    }

    #[test]
    fn states_that_lead_to_started_are_waited_for() {
        for state in [
            SandboxState::Creating,
            SandboxState::PendingBuild,
            SandboxState::Unknown,
            SandboxState::Restoring,
        ] {
            assert!(!is_over(&sandbox(state, Some(DesiredState::Started))), "{state:?}");
        }
        assert!(!is_over(&sandbox(SandboxState::Archived, Some(DesiredState::Started))));
    }

    #[test]
    fn a_sandbox_that_no_machine_was_free_for_says_so() {
        let given_up = Sandbox {
            queue_timed_out_at: Some("2026-01-01T00:00:00Z".to_owned()),
            ..sandbox(SandboxState::Destroyed, Some(DesiredState::Destroyed))
        };
        assert!(is_over(&given_up));
        let error = over(&given_up);
        assert_eq!(error.kind(), ErrorKind::NoCapacity);
        assert!(error.to_string().contains("queue_timeout"), "{error}");
    }

    #[test]
    fn states_that_do_not_are_errors_with_their_reason() {
        for (state, desired, kind) in [
            (SandboxState::Error, Some(DesiredState::Started), ErrorKind::CreationFailed),
            (SandboxState::BuildFailed, None, ErrorKind::BuildFailed),
            (SandboxState::Stopped, Some(DesiredState::Stopped), ErrorKind::SandboxUnavailable),
            (SandboxState::Archived, None, ErrorKind::SandboxUnavailable),
            (SandboxState::Started, Some(DesiredState::Destroyed), ErrorKind::SandboxUnavailable),
        ] {
            let mut sandbox = sandbox(state, desired);
            sandbox.error_reason = Some("disk full".to_owned());
            assert!(is_over(&sandbox), "{state:?}");
            assert_eq!(over(&sandbox).kind(), kind, "{state:?}");
            assert!(over(&sandbox).to_string().contains("disk full"));
        }
    }
}
