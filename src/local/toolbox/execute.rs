//! `POST /process/execute`: a script for a shell, one answer with both streams in one.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use super::error::Failure;
use super::spawn::{Outcome, Program, capture};
use super::state::Toolbox;
use super::{json, shell};
use crate::api::toolbox::{ExecuteRequest, ExecuteResponse};

/// Runs a script. The command is a task of its own, so that it runs to its end if the caller goes away.
pub(super) async fn execute(State(toolbox): State<Arc<Toolbox>>, body: Bytes) -> Result<Response, Failure> {
    let request: ExecuteRequest = json::from_body(&body)?;
    drop(body);
    if request.command.trim().is_empty() {
        return Err(Failure::bad_request("command cannot be empty or whitespace-only"));
    }
    let mut env = toolbox.env();
    add_variables(&mut env, request.envs.unwrap_or_default())?;
    let run = tokio::spawn(async move {
        let shell = shell::name(&toolbox.env());
        let program = Program { name: &shell, arguments: &[], cwd: request.cwd.as_deref(), env };
        capture(&toolbox, program, request.command.into_bytes(), limit(request.timeout)).await
    });
    let outcome = run.await.map_err(Failure::untyped)?.map_err(Failure::untyped)?;
    answer(outcome)
}

/// Adds a request's variables to an environment, checking their names.
pub(super) fn add_variables(
    env: &mut Vec<(String, String)>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<(), Failure> {
    for (name, value) in variables {
        let mut bytes = name.bytes();
        let starts_well = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        if !starts_well || !bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(Failure::bad_request(format!("invalid environment variable name: {name:?}")));
        }
        env.push((name, value));
    }
    Ok(())
}

/// A request's time limit: absent and 0 are none.
pub(super) fn limit(seconds: Option<u32>) -> Option<Duration> {
    seconds.filter(|seconds| *seconds > 0).map(|seconds| Duration::from_secs(seconds.into()))
}

/// The answer to a captured run.
pub(super) fn answer(outcome: Outcome) -> Result<Response, Failure> {
    let (exit_code, result) = match outcome {
        Outcome::Ended { exit, output } => {
            (exit.map_or(-1, |exit| i64::from(exit.go_code())), json::text(output))
        }
        Outcome::NotStarted(text) => (-1, text),
        Outcome::TimedOut => return Err(Failure::request_timeout("command execution timeout")),
    };
    Ok(json::response(StatusCode::OK, &ExecuteResponse { exit_code, result }).into_response())
}
