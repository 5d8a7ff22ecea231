//! `POST /sandbox`: everything is checked before anything is stored.

use std::time::Duration;

use serde::Deserialize;

use super::error::{ApiError, ApiResult};
use super::images::{Build, Source};
use super::options::Resources;
use super::record::Record;
use super::state::{Control, Store, uuid};
use super::{timestamp, validate};
use crate::api::sandbox::{CreateSandbox, Sandbox, SandboxState};
use crate::api::snapshot::BuildInfo;

/// The only region, by id and name.
pub(super) const REGION: &str = "local";
/// Stopped sandboxes are archived after at most this many minutes.
pub(super) const MAX_AUTO_ARCHIVE: i64 = 43_200;
const DEFAULT_AUTO_STOP: i64 = 15;
const DEFAULT_AUTO_ARCHIVE: i64 = 10_080;

/// Fields of a create request whose effect we cannot give, and which must not be dropped silently.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Unsupported {
    kvm: Option<bool>,
    spot: Option<bool>,
    linked_sandbox: Option<String>,
    outbound_proxy_url: Option<String>,
    otel_endpoint_override: Option<String>,
}

impl Control {
    /// Creates a sandbox and waits for its start; one that has to be built is answered at once.
    pub(super) async fn create(&self, body: serde_json::Value) -> ApiResult<Sandbox> {
        if *self.closing.borrow() {
            return Err(ApiError::unavailable("Local Daytona is shutting down"));
        }
        let invalid = |error: serde_json::Error| ApiError::bad_request(error.to_string());
        let unsupported = Unsupported::deserialize(&body).map_err(invalid)?;
        let request = CreateSandbox::deserialize(&body).map_err(invalid)?;
        refuse_unsupported(&unsupported, &request)?;
        check(&request)?;
        let blocks = request.network_block_all == Some(true);
        self.check_network(
            blocks,
            request.network_allow_list.as_deref(),
            request.domain_allow_list.as_deref(),
        )?;
        let building = request.build_info.is_some();
        let id = self.insert(request)?;
        let view = self.with(&id, |record, _| Ok(record.view()))?;
        self.spawn(self.clone().bring_up(id.clone(), SandboxState::Creating));
        self.reschedule.notify_one();
        if building { Ok(view) } else { self.wait_for_start(&id).await }
    }

    /// Stores an accepted sandbox under a name that is free.
    fn insert(&self, request: CreateSandbox) -> ApiResult<String> {
        let now = self.now();
        let mut store = self.store();
        let (snapshot, source, resources) = match &request.build_info {
            Some(build) => self.of_build(build, &request)?,
            None => store.snapshots.take(request.snapshot.as_deref(), now)?,
        };
        let requested = [resources.cpu, resources.memory, resources.disk].map(i64::from);
        self.options.quota.check_one(requested)?;
        self.options.quota.check_total(store.sandboxes.values(), requested)?;
        let plain = self.engine.isolation().name == "process";
        if plain && !request.volumes.is_empty() {
            return Err(ApiError::bad_request(
                "Local Daytona cannot mount volumes with the engine `process`",
            ));
        }
        let volumes = store.take_volumes(&request.volumes, now)?;
        let id = uuid();
        let name = request.name.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| id.clone());
        if store.names.contains_key(&name) {
            return Err(ApiError::conflict(format!("Sandbox with name {name} already exists")));
        }
        let ttl = request.ttl_minutes.filter(|minutes| *minutes > 0);
        let mut sandbox = self.describe(&id, name.clone(), snapshot, resources, request);
        sandbox.volumes = volumes;
        let mut record = Record::new(sandbox, source, now);
        self.board(&mut record, now);
        record.destroy_at = ttl.map(|minutes| now + minutes_to_duration(minutes));
        let Store { sandboxes, names, created, .. } = &mut *store;
        *created += 1;
        names.insert(name, id.clone());
        sandboxes.insert(id.clone(), record);
        Ok(id)
    }

    /// What a declarative build gives to a sandbox.
    fn of_build(&self, build: &BuildInfo, request: &CreateSandbox) -> ApiResult<Taken> {
        let default = self.options.resources;
        let or = |asked: Option<u32>, default: u32| asked.filter(|asked| *asked > 0).unwrap_or(default);
        let resources = Resources {
            cpu: or(request.cpu, default.cpu),
            memory: or(request.memory, default.memory),
            disk: or(request.disk, default.disk),
        };
        validate::build(build)?;
        Ok((None, Source::Build(Build::new(build)), resources))
    }

    fn describe(
        &self,
        id: &str,
        name: String,
        snapshot: Option<String>,
        resources: Resources,
        request: CreateSandbox,
    ) -> Sandbox {
        let archive = match request.auto_archive_interval {
            None => DEFAULT_AUTO_ARCHIVE,
            Some(0) => MAX_AUTO_ARCHIVE,
            Some(minutes) => minutes.min(MAX_AUTO_ARCHIVE),
        };
        Sandbox {
            id: id.to_owned(),
            organization_id: self.organization.clone(),
            name,
            snapshot,
            build_info: request.build_info.map(|build| described(build, self.now())),
            user: request.user.filter(|user| !user.is_empty()).unwrap_or_else(|| "daytona".to_owned()),
            env: request.env,
            labels: request.labels,
            public: request.public.unwrap_or(false),
            network_block_all: request.network_block_all.unwrap_or(false),
            network_allow_list: request.network_allow_list.filter(|list| !list.trim().is_empty()),
            domain_allow_list: request.domain_allow_list.filter(|list| !list.trim().is_empty()),
            target: REGION.to_owned(),
            cpu: resources.cpu.into(),
            memory: resources.memory.into(),
            disk: resources.disk.into(),
            backup_state: Some("None".to_owned()),
            auto_stop_interval: Some(request.auto_stop_interval.unwrap_or(DEFAULT_AUTO_STOP)),
            auto_pause_interval: Some(0),
            auto_archive_interval: Some(archive),
            auto_delete_interval: Some(request.auto_delete_interval.unwrap_or(-1)),
            queue_timeout: request.queue_timeout,
            sandbox_class: Some(super::snapshots::CLASS.to_owned()),
            daemon_version: Some(super::error::API_VERSION.to_owned()),
            runner_id: Some(self.runner.clone()),
            toolbox_proxy_url: Some(self.toolbox_url()),
            isolation: Some(self.engine.isolation().name.to_owned()),
            ..Sandbox::default()
        }
    }
}

fn refuse_unsupported(unsupported: &Unsupported, request: &CreateSandbox) -> ApiResult<()> {
    let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let refused = [
        (unsupported.kvm == Some(true), "kvm"),
        (unsupported.spot == Some(true), "spot"),
        (given(&unsupported.linked_sandbox), "linkedSandbox"),
        (given(&unsupported.outbound_proxy_url), "outboundProxyUrl"),
        (given(&unsupported.otel_endpoint_override), "otelEndpointOverride"),
        (request.secrets.as_ref().is_some_and(|secrets| !secrets.is_empty()), "secrets"),
        (request.auto_pause_interval.is_some_and(|minutes| minutes != 0), "autoPauseInterval"),
    ];
    match refused.iter().find(|(refused, _)| *refused) {
        Some((_, field)) => Err(ApiError::bad_request(format!("Local Daytona does not support {field}"))),
        None => Ok(()),
    }
}

fn check(request: &CreateSandbox) -> ApiResult<()> {
    if request.build_info.is_some() {
        if request.snapshot.as_ref().is_some_and(|snapshot| !snapshot.is_empty()) {
            return Err(ApiError::bad_request("Cannot specify a snapshot when using a build info entry"));
        }
        if request.gpu.is_some_and(|gpu| gpu > 0) {
            return Err(ApiError::bad_request("No runners available with a GPU"));
        }
    } else if [request.cpu, request.memory, request.disk, request.gpu].iter().any(Option::is_some) {
        return Err(ApiError::bad_request("Cannot specify Sandbox resources when using a snapshot"));
    }
    if request.gpu_type.is_some() {
        return Err(ApiError::bad_request("Cannot specify GPU type when creating sandbox from snapshot."));
    }
    check_region(request.target.as_deref())?;
    for (minutes, what) in [
        (request.auto_stop_interval, "Auto-stop interval"),
        (request.auto_archive_interval, "Auto-archive interval"),
        (request.ttl_minutes, "ttlMinutes"),
    ] {
        if minutes.is_some_and(|minutes| minutes < 0) {
            return Err(ApiError::bad_request(format!("{what} must be non-negative")));
        }
        if minutes.is_some_and(|minutes| minutes > i64::from(u32::MAX)) {
            return Err(ApiError::bad_request(format!("{what} is too large")));
        }
    }
    if request.queue_timeout.is_some_and(|minutes| minutes < 1) {
        return Err(ApiError::bad_request("queueTimeout must not be less than 1"));
    }
    validate::name(request.name.as_deref().unwrap_or_default())?;
    validate::user(request.user.as_deref().unwrap_or_default())?;
    validate::environment(&request.env)?;
    Ok(())
}

/// There is one region, and absence means it.
pub(super) fn check_region(asked: Option<&str>) -> ApiResult<()> {
    if asked.is_some_and(|region| !region.is_empty() && region != REGION) {
        return Err(ApiError::not_found(format!(
            "Region not found: local Daytona has one region, `{REGION}`"
        )));
    }
    Ok(())
}

/// Minutes as a duration; negative is zero.
pub(super) fn minutes_to_duration(minutes: i64) -> Duration {
    Duration::from_secs(u64::try_from(minutes).unwrap_or(0) * 60)
}

/// What a snapshot or a build gives to a sandbox: the snapshot's name, its root, its size.
pub(super) type Taken = (Option<String>, Source, Resources);

/// A build as answers show it.
pub(super) fn described(build: BuildInfo, now: std::time::SystemTime) -> BuildInfo {
    BuildInfo {
        created_at: Some(timestamp::format(now)),
        updated_at: Some(timestamp::format(now)),
        snapshot_ref: Some(Build::new(&build).reference),
        ..build
    }
}
