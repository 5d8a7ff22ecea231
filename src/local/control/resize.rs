//! `POST /sandbox/{s}/resize`.

use tokio::sync::oneshot;

use super::error::{ApiError, ApiResult};
use super::quota::Amounts;
use super::record::Record;
use super::state::Control;
use crate::api::sandbox::{DesiredState, Sandbox, SandboxState};

/// A change that has been accepted and put on record.
struct Resize {
    id: String,
    /// What the sandbox had.
    former: Amounts,
    /// Where it comes from and returns to.
    state: SandboxState,
}

impl Control {
    /// Gives a sandbox other limits: one that runs more cores and memory at once, a stopped one any, which hold from
    /// its next start. Amounts are cpu, memory, disk. Answers when it is done.
    pub(super) async fn resize(&self, key: &str, requested: [Option<u32>; 3]) -> ApiResult<Sandbox> {
        if requested.iter().all(Option::is_none) {
            return Err(ApiError::bad_request("At least one of cpu, memory or disk must be provided"));
        }
        for (amount, what) in requested.iter().zip(["cpu", "memory", "disk"]) {
            if *amount == Some(0) {
                return Err(ApiError::bad_request(format!("{what} must not be less than 1")));
            }
        }
        let resize = self.accept(key, requested)?;
        let (id, control) = (resize.id.clone(), self.clone());
        let (teller, told) = oneshot::channel();
        // a client that goes away leaves it to be finished
        self.spawn(async move {
            let _ = teller.send(control.carry_out(resize).await);
        });
        match told.await {
            Ok(done) => done,
            // the server ends
            Err(_) => self.with(&id, |record, _| Ok(record.view())),
        }
    }

    /// Checks a change, and enters `resizing` with it.
    fn accept(&self, key: &str, requested: [Option<u32>; 3]) -> ApiResult<Resize> {
        let now = self.now();
        let mut store = self.store();
        let record = store.find(key).ok_or_else(|| ApiError::no_sandbox(key))?;
        if record.is_pending() {
            return Err(ApiError::busy());
        }
        let (id, state, former) = (record.sandbox.id.clone(), record.state, amounts(&record.sandbox));
        let mut wanted = former;
        for (amount, requested) in wanted.iter_mut().zip(requested) {
            *amount = requested.map_or(*amount, i64::from);
        }
        let [cpu, memory, disk] = [0, 1, 2].map(|index| wanted[index] - former[index]);
        if disk < 0 {
            return Err(ApiError::bad_request("Sandbox disk size cannot be decreased"));
        }
        let more = match state {
            SandboxState::Stopped => [0, 0, disk],
            SandboxState::Started if disk > 0 => {
                return Err(ApiError::bad_request(
                    "Sandbox disk size can be increased only while it is stopped",
                ));
            }
            SandboxState::Started if cpu < 0 || memory < 0 => {
                return Err(ApiError::bad_request(
                    "Sandbox cpu and memory can be decreased only while it is stopped",
                ));
            }
            SandboxState::Started => [cpu, memory, 0],
            _ => {
                return Err(ApiError::bad_request(
                    "Sandbox must be in started or stopped state to be resized",
                ));
            }
        };
        self.options.quota.check_one(wanted)?;
        self.options.quota.check_total(store.sandboxes.values(), more)?;
        let record = store.find(&id).ok_or_else(|| ApiError::no_sandbox(key))?;
        set(&mut record.sandbox, wanted);
        record.want(DesiredState::Resized, now);
        record.enter(SandboxState::Resizing, now);
        Ok(Resize { id, former, state })
    }

    /// Has the limits of what runs raised, and returns to the state before.
    async fn carry_out(&self, resize: Resize) -> ApiResult<Sandbox> {
        let Resize { id, former, state } = resize;
        let limits = self.with(&id, |record, _| Ok(self.limits(&record.sandbox)))?;
        let raised = self.engine.raise_limits(id.clone(), limits).await;
        let view = self.with(&id, |record, now| {
            if raised.is_err() {
                set(&mut record.sandbox, former);
            }
            let runs = state == SandboxState::Started && !has_ended(record);
            let (desired, state) = if runs {
                (DesiredState::Started, SandboxState::Started)
            } else {
                record.running = None;
                (DesiredState::Stopped, SandboxState::Stopped)
            };
            record.want(desired, now);
            record.enter(state, now);
            Ok(record.view())
        });
        self.reschedule.notify_one();
        raised.map_err(|error| ApiError::bad_request(error.to_string()))?;
        view
    }
}

/// Whether what ran ended by itself meanwhile, which nobody notes of a sandbox that is not `started`.
fn has_ended(record: &Record) -> bool {
    record.running.as_ref().is_none_or(|running| running.exit.borrow().is_some())
}

fn amounts(sandbox: &Sandbox) -> Amounts {
    [sandbox.cpu, sandbox.memory, sandbox.disk]
}

fn set(sandbox: &mut Sandbox, [cpu, memory, disk]: Amounts) {
    (sandbox.cpu, sandbox.memory, sandbox.disk) = (cpu, memory, disk);
}
