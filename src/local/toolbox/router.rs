//! Which path leads where.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use axum::{Router, extract::Request};

use super::error::{Failure, describe};
use super::state::Toolbox;
use super::{code_run, execute, files, info, proxy, pty, session};

/// All routes of a toolbox.
pub(super) fn routes(toolbox: Arc<Toolbox>) -> Router {
    Router::new()
        .route("/version", get(info::version))
        .route("/work-dir", get(info::work_dir))
        .route("/user-home-dir", get(info::home_dir))
        .route("/project-dir", get(info::home_dir))
        .route("/env", post(info::update_env))
        .route("/port", get(proxy::ports))
        .route("/port/{port}/in-use", get(proxy::in_use))
        .route("/proxy/{port}", any(proxy::proxy))
        .route("/proxy/{port}/", any(proxy::proxy))
        .route("/proxy/{port}/{*path}", any(proxy::proxy))
        .route("/process/execute", post(execute::execute))
        .route("/process/code-run", post(code_run::code_run))
        .merge(session::routes())
        .merge(pty::routes())
        .merge(files::routes())
        .fallback(unknown)
        .method_not_allowed_fallback(unknown)
        // files and scripts have any size
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(describe))
        .with_state(toolbox)
}

/// Parts of the daemon that are absent here, by the beginning of their paths.
const ABSENT: [(&str, &str); 6] = [
    ("/computeruse/", "computer use"),
    ("/git/", "git"),
    ("/init", "telemetry"),
    ("/lsp/", "the language server"),
    ("/process/interpreter/", "the code interpreter"),
    ("/system/", "system metrics"),
];

/// An unknown path is a 404 in plain text; one that the daemon knows says that it is missing here.
async fn unknown(request: Request) -> Response {
    let path = request.uri().path();
    match ABSENT.iter().find(|(beginning, _)| path.starts_with(beginning)) {
        Some((_, what)) => Failure::not_implemented(what).into_response(),
        None => not_found(),
    }
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "text/plain")], "404 page not found").into_response()
}
