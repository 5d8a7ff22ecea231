//! A sandbox as the control plane stores it: the state it is in, the state it is to be in, and what runs.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use super::images::{Flight, Source};
use super::{origin, timestamp};
use crate::api::sandbox::{DesiredState, Sandbox, SandboxState};
use crate::local::engine::Running;

/// A stored sandbox.
#[derive(Debug)]
pub(super) struct Record {
    /// What does not follow from the other fields. Its states and times are filled in by [`Record::view`].
    pub(super) sandbox: Sandbox,
    /// Stored state.
    pub(super) state: SandboxState,
    /// What it is to become.
    pub(super) desired: DesiredState,
    pub(super) created_at: SystemTime,
    pub(super) updated_at: SystemTime,
    pub(super) last_activity_at: SystemTime,
    /// When its time-to-live ends.
    pub(super) destroy_at: Option<SystemTime>,
    /// What it sees as `/`; ready from its first start on.
    pub(super) source: Source,
    /// The preparation of its root file system, if there was one.
    pub(super) preparation: Option<Arc<Flight>>,
    /// The engine's handle, from the end of a start to the beginning of the next one.
    pub(super) running: Option<Running>,
    /// Counts starts, so that the end of an earlier run is not taken for the end of this one.
    pub(super) run: u64,
    /// Token of the preview URLs; another one after each start.
    pub(super) preview_token: String,
    /// Requests of the toolbox and of previews that are under way; while there are any, the sandbox is active.
    pub(super) open_requests: usize,
    /// The stored state again, for whoever waits for it.
    pub(super) watched: watch::Sender<SandboxState>,
}

impl Record {
    /// A sandbox that was accepted and not begun.
    pub(super) fn new(sandbox: Sandbox, source: Source, now: SystemTime) -> Self {
        Self {
            sandbox,
            state: SandboxState::Unknown,
            desired: DesiredState::Started,
            created_at: now,
            updated_at: now,
            last_activity_at: now,
            destroy_at: None,
            source,
            preparation: None,
            running: None,
            run: 0,
            preview_token: String::new(),
            open_requests: 0,
            watched: watch::Sender::new(SandboxState::Unknown),
        }
    }

    /// Enters a state, which counts as activity.
    pub(super) fn enter(&mut self, state: SandboxState, now: SystemTime) {
        self.state = state;
        self.updated_at = now;
        self.last_activity_at = now;
        self.watched.send_replace(state);
    }

    /// Sets the goal.
    pub(super) fn want(&mut self, desired: DesiredState, now: SystemTime) {
        self.desired = desired;
        self.updated_at = now;
        self.last_activity_at = now;
    }

    /// Enters `error`: the goal is not pursued any more.
    pub(super) fn fail(&mut self, reason: String, now: SystemTime) {
        self.sandbox.error_reason = Some(reason);
        self.enter(SandboxState::Error, now);
    }

    /// Enters `build_failed`: there will be no root file system.
    pub(super) fn fail_build(&mut self, reason: String, now: SystemTime) {
        self.sandbox.error_reason = Some(reason);
        self.enter(SandboxState::BuildFailed, now);
    }

    /// Whether containers are to run in it.
    pub(super) fn has_nesting(&self) -> bool {
        matches!(&self.source, Source::Ready(image) if image.nesting)
    }

    /// Whether a transition is under way.
    pub(super) fn is_pending(&self) -> bool {
        let reached = matches!(
            (self.state, self.desired),
            (SandboxState::Started, DesiredState::Started)
                | (SandboxState::Stopped, DesiredState::Stopped)
                | (SandboxState::Paused, DesiredState::Paused)
                | (SandboxState::Destroyed, DesiredState::Destroyed)
        );
        !(reached || self.is_errored() || self.desired == DesiredState::Archived)
    }

    /// Whether it ended in an error.
    pub(super) fn is_errored(&self) -> bool {
        matches!(self.state, SandboxState::Error | SandboxState::BuildFailed)
    }

    /// Whether single reads say 404 although the record is still there.
    pub(super) fn is_hidden(&self) -> bool {
        self.state == SandboxState::Destroyed
            || (self.desired == DesiredState::Destroyed && self.is_errored())
    }

    /// Whether a stop deletes it.
    pub(super) fn is_ephemeral(&self) -> bool {
        self.sandbox.auto_delete_interval == Some(0)
    }

    /// Whether it takes up cores and memory.
    pub(super) fn uses_compute(&self) -> bool {
        use SandboxState::{Archived, Archiving, BuildFailed, Destroyed, Error, Resizing, Stopped};
        if self.state == Resizing {
            return self.running.is_some();
        }
        !matches!(self.state, Stopped | Archived | Archiving | Destroyed | Error | BuildFailed)
            || (self.desired == DesiredState::Started && !self.is_errored())
    }

    /// Whether it takes up disk.
    pub(super) fn uses_disk(&self) -> bool {
        !matches!(self.state, SandboxState::Archived | SandboxState::Destroyed) && !self.is_hidden()
    }

    /// The state that answers show, derived from the stored one and the goal.
    pub(super) fn reported(&self) -> SandboxState {
        match (self.state, self.desired) {
            (SandboxState::Started, DesiredState::Stopped) => SandboxState::Stopping,
            (SandboxState::Started | SandboxState::Stopped, DesiredState::Destroyed) => {
                SandboxState::Destroying
            }
            (SandboxState::Stopped, DesiredState::Started) => SandboxState::Starting,
            (SandboxState::Stopped, DesiredState::Archived) => SandboxState::Archiving,
            (SandboxState::Unknown, DesiredState::Started) => SandboxState::Creating,
            (stored, _) => stored,
        }
    }

    /// The sandbox as single reads show it.
    pub(super) fn view(&self) -> Sandbox {
        Sandbox {
            state: self.reported(),
            desired_state: Some(self.desired),
            created_at: Some(timestamp::format(self.created_at)),
            updated_at: Some(timestamp::format(self.updated_at)),
            last_activity_at: Some(timestamp::format(self.last_activity_at)),
            auto_destroy_at: self.destroy_at.map(timestamp::format),
            // whoever created it may have come another way
            toolbox_proxy_url: origin::asked_toolbox().or_else(|| self.sandbox.toolbox_proxy_url.clone()),
            ..self.sandbox.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::control::images::Image;
    use crate::local::spec::RootFs;

    fn source() -> Source {
        Source::Ready(Image::plain(RootFs::Host))
    }

    #[test]
    fn the_reported_state_follows_from_state_and_goal() {
        use {DesiredState as D, SandboxState as S};
        for (stored, desired, reported, pending) in [
            (S::Started, D::Stopped, S::Stopping, true),
            (S::Started, D::Destroyed, S::Destroying, true),
            (S::Stopped, D::Started, S::Starting, true),
            (S::Stopped, D::Destroyed, S::Destroying, true),
            (S::Stopped, D::Archived, S::Archiving, false),
            (S::Unknown, D::Started, S::Creating, true),
            (S::Archived, D::Started, S::Archived, true),
            (S::Started, D::Started, S::Started, false),
            (S::Error, D::Started, S::Error, false),
            (S::Archived, D::Archived, S::Archived, false),
            (S::Error, D::Destroyed, S::Error, false),
            (S::Resizing, D::Resized, S::Resizing, true),
        ] {
            let mut record = Record::new(Sandbox::default(), source(), SystemTime::UNIX_EPOCH);
            (record.state, record.desired) = (stored, desired);
            assert_eq!(
                (record.reported(), record.is_pending()),
                (reported, pending),
                "{stored:?} {desired:?}"
            );
        }
    }

    #[test]
    fn an_errored_sandbox_that_is_being_deleted_is_hidden() {
        let mut record = Record::new(Sandbox::default(), source(), SystemTime::UNIX_EPOCH);
        record.fail("no memory".to_owned(), SystemTime::UNIX_EPOCH);
        assert!(!record.is_hidden());
        record.want(DesiredState::Destroyed, SystemTime::UNIX_EPOCH);
        assert!(record.is_hidden());
    }
}
