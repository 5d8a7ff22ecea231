//! Quotas, with the texts that clients tell apart: a total may clear, a per-sandbox limit never does.

use super::error::{ApiError, ApiResult};
use super::options::Quota;
use super::record::Record;

/// Cores, GiB of memory, GiB of disk.
pub(super) type Amounts = [i64; 3];

impl Quota {
    /// Refuses what can never fit.
    pub(super) fn check_one(&self, requested: Amounts) -> ApiResult<()> {
        let limits =
            [(self.max_cpu, "CPU", ""), (self.max_memory, "Memory", "GB"), (self.max_disk, "Disk", "GB")];
        for ((limit, what, unit), requested) in limits.into_iter().zip(requested) {
            if let Some(limit) = limit.filter(|limit| i64::from(*limit) < requested) {
                return Err(ApiError::bad_request(format!(
                    "{what} request {requested}{unit} exceeds maximum allowed per sandbox ({limit}{unit}).\n\
                     Need higher resource limits per-sandbox? Raise INSPECT_DAYTONA_LOCAL_MAX_{}.",
                    what.to_uppercase()
                )));
            }
        }
        Ok(())
    }

    /// Refuses what does not fit beside the sandboxes that there are.
    pub(super) fn check_total<'a>(
        &self,
        sandboxes: impl Iterator<Item = &'a Record>,
        requested: Amounts,
    ) -> ApiResult<()> {
        let totals = [self.total_cpu, self.total_memory, self.total_disk];
        if totals.iter().all(Option::is_none) {
            return Ok(());
        }
        for (index, (used, requested)) in usage(sandboxes).into_iter().zip(requested).enumerate() {
            let limit = totals.get(index).copied().flatten();
            if requested > 0 && limit.is_some_and(|limit| used + requested > i64::from(limit)) {
                return Err(exceeded(index, limit.unwrap_or_default()));
            }
        }
        Ok(())
    }
}

/// What a quota of `limit` says when it is used up; 0 is CPU, 1 memory, anything else disk.
pub(super) fn exceeded(resource: usize, limit: u32) -> ApiError {
    let text = match resource {
        0 => format!("Total CPU limit exceeded. Maximum allowed: {limit}."),
        1 => format!("Total memory limit exceeded. Maximum allowed: {limit}GiB."),
        _ => format!(
            "Total disk limit exceeded. Maximum allowed: {limit}GiB.\nConsider archiving your unused Sandboxes to \
             free up available storage."
        ),
    };
    ApiError::bad_request(format!(
        "{text}\nTo increase concurrency limits, raise the quota of local Daytona."
    ))
}

/// What the sandboxes take up.
pub(super) fn usage<'a>(sandboxes: impl Iterator<Item = &'a Record>) -> Amounts {
    let mut used = [0; 3];
    for record in sandboxes {
        let [cpu, memory, disk] = &mut used;
        if record.uses_compute() {
            *cpu += record.sandbox.cpu;
            *memory += record.sandbox.memory;
        }
        if record.uses_disk() {
            *disk += record.sandbox.disk;
        }
    }
    used
}
