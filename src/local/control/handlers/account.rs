//! The server, its one organization, and its one key.

use axum::Json;
use axum::extract::State;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::super::create::{MAX_AUTO_ARCHIVE, REGION};
use super::super::error::API_VERSION;
use super::super::quota;
use super::super::snapshots;
use super::super::state::Control;
use super::super::throttle::WINDOW;
use super::super::timestamp;
use crate::api::account::Region;

/// What an unlimited quota reads as where a number is required.
const UNLIMITED: u32 = 1_000_000;

pub(super) async fn config(State(control): State<Control>) -> Json<Value> {
    let limits = control.options.rate_limits;
    let throttler = |limit: u64| json!({ "ttl": WINDOW.as_secs(), "limit": limit });
    Json(json!({
        "version": API_VERSION,
        "oidc": { "issuer": control.origin(), "clientId": "local", "audience": "local", "provider": "local" },
        "linkedAccountsEnabled": false,
        "announcements": {},
        "proxyTemplateUrl": super::super::preview::template(&control),
        "proxyToolboxUrl": control.toolbox_url(),
        "defaultSnapshot": snapshots::DEFAULT,
        "dashboardUrl": control.origin(),
        "maxAutoArchiveInterval": MAX_AUTO_ARCHIVE,
        "maintananceMode": false,
        "environment": "local",
        "rateLimit": {
            "authenticated": throttler(limits.general),
            "sandboxCreate": throttler(limits.create),
            "sandboxLifecycle": throttler(limits.lifecycle),
        },
    }))
}

pub(super) async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

pub(super) async fn regions(State(control): State<Control>) -> Json<Vec<Region>> {
    let started = timestamp::format(control.started_at);
    Json(vec![Region {
        id: REGION.to_owned(),
        name: REGION.to_owned(),
        organization_id: None,
        region_type: "shared".to_owned(),
        created_at: started.clone(),
        updated_at: started,
    }])
}

pub(super) async fn current_key(State(control): State<Control>) -> Json<Value> {
    let key = control.api_key.expose_secret();
    // as on the real server, enough to recognise a key and too little to use it
    let masked = format!("{}***", key.get(..8).unwrap_or_default());
    Json(json!({
        "name": "local",
        "value": masked,
        "createdAt": timestamp::format(control.started_at),
        "permissions": ["write:snapshots", "delete:snapshots", "write:sandboxes", "delete:sandboxes", "read:volumes",
            "write:volumes", "delete:volumes"],
        "lastUsedAt": timestamp::format(control.now()),
        "expiresAt": null,
        "userId": control.organization,
    }))
}

pub(super) async fn usage(State(control): State<Control>) -> Json<Value> {
    let limits = control.options.quota;
    let or_unlimited = |limit: Option<u32>| limit.unwrap_or(UNLIMITED);
    let store = control.store();
    let [cpu, memory, disk] = quota::usage(store.sandboxes.values());
    Json(json!({
        "regionUsage": [{
            "regionId": REGION,
            "sandboxClass": snapshots::CLASS,
            "totalCpuQuota": or_unlimited(limits.total_cpu),
            "currentCpuUsage": cpu,
            "totalMemoryQuota": or_unlimited(limits.total_memory),
            "currentMemoryUsage": memory,
            "totalDiskQuota": or_unlimited(limits.total_disk),
            "currentDiskUsage": disk,
            "totalGpuQuota": 0,
            "currentGpuUsage": 0,
            "maxCpuPerSandbox": or_unlimited(limits.max_cpu),
            "maxMemoryPerSandbox": or_unlimited(limits.max_memory),
            "maxDiskPerSandbox": or_unlimited(limits.max_disk),
            "maxDiskPerNonEphemeralSandbox": or_unlimited(limits.max_disk),
            "maxCpuPerGpu": 0,
            "maxMemoryPerGpu": 0,
            "maxDiskPerGpu": 0,
        }],
        "totalSnapshotQuota": UNLIMITED,
        "currentSnapshotUsage": store.snapshots.all().filter(|snapshot| !snapshot.general).count(),
        "totalVolumeQuota": UNLIMITED,
        "currentVolumeUsage": store.volumes.values().filter(|volume| volume.state != "deleted").count(),
    }))
}

pub(super) async fn push_access(State(control): State<Control>) -> Json<Value> {
    Json(control.storage.access(&control.origin(), &control.organization))
}
