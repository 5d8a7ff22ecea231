//! Lists of sandboxes: filters, order, and the two kinds of paging.

use std::collections::BTreeMap;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::error::{ApiError, ApiResult};
use super::extract::Pairs;
use super::record::Record;
use super::timestamp;
use crate::api::sandbox::SandboxState;

/// Which sandboxes a list shows.
#[derive(Debug, Default)]
pub(super) struct Filter {
    id: Option<String>,
    name: Option<String>,
    labels: BTreeMap<String, String>,
    states: Vec<SandboxState>,
    snapshots: Vec<String>,
    regions: Vec<String>,
    classes: Vec<String>,
    include_errored_deleted: bool,
    public: Option<bool>,
    recoverable: Option<bool>,
    /// Least and most of cpu, memory, disk, gpu.
    amounts: [(Option<i64>, Option<i64>); 4],
    created: (Option<SystemTime>, Option<SystemTime>),
    active: (Option<SystemTime>, Option<SystemTime>),
    destroyed: (Option<SystemTime>, Option<SystemTime>),
}

impl Filter {
    /// Reads the filters; `regions` is the name of the one that the two lists call differently.
    pub(super) fn read(query: &Pairs, regions: &str) -> ApiResult<Self> {
        let words = |key: &str| query.many(key).map(str::to_owned).collect::<Vec<_>>();
        let lower = |key: &str| query.one(key).map(str::to_lowercase);
        let amount = |least: &str, most: &str| -> ApiResult<_> {
            Ok((query.number(least, 1, i64::MAX)?, query.number(most, 1, i64::MAX)?))
        };
        let times =
            |after: &str, before: &str| -> ApiResult<_> { Ok((query.time(after)?, query.time(before)?)) };
        Ok(Self {
            id: lower("id"),
            name: lower("name"),
            labels: labels(query.one("labels"))?,
            states: query.many("states").map(state).collect::<ApiResult<_>>()?,
            snapshots: words("snapshots"),
            regions: words(regions),
            classes: words("sandboxClasses"),
            include_errored_deleted: query.boolean("includeErroredDeleted")?.unwrap_or(false),
            public: query.boolean("isPublic")?,
            recoverable: query.boolean("isRecoverable")?,
            amounts: [
                amount("minCpu", "maxCpu")?,
                amount("minMemoryGiB", "maxMemoryGiB")?,
                amount("minDiskGiB", "maxDiskGiB")?,
                amount("minGpu", "maxGpu")?,
            ],
            created: times("createdAtAfter", "createdAtBefore")?,
            active: times("lastEventAfter", "lastEventBefore")?,
            destroyed: times("autoDestroyAtAfter", "autoDestroyAtBefore")?,
        })
    }

    /// Whether a sandbox is shown. States are compared with the stored one.
    pub(super) fn shows(&self, record: &Record) -> bool {
        let sandbox = &record.sandbox;
        let begins = |text: &str, prefix: &Option<String>| {
            prefix.as_ref().is_none_or(|prefix| text.to_lowercase().starts_with(prefix.as_str()))
        };
        let among =
            |words: &[String], word: &str| words.is_empty() || words.iter().any(|other| other == word);
        let within = |value: i64, (least, most): (Option<i64>, Option<i64>)| {
            least.is_none_or(|least| value >= least) && most.is_none_or(|most| value <= most)
        };
        let between = |at: SystemTime, (after, before): (Option<SystemTime>, Option<SystemTime>)| {
            after.is_none_or(|after| at >= after) && before.is_none_or(|before| at <= before)
        };
        let amounts = [sandbox.cpu, sandbox.memory, sandbox.disk, sandbox.gpu];
        let ttl =
            self.destroyed == (None, None) || record.destroy_at.is_some_and(|at| between(at, self.destroyed));
        record.state != SandboxState::Destroyed
            && (self.include_errored_deleted || !record.is_hidden())
            && begins(&sandbox.id, &self.id)
            && begins(&sandbox.name, &self.name)
            && self.labels.iter().all(|(name, value)| sandbox.labels.get(name) == Some(value))
            && (self.states.is_empty() || self.states.contains(&record.state))
            && among(&self.snapshots, sandbox.snapshot.as_deref().unwrap_or_default())
            && among(&self.regions, &sandbox.target)
            && among(&self.classes, sandbox.sandbox_class.as_deref().unwrap_or_default())
            && self.public.is_none_or(|public| public == sandbox.public)
            && self.recoverable.is_none_or(|recoverable| recoverable == sandbox.recoverable)
            && amounts.into_iter().zip(self.amounts).all(|(value, bounds)| within(value, bounds))
            && between(record.created_at, self.created)
            && between(record.last_activity_at, self.active)
            && ttl
    }
}

fn labels(json: Option<&str>) -> ApiResult<BTreeMap<String, String>> {
    let Some(json) = json else { return Ok(BTreeMap::new()) };
    serde_json::from_str(json).map_err(|_| ApiError::bad_request("Invalid labels JSON format"))
}

fn state(word: &str) -> ApiResult<SandboxState> {
    let state = serde_json::from_value::<SandboxState>(word.into()).unwrap_or_default();
    if (state == SandboxState::Unknown && word != "unknown") || state == SandboxState::Destroyed {
        return Err(ApiError::bad_request(format!(
            "each value in states must be a listable state, got {word}"
        )));
    }
    Ok(state)
}

/// The order of a list: by a key, then by id.
#[derive(Debug)]
pub(super) struct Order {
    sort: String,
    descending: bool,
}

impl Order {
    /// Reads `sort` and `order`; the first permitted key is the default.
    pub(super) fn read(query: &Pairs, permitted: &[&str]) -> ApiResult<Self> {
        let sort = query.one("sort").or(permitted.first().copied()).unwrap_or_default();
        if !permitted.contains(&sort) {
            let permitted = permitted.join(", ");
            return Err(ApiError::bad_request(format!(
                "sort must be one of the following values: {permitted}"
            )));
        }
        let descending = match query.one("order") {
            None | Some("desc") => true,
            Some("asc") => false,
            Some(_) => {
                return Err(ApiError::bad_request("order must be one of the following values: asc, desc"));
            }
        };
        Ok(Self { sort: sort.to_owned(), descending })
    }

    /// A text by which sandboxes sort.
    fn key(&self, record: &Record) -> String {
        let sandbox = &record.sandbox;
        let time = |at: SystemTime| {
            let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            format!("{:030}", since.as_nanos())
        };
        match self.sort.as_str() {
            "name" => sandbox.name.clone(),
            "state" => record.state.as_str().to_owned(),
            "snapshot" => sandbox.snapshot.clone().unwrap_or_default(),
            "region" => sandbox.target.clone(),
            "cpu" => format!("{:020}", sandbox.cpu),
            "memoryGib" => format!("{:020}", sandbox.memory),
            "diskGib" => format!("{:020}", sandbox.disk),
            "createdAt" => time(record.created_at),
            "updatedAt" => time(record.updated_at),
            "lastActivityAt" => time(record.last_activity_at),
            _ => String::new(),
        }
    }

    /// Sorts sandboxes, each with its key.
    pub(super) fn sort<'a>(&self, records: impl Iterator<Item = &'a Record>) -> Vec<(String, &'a Record)> {
        let mut sorted: Vec<_> = records.map(|record| (self.key(record), record)).collect();
        sorted.sort_by(|a, b| {
            let order = (&a.0, &a.1.sandbox.id).cmp(&(&b.0, &b.1.sandbox.id));
            if self.descending { order.reverse() } else { order }
        });
        sorted
    }

    /// How many of the sorted sandboxes come before a cursor or at it.
    pub(super) fn skip(&self, sorted: &[(String, &Record)], cursor: &Cursor) -> ApiResult<usize> {
        if cursor.sort != self.sort || cursor.descending != self.descending {
            return Err(ApiError::bad_request("Invalid cursor provided: it belongs to another order"));
        }
        Ok(sorted.partition_point(|(key, record)| {
            let order = (key, &record.sandbox.id).cmp(&(&cursor.key, &cursor.id));
            if self.descending { order.is_ge() } else { order.is_le() }
        }))
    }

    /// The cursor behind an item.
    pub(super) fn cursor(&self, (key, record): &(String, &Record)) -> Cursor {
        let id = record.sandbox.id.clone();
        Cursor { sort: self.sort.clone(), descending: self.descending, key: key.clone(), id }
    }
}

/// Where a page ended. Opaque to clients: base64 of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Cursor {
    sort: String,
    descending: bool,
    key: String,
    id: String,
}

impl Cursor {
    pub(super) fn encode(&self) -> String {
        // four plain fields always have a JSON form
        STANDARD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    pub(super) fn decode(text: &str) -> ApiResult<Self> {
        let json = STANDARD.decode(text).map_err(|error| error.to_string());
        let cursor = json.and_then(|json| serde_json::from_slice(&json).map_err(|error| error.to_string()));
        cursor.map_err(|error| ApiError::bad_request(format!("Invalid cursor provided: {error}")))
    }
}

/// An item of the cursor list: a sandbox without the fields that only single reads have.
pub(super) fn item(record: &Record) -> serde_json::Value {
    let mut view = record.view();
    if (record.state, record.desired) == (SandboxState::Archived, crate::api::sandbox::DesiredState::Started)
    {
        view.state = SandboxState::Restoring;
    }
    let mut item = serde_json::to_value(view).unwrap_or_default();
    if let Some(fields) = item.as_object_mut() {
        for field in ["env", "kvm", "volumes", "buildInfo"] {
            fields.remove(field);
        }
    }
    item
}

/// How many pages a list of `total` items has.
pub(super) fn pages(total: usize, limit: usize) -> usize {
    total.div_ceil(limit.max(1))
}

/// The items of a page; pages count from 1.
pub(super) fn page<T>(items: Vec<T>, page: usize, limit: usize) -> Vec<T> {
    items.into_iter().skip(page.saturating_sub(1).saturating_mul(limit)).take(limit).collect()
}

/// Compares with the timestamps of snapshots, which are kept as text.
pub(super) fn never() -> String {
    timestamp::format(SystemTime::UNIX_EPOCH)
}
