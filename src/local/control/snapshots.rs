//! Snapshots: names for root file systems.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::create::{Taken, check_region, described};
use super::error::{ApiError, ApiResult};
use super::images::{Build, Flight, Image, Images, Source};
use super::options::{ImageSource, LocalOptions, Resources};
use super::state::uuid;
use super::{timestamp, validate};
use crate::api::snapshot::{CreateSnapshot, Snapshot, SnapshotState};

/// The snapshot used where a create request names none, as in Daytona's own compose file.
pub(super) const DEFAULT: &str = "daytonaio/sandbox:0.5.0-slim";
/// The class of every sandbox here.
pub(super) const CLASS: &str = "container";
/// A snapshot cannot be activated sooner than this after it was deactivated.
const REACTIVATION_PAUSE: Duration = Duration::from_secs(600);

/// All snapshots, by id.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    entries: BTreeMap<String, Entry>,
    resources: Option<Resources>,
}

#[derive(Debug)]
struct Entry {
    snapshot: Snapshot,
    source: Source,
    /// The preparation of its root file system, if there was one.
    preparation: Option<Arc<Flight>>,
    deactivated_at: Option<SystemTime>,
}

impl Snapshots {
    /// The general snapshots: the default one and each mapped image.
    pub(super) fn new(options: &LocalOptions, now: SystemTime) -> Self {
        let mut images = options.images.clone();
        images.entry(DEFAULT.to_owned()).or_insert(ImageSource::Host);
        let mut snapshots = Self { entries: BTreeMap::new(), resources: Some(options.resources) };
        for (image, source) in images {
            let request = CreateSnapshot { name: image.clone(), ..CreateSnapshot::default() };
            let mut snapshot = snapshots.describe(request, now);
            snapshot.general = true;
            snapshot.image_name = Some(image);
            snapshots.insert(snapshot, Source::from(&source));
        }
        snapshots
    }

    fn insert(&mut self, snapshot: Snapshot, source: Source) {
        let entry = Entry { snapshot, source, preparation: None, deactivated_at: None };
        self.entries.insert(entry.snapshot.id.clone(), entry);
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
            build_info: request.build_info.map(|build| described(build, now)),
            sandbox_class: Some(CLASS.to_owned()),
        }
    }

    /// Creates a snapshot: `active` if its root file system is there, else `pending`, and to be prepared from the
    /// source that is returned.
    pub(super) fn create(
        &mut self,
        request: CreateSnapshot,
        images: &Images,
        now: SystemTime,
    ) -> ApiResult<(Snapshot, Option<Source>)> {
        validate::snapshot_name(&request.name)?;
        check_region(request.region_id.as_deref())?;
        let source = source(&request, images)?;
        if request.gpu.is_some_and(|gpu| gpu > 0) {
            return Err(ApiError::bad_request("No runners available with a GPU"));
        }
        if let Some(class) = request.sandbox_class.as_deref().filter(|class| *class != CLASS) {
            let known = ["linux-vm", "android", "windows"];
            return Err(ApiError::bad_request(if known.contains(&class) {
                format!("No runners available for sandbox class {class}: a local Daytona has containers only")
            } else {
                format!(
                    "sandboxClass must be one of the following values: linux-vm, {CLASS}, android, windows"
                )
            }));
        }
        if self.entries.values().any(|entry| !entry.snapshot.general && entry.snapshot.name == request.name) {
            let message =
                format!("Snapshot with name \"{}\" already exists for this organization", request.name);
            return Err(ApiError::conflict(message));
        }
        let mut snapshot = self.describe(request, now);
        if let Some(image) = images.ready(&source) {
            let image = with_entrypoint(image, &mut snapshot);
            self.insert(snapshot.clone(), Source::Ready(image));
            return Ok((snapshot, None));
        }
        snapshot.state = SnapshotState::Pending;
        self.insert(snapshot.clone(), source.clone());
        Ok((snapshot, Some(source)))
    }

    /// Notes who prepares a snapshot, if it is still there.
    pub(super) fn follow(&mut self, id: &str, preparation: Arc<Flight>) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.preparation = Some(preparation);
        }
    }

    /// Notes that its preparation has begun.
    pub(super) fn begin(&mut self, id: &str, now: SystemTime) {
        if let Some(entry) = self.entries.get_mut(id) {
            let built = entry.snapshot.build_info.is_some();
            entry.snapshot.state = if built { SnapshotState::Building } else { SnapshotState::Pulling };
            entry.snapshot.updated_at = timestamp::format(now);
        }
    }

    /// Notes how its preparation has ended.
    pub(super) fn finish(&mut self, id: &str, outcome: Result<Image, String>, now: SystemTime) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let snapshot = &mut entry.snapshot;
        snapshot.updated_at = timestamp::format(now);
        match outcome {
            Ok(image) => {
                snapshot.state = SnapshotState::Active;
                entry.source = Source::Ready(with_entrypoint(image, snapshot));
            }
            Err(reason) => {
                let built = snapshot.build_info.is_some();
                snapshot.state = if built { SnapshotState::BuildFailed } else { SnapshotState::Error };
                snapshot.error_reason = Some(reason);
            }
        }
    }

    /// The preparation of a snapshot.
    pub(super) fn preparation(&self, id: &str) -> Option<Arc<Flight>> {
        self.entries.get(id)?.preparation.clone()
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
        Ok((Some(snapshot.name.clone()), entry.source.clone(), resources))
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

/// The image with the snapshot's entrypoint, which is the image's own unless the snapshot was created with another.
fn with_entrypoint(image: Image, snapshot: &mut Snapshot) -> Image {
    let entrypoint = snapshot.entrypoint.take().unwrap_or(image.entrypoint);
    snapshot.entrypoint = Some(entrypoint.clone());
    Image { entrypoint, ..image }
}

/// What a request wants a snapshot to be made from.
fn source(request: &CreateSnapshot, images: &Images) -> ApiResult<Source> {
    let image = request.image_name.as_deref().unwrap_or_default();
    if let Some(build) = &request.build_info {
        if !image.is_empty() {
            return Err(ApiError::bad_request("Cannot specify an image name when using a build info entry"));
        }
        if request.entrypoint.as_ref().is_some_and(|entrypoint| !entrypoint.is_empty()) {
            return Err(ApiError::bad_request("Cannot specify an entrypoint when using a build info entry"));
        }
        validate::build(build)?;
        return Ok(Source::Build(Build::new(build)));
    }
    if image.is_empty() {
        return Err(ApiError::bad_request("Must specify either an image name or build info"));
    }
    validate::image_name(image)?;
    Ok(images.mapped(image).unwrap_or_else(|| Source::Pull(image.to_owned())))
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
