//! What happens by itself: auto-stop, auto-archive, auto-delete and the time-to-live.

use std::time::SystemTime;

use super::create::minutes_to_duration;
use super::record::Record;
use super::state::{Control, closed};
use crate::api::sandbox::SandboxState;

/// What is done to a sandbox without anybody asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Stop,
    Archive,
    Delete,
}

/// Does what is due and sleeps until something is, or until `Shared::reschedule` is notified.
pub(super) async fn run(control: Control) {
    loop {
        let next = act(&control);
        let due = async {
            match next {
                Some(at) => control.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = control.reschedule.notified() => {}
            () = closed(control.closing.subscribe()) => return,
        }
    }
}

/// Does what is due; returns when something is due next.
fn act(control: &Control) -> Option<SystemTime> {
    let now = control.now();
    let mut next: Option<SystemTime> = None;
    let mut due = Vec::new();
    for record in control.store().sandboxes.values() {
        let Some((at, action)) = plan(record, now) else { continue };
        if at <= now {
            due.push((record.sandbox.id.clone(), action));
        } else {
            next = Some(next.map_or(at, |next| next.min(at)));
        }
    }
    for (id, action) in due {
        let done = match action {
            Action::Stop => control.stop(&id),
            Action::Archive => control.archive(&id),
            Action::Delete => control.delete(&id),
        };
        match done {
            Ok(_) => tracing::info!(sandbox = %id, "automatic {action:?}"),
            // somebody was faster; the end of that transition wakes us again
            Err(error) => tracing::debug!(sandbox = %id, "automatic {action:?}: {}", error.message),
        }
    }
    next
}

/// What comes next for a sandbox, and when. Nothing while it is in transition: the transition's end asks again.
fn plan(record: &Record, now: SystemTime) -> Option<(SystemTime, Action)> {
    if record.is_pending() || record.is_hidden() {
        return None;
    }
    // a request that is under way is activity that has not ended
    let active_at = if record.open_requests > 0 { now } else { record.last_activity_at };
    let after = |minutes: i64, action| Some((active_at + minutes_to_duration(minutes), action));
    let sandbox = &record.sandbox;
    let idle = match record.state {
        SandboxState::Started => sandbox
            .auto_stop_interval
            .filter(|minutes| *minutes > 0)
            .and_then(|minutes| after(minutes, Action::Stop)),
        SandboxState::Stopped => {
            let archive =
                sandbox.auto_archive_interval.filter(|minutes| *minutes > 0 && !record.is_ephemeral());
            let delete = sandbox.auto_delete_interval.filter(|minutes| *minutes >= 0);
            earlier(
                delete.and_then(|minutes| after(minutes, Action::Delete)),
                archive.and_then(|minutes| after(minutes, Action::Archive)),
            )
        }
        _ => None,
    };
    earlier(record.destroy_at.map(|at| (at, Action::Delete)), idle)
}

/// The earlier of two; the first where both are due at once.
fn earlier(
    first: Option<(SystemTime, Action)>,
    second: Option<(SystemTime, Action)>,
) -> Option<(SystemTime, Action)> {
    [first, second].into_iter().flatten().min_by_key(|(at, _)| *at)
}

impl Control {
    /// Notes activity of a sandbox.
    pub(super) fn touch(&self, id: &str) {
        let now = self.now();
        if let Some(record) = self.store().sandboxes.get_mut(id) {
            record.last_activity_at = now;
        }
    }

    /// Notes activity until the returned value is dropped.
    pub(super) fn activity(&self, id: &str) -> Activity {
        let now = self.now();
        if let Some(record) = self.store().sandboxes.get_mut(id) {
            record.last_activity_at = now;
            record.open_requests += 1;
        }
        Activity { control: self.clone(), id: id.to_owned() }
    }
}

/// A request to a sandbox that is under way.
#[derive(Debug)]
pub(super) struct Activity {
    control: Control,
    id: String,
}

impl Drop for Activity {
    fn drop(&mut self) {
        let now = self.control.now();
        if let Some(record) = self.control.store().sandboxes.get_mut(&self.id) {
            record.open_requests = record.open_requests.saturating_sub(1);
            record.last_activity_at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::api::sandbox::{DesiredState, Sandbox};
    use crate::local::control::images::{Image, Source};
    use crate::local::spec::RootFs;

    fn record(state: SandboxState, desired: DesiredState) -> Record {
        let sandbox = Sandbox {
            auto_stop_interval: Some(15),
            auto_archive_interval: Some(60),
            auto_delete_interval: Some(-1),
            ..Sandbox::default()
        };
        let source = Source::Ready(Image::plain(RootFs::Host));
        let mut record = Record::new(sandbox, source, SystemTime::UNIX_EPOCH);
        (record.state, record.desired) = (state, desired);
        record
    }

    fn planned(record: &Record) -> Option<(u64, Action)> {
        let (at, action) = plan(record, SystemTime::UNIX_EPOCH + Duration::from_secs(6000))?;
        Some((at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 60, action))
    }

    #[test]
    fn a_started_sandbox_is_stopped_and_a_stopped_one_archived_or_deleted() {
        let mut started = record(SandboxState::Started, DesiredState::Started);
        assert_eq!(planned(&started), Some((15, Action::Stop)));
        started.open_requests = 1;
        assert_eq!(planned(&started), Some((115, Action::Stop)));
        started.sandbox.auto_stop_interval = Some(0);
        assert_eq!(planned(&started), None);

        let mut stopped = record(SandboxState::Stopped, DesiredState::Stopped);
        assert_eq!(planned(&stopped), Some((60, Action::Archive)));
        stopped.sandbox.auto_delete_interval = Some(5);
        assert_eq!(planned(&stopped), Some((5, Action::Delete)));
    }

    #[test]
    fn archived_and_changing_sandboxes_are_left_alone_but_for_the_time_to_live() {
        let mut archived = record(SandboxState::Archived, DesiredState::Archived);
        archived.sandbox.auto_delete_interval = Some(5);
        assert_eq!(planned(&archived), None);
        archived.destroy_at = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(120));
        assert_eq!(planned(&archived), Some((2, Action::Delete)));
        archived.desired = DesiredState::Started;
        assert_eq!(planned(&archived), None);
    }
}
