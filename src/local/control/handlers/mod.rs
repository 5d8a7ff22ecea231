//! The routes of the control plane: each handler extracts, calls and converts.

mod account;
mod admin;
mod build_logs;
mod links;
mod sandboxes;
mod settings;
mod snapshots;
mod volumes;

use axum::Router;
use axum::routing::{any, get, post, put};

use super::error::ApiError;
use super::state::Control;
use super::{proxy, storage};

/// Every route.
pub(super) fn routes() -> Router<Control> {
    Router::new()
        .merge(sandbox_routes())
        .merge(storage::routes())
        .route("/sandboxes/{sandbox}/build-logs", get(build_logs::of_sandbox))
        .route("/snapshots/{snapshot}/build-logs", get(build_logs::of_snapshot))
        .route("/api/snapshots", get(snapshots::list).post(snapshots::create))
        // names of images contain slashes, which clients may leave as they are
        .route(
            "/api/snapshots/{*snapshot}",
            get(snapshots::get).delete(snapshots::delete).post(snapshots::act),
        )
        .route("/api/volumes", get(volumes::list).post(volumes::create))
        .route("/api/volumes/by-name/{name}", get(volumes::get_by_name))
        .route("/api/volumes/{volume}", get(volumes::get).delete(volumes::delete))
        .route("/api/config", get(account::config))
        .route("/api/health", get(account::health))
        .route("/api/health/ready", get(account::health))
        .route("/api/regions", get(account::regions))
        .route("/api/shared-regions", get(account::regions))
        .route("/api/api-keys/current", get(account::current_key))
        .route("/api/organizations/{organization}/usage", get(account::usage))
        .route("/api/object-storage/push-access", get(account::push_access))
        .route("/api/admin/faults", get(admin::faults).post(admin::add_fault).delete(admin::remove_faults))
        .route("/api/admin/faults/{fault}", axum::routing::delete(admin::remove_fault))
        .route("/api/admin/requests", get(admin::requests).delete(admin::reset_requests))
        .route("/api/admin/sandboxes/{sandbox}/kill", post(admin::kill))
        .route("/toolbox/{sandbox}/{*path}", any(proxy::toolbox))
        .route("/toolbox", any(proxy::no_route))
        .route("/toolbox/{sandbox}", any(proxy::no_route))
        .fallback(not_found)
        .method_not_allowed_fallback(not_found)
}

fn sandbox_routes() -> Router<Control> {
    Router::new()
        .route("/api/sandbox", get(sandboxes::list).post(sandboxes::create))
        .route("/api/sandbox/paginated", get(sandboxes::list_pages))
        .route("/api/sandbox/ssh-access/validate", get(links::validate_ssh))
        .route("/api/sandbox/{sandbox}", get(sandboxes::get).delete(sandboxes::delete))
        .route("/api/sandbox/{sandbox}/start", post(sandboxes::start))
        .route("/api/sandbox/{sandbox}/stop", post(sandboxes::stop))
        .route("/api/sandbox/{sandbox}/pause", post(sandboxes::pause))
        .route("/api/sandbox/{sandbox}/archive", post(sandboxes::archive))
        .route("/api/sandbox/{sandbox}/recover", post(sandboxes::recover))
        .route("/api/sandbox/{sandbox}/fork", post(sandboxes::fork))
        .route("/api/sandbox/{sandbox}/forks", get(sandboxes::no_relatives))
        .route("/api/sandbox/{sandbox}/ancestors", get(sandboxes::no_relatives))
        .route("/api/sandbox/{sandbox}/parent", get(sandboxes::no_parent))
        .route("/api/sandbox/{sandbox}/snapshot", post(sandboxes::snapshot))
        .route("/api/sandbox/{sandbox}/backup", post(sandboxes::get))
        .route("/api/sandbox/{sandbox}/resize", post(settings::resize))
        .route("/api/sandbox/{sandbox}/labels", put(settings::labels))
        .route("/api/sandbox/{sandbox}/autostop/{minutes}", post(settings::auto_stop))
        .route("/api/sandbox/{sandbox}/autopause/{minutes}", post(settings::auto_pause))
        .route("/api/sandbox/{sandbox}/autoarchive/{minutes}", post(settings::auto_archive))
        .route("/api/sandbox/{sandbox}/autodelete/{minutes}", post(settings::auto_delete))
        .route("/api/sandbox/{sandbox}/ttl/{minutes}", post(settings::time_to_live))
        .route("/api/sandbox/{sandbox}/public/{public}", post(settings::public))
        .route("/api/sandbox/{sandbox}/network-settings", post(settings::network))
        .route("/api/sandbox/{sandbox}/secrets", put(settings::secrets))
        .route("/api/sandbox/{sandbox}/last-activity", post(settings::last_activity))
        .route("/api/sandbox/{sandbox}/ports/{port}/preview-url", get(links::preview))
        .route("/api/sandbox/{sandbox}/ports/{port}/signed-preview-url", get(links::signed_preview))
        .route(
            "/api/sandbox/{sandbox}/ports/{port}/signed-preview-url/{token}/expire",
            post(links::expire_signed_preview),
        )
        .route("/api/sandbox/{sandbox}/toolbox-proxy-url", get(links::toolbox))
        .route("/api/sandbox/{sandbox}/build-logs-url", get(links::build_logs))
        .route("/api/sandbox/{sandbox}/build-logs", get(build_logs::of_sandbox))
        .route("/api/sandbox/{sandbox}/ssh-access", post(links::create_ssh).delete(links::revoke_ssh))
}

/// Parts of Daytona that are absent here, by the first words of their paths below `/api`.
const ABSENT: [(&str, &str); 8] = [
    ("api-keys", "the administration of API keys"),
    ("audit", "the audit log"),
    ("docker-registry", "the administration of registries"),
    ("organizations", "the administration of organizations"),
    ("secret", "the store of secrets"),
    ("users", "the administration of users"),
    ("warm-pools", "the administration of warm pools"),
    ("webhooks", "the administration of webhooks"),
];

/// Parts of a sandbox that are absent here, by the word after its id.
const ABSENT_OF_SANDBOXES: [(&str, &str); 2] =
    [("signing-key", "the signing of URLs for files"), ("telemetry", "telemetry")];

/// What the server says to a path or a method that it does not know; a 404 would say of what is absent here that a
/// thing is not there.
async fn not_found(method: http::Method, uri: http::Uri) -> ApiError {
    let mut words = uri.path().trim_start_matches('/').split('/').skip(1);
    let below_api = uri.path().starts_with("/api/");
    let absent = match (words.next(), words.nth(1)) {
        (Some("sandbox"), word) => ABSENT_OF_SANDBOXES.iter().find(|(part, _)| Some(*part) == word),
        (word, _) => ABSENT.iter().find(|(part, _)| Some(*part) == word),
    };
    match absent.filter(|_| below_api) {
        Some((_, what)) => ApiError::not_implemented(what),
        None => ApiError::not_found(format!("Cannot {method} {}", uri.path())),
    }
}
