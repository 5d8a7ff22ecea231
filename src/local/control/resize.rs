//! `POST /sandbox/{s}/resize`.

use super::error::{ApiError, ApiResult};
use super::state::Control;
use crate::api::sandbox::{Sandbox, SandboxState};

impl Control {
    /// Gives a stopped sandbox other limits, which hold from its next start. Amounts are cpu, memory, disk.
    pub(super) fn resize(&self, key: &str, requested: [Option<u32>; 3]) -> ApiResult<Sandbox> {
        if requested.iter().all(Option::is_none) {
            return Err(ApiError::bad_request("At least one of cpu, memory or disk must be provided"));
        }
        for (amount, what) in requested.iter().zip(["cpu", "memory", "disk"]) {
            if *amount == Some(0) {
                return Err(ApiError::bad_request(format!("{what} must not be less than 1")));
            }
        }
        let now = self.now();
        let mut store = self.store();
        let record = store.find(key).ok_or_else(|| ApiError::no_sandbox(key))?;
        if record.is_pending() {
            return Err(ApiError::busy());
        }
        match record.state {
            SandboxState::Stopped => {}
            SandboxState::Started => {
                return Err(ApiError::bad_request(
                    "Local Daytona cannot change the limits of a sandbox that runs: stop it first",
                ));
            }
            _ => {
                return Err(ApiError::bad_request(
                    "Sandbox must be in started or stopped state to be resized",
                ));
            }
        }
        let sandbox = &record.sandbox;
        let (id, old_disk) = (sandbox.id.clone(), sandbox.disk);
        let mut amounts = [sandbox.cpu, sandbox.memory, sandbox.disk];
        for (amount, requested) in amounts.iter_mut().zip(requested) {
            *amount = requested.map_or(*amount, i64::from);
        }
        let [cpu, memory, disk] = amounts;
        if disk < old_disk {
            return Err(ApiError::bad_request("Sandbox disk size cannot be decreased"));
        }
        self.options.quota.check_one(amounts)?;
        self.options.quota.check_total(store.sandboxes.values(), [0, 0, disk - old_disk])?;
        let record = store.find(&id).ok_or_else(|| ApiError::no_sandbox(key))?;
        (record.sandbox.cpu, record.sandbox.memory, record.sandbox.disk) = (cpu, memory, disk);
        record.updated_at = now;
        Ok(record.view())
    }
}
