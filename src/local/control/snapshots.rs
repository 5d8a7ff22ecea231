//! Snapshots: names for root file systems. Images are not fetched; their names are mapped by configuration.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::create::Taken;
use super::error::{ApiError, ApiResult};
use super::options::{LocalOptions, Resources};
use super::state::uuid;
use super::{timestamp, validate};
use crate::api::snapshot::{CreateSnapshot, Snapshot, SnapshotState};
use crate::local::spec::RootFs;

/// The snapshot used where a create request names none, as in Daytona's own compose file.
pub(super) const DEFAULT: &str = "daytonaio/sandbox:0.5.0-slim";
/// A snapshot cannot be activated sooner than this after it was deactivated.
const REACTIVATION_PAUSE: Duration = Duration::from_secs(600);

/// All snapshots, by id.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    entries: BTreeMap<String, Entry>,
    images: BTreeMap<String, RootFs>,
    resources: Option<Resources>,
}

#[derive(Debug)]
struct Entry {
    snapshot: Snapshot,
    root: RootFs,
    deactivated_at: Option<SystemTime>,
}

impl Snapshots {
    /// The general snapshots: the default one and each mapped image.
    pub(super) fn new(options: &LocalOptions, now: SystemTime) -> Self {
        let mut images = options.images.clone();
        images.entry(DEFAULT.to_owned()).or_insert(RootFs::Host);
        let mut snapshots =
            Self { entries: BTreeMap::new(), images: images.clone(), resources: Some(options.resources) };
        for (image, root) in images {
            let request = CreateSnapshot { name: image.clone(), ..CreateSnapshot::default() };
            let mut snapshot = snapshots.describe(request, now);
            snapshot.general = true;
            snapshot.image_name = Some(image);
            snapshots.insert(snapshot, root);
        }
        snapshots
    }

    fn insert(&mut self, snapshot: Snapshot, root: RootFs) {
        self.entries.insert(snapshot.id.clone(), Entry { snapshot, root, deactivated_at: None });
    }

    fn describe(&self, request: CreateSnapshot, now: SystemTime) -> Snapshot {
        let default = self.resources.unwrap_or(Resources { cpu: 1, memory: 1, disk: 3 });
        let or =
            |asked: Option<u32>, default: u32| i64::from(asked.filter(|asked| *asked > 0).unwrap_or(default));
        Snapshot {
            id: uuid(),
            name: request.name,
            general: false,
            state: SnapshotState::Active,
            image_name: request.image_name,
            size: None,
            entrypoint: request.entrypoint,
            cpu: or(request.cpu, default.cpu),
            gpu: 0,
            mem: or(request.memory, default.memory),
            disk: or(request.disk, default.disk),
            error_reason: None,
            created_at: timestamp::format(now),
            updated_at: timestamp::format(now),
            last_used_at: None,
            build_info: None,
        }
    }

    /// Creates a snapshot of a mapped image; of another image, one in state `error` that says how to map it.
    pub(super) fn create(&mut self, request: CreateSnapshot, now: SystemTime) -> ApiResult<Snapshot> {
        validate::snapshot_name(&request.name)?;
        if request.build_info.is_some() {
            if request.image_name.is_some() {
                return Err(ApiError::bad_request(
                    "Cannot specify an image name when using a build info entry",
                ));
            }
            return Err(ApiError::bad_request(
                "Local Daytona does not build images: create the snapshot from an image whose name is mapped with \
                 INSPECT_DAYTONA_LOCAL_IMAGES",
            ));
        }
        let image = request.image_name.clone().unwrap_or_default();
        if image.is_empty() {
            return Err(ApiError::bad_request("Must specify either an image name or build info"));
        }
        validate::image_name(&image)?;
        if request.gpu.is_some_and(|gpu| gpu > 0) {
            return Err(ApiError::bad_request("No runners available with a GPU"));
        }
        if self.entries.values().any(|entry| !entry.snapshot.general && entry.snapshot.name == request.name) {
            let message =
                format!("Snapshot with name \"{}\" already exists for this organization", request.name);
            return Err(ApiError::conflict(message));
        }
        let mut snapshot = self.describe(request, now);
        let root = self.images.get(&image).cloned();
        if root.is_none() {
            snapshot.state = SnapshotState::Error;
            snapshot.error_reason = Some(format!(
                "Local Daytona does not fetch images and has no root file system for {image}: start it with \
                 INSPECT_DAYTONA_LOCAL_IMAGES={image}=/path/of/a/root/file/system (or {image}=host to use this \
                 machine's own system directories)"
            ));
        }
        self.insert(snapshot.clone(), root.unwrap_or_default());
        Ok(snapshot)
    }

    /// What a new sandbox gets from the snapshot of this id or name; the default one where none is named.
    pub(super) fn take(&mut self, key: Option<&str>, now: SystemTime) -> ApiResult<Taken> {
        let key = key.map(str::trim).filter(|key| !key.is_empty()).unwrap_or(DEFAULT);
        let unknown = || {
            ApiError::bad_request(format!(
                "Snapshot {key} not found. Did you add it through the Daytona Dashboard?"
            ))
        };
        let id = self.find(key).ok_or_else(unknown)?.id.clone();
        let entry = self.entries.get_mut(&id).ok_or_else(unknown)?;
        let snapshot = &mut entry.snapshot;
        if snapshot.state != SnapshotState::Active {
            return Err(ApiError::bad_request(format!("Snapshot {key} is {}", word(snapshot.state))));
        }
        snapshot.last_used_at = Some(timestamp::format(now));
        let amount = |amount: i64| u32::try_from(amount).unwrap_or(1);
        let resources = Resources {
            cpu: amount(snapshot.cpu),
            memory: amount(snapshot.mem),
            disk: amount(snapshot.disk),
        };
        Ok((snapshot.name.clone(), entry.root.clone(), resources))
    }

    /// The snapshot of this id or name; one that is active and the organization's own comes first.
    pub(super) fn find(&self, key: &str) -> Option<&Snapshot> {
        let named =
            self.entries.values().map(|entry| &entry.snapshot).filter(|snapshot| snapshot.name == key);
        let best = named.min_by_key(|snapshot| (snapshot.state != SnapshotState::Active, snapshot.general));
        best.or_else(|| self.entries.get(key).map(|entry| &entry.snapshot))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Snapshot> {
        self.entries.values().map(|entry| &entry.snapshot)
    }

    fn own(&mut self, id: &str) -> ApiResult<&mut Entry> {
        if uuid::Uuid::parse_str(id).is_err() {
            return Err(if self.find(id).is_some() {
                ApiError::bad_request("Validation failed (uuid is expected)")
            } else {
                missing(id)
            });
        }
        let entry = self.entries.get_mut(id).ok_or_else(|| missing(id))?;
        if entry.snapshot.general {
            return Err(ApiError::forbidden("You cannot change a general snapshot"));
        }
        Ok(entry)
    }

    pub(super) fn delete(&mut self, id: &str) -> ApiResult<()> {
        self.own(id)?;
        self.entries.remove(id);
        Ok(())
    }

    pub(super) fn activate(&mut self, id: &str, now: SystemTime) -> ApiResult<Snapshot> {
        let entry = self.own(id)?;
        if entry.snapshot.state != SnapshotState::Inactive {
            return Err(ApiError::bad_request(format!("Snapshot {} is not inactive", entry.snapshot.name)));
        }
        let since =
            entry.deactivated_at.and_then(|at| now.duration_since(at).ok()).unwrap_or(REACTIVATION_PAUSE);
        if since < REACTIVATION_PAUSE {
            let left = REACTIVATION_PAUSE.saturating_sub(since).as_secs();
            let message = format!("Snapshot was deactivated recently. Try again in {left} seconds.");
            return Err(ApiError::bad_request(message));
        }
        entry.snapshot.state = SnapshotState::Active;
        entry.snapshot.updated_at = timestamp::format(now);
        Ok(entry.snapshot.clone())
    }

    pub(super) fn deactivate(&mut self, id: &str, now: SystemTime) -> ApiResult<()> {
        let entry = self.own(id)?;
        if entry.snapshot.state != SnapshotState::Active {
            return Err(ApiError::bad_request(format!("Snapshot {} is not active", entry.snapshot.name)));
        }
        entry.snapshot.state = SnapshotState::Inactive;
        entry.snapshot.updated_at = timestamp::format(now);
        entry.deactivated_at = Some(now);
        Ok(())
    }
}

pub(super) fn missing(key: &str) -> ApiError {
    ApiError::not_found(format!("Snapshot with ID or name {key} not found"))
}

/// The word on the wire.
pub(super) fn word(state: SnapshotState) -> &'static str {
    match state {
        SnapshotState::Building => "building",
        SnapshotState::Pending => "pending",
        SnapshotState::Pulling => "pulling",
        SnapshotState::Active => "active",
        SnapshotState::Inactive => "inactive",
        SnapshotState::Error => "error",
        SnapshotState::BuildFailed => "build_failed",
        SnapshotState::Removing => "removing",
        SnapshotState::Snapshotting => "snapshotting",
        SnapshotState::Other => "unknown",
    }
}
