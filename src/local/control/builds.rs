//! What waits for root file systems: snapshots and sandboxes follow the preparation of theirs.

use std::sync::Arc;
use std::time::SystemTime;

use super::error::ApiResult;
use super::images::{Flight, Source};
use super::record::Record;
use super::state::Control;
use crate::api::sandbox::{DesiredState, SandboxState};
use crate::api::snapshot::{CreateSnapshot, Snapshot};

impl Control {
    /// Creates a snapshot, which is prepared in the background.
    pub(super) fn create_snapshot(&self, request: CreateSnapshot) -> ApiResult<Snapshot> {
        let now = self.now();
        let (snapshot, source) = self.store().snapshots.create(request, &self.images, now)?;
        if let Some(source) = source {
            let flight = self.images.join(self, &source);
            self.store().snapshots.follow(&snapshot.id, Arc::clone(&flight));
            let (control, id) = (self.clone(), snapshot.id.clone());
            self.spawn(async move {
                flight.begun().await;
                control.store().snapshots.begin(&id, control.now());
                let outcome = flight.outcome().await;
                control.store().snapshots.finish(&id, outcome, control.now());
            });
        }
        Ok(snapshot)
    }

    /// Gives a new sandbox its root file system, or the preparation that it waits for.
    pub(super) fn board(&self, record: &mut Record, now: SystemTime) {
        if matches!(record.source, Source::Ready(_)) {
            return;
        }
        let flight = self.images.join(self, &record.source);
        if let Some(image) = self.images.ready(&record.source) {
            record.source = Source::Ready(image);
        } else {
            let built = record.sandbox.build_info.is_some();
            record.enter(if built { SandboxState::PendingBuild } else { SandboxState::PullingSnapshot }, now);
        }
        record.preparation = Some(flight);
    }

    /// Waits until the sandbox has a root file system. `false` if it will have none, or is not wanted any more.
    pub(super) async fn prepare(&self, id: &str) -> bool {
        let waiting = self.with(id, |record, _| {
            let ready = matches!(record.source, Source::Ready(_));
            Ok(record.preparation.clone().filter(|_| !ready))
        });
        let flight: Arc<Flight> = match waiting {
            Ok(Some(flight)) => flight,
            Ok(None) => return true,
            Err(_) => return false,
        };
        flight.begun().await;
        let _ = self.with(id, |record, now| {
            if record.state == SandboxState::PendingBuild && record.desired == DesiredState::Started {
                record.enter(SandboxState::BuildingSnapshot, now);
            }
            Ok(())
        });
        let outcome = flight.outcome().await;
        let wanted = self.with(id, |record, now| {
            if record.desired != DesiredState::Started {
                return Ok(false);
            }
            match outcome {
                Ok(image) => record.source = Source::Ready(image),
                Err(reason) if record.sandbox.build_info.is_some() => record.fail_build(reason, now),
                Err(reason) => record.fail(reason, now),
            }
            Ok(!record.is_errored())
        });
        wanted.unwrap_or(false)
    }
}
