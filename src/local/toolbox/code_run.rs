//! `POST /process/code-run`: a program's text for an interpreter.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::error::Failure;
use super::execute::{add_variables, answer, limit};
use super::spawn::{Outcome, Program, capture};
use super::state::Toolbox;
use super::{json, random, shell};
use crate::api::toolbox::{CodeRunRequest, ExecuteResponse};

/// Runs code. Charts are not looked for.
pub(super) async fn code_run(State(toolbox): State<Arc<Toolbox>>, body: Bytes) -> Result<Response, Failure> {
    let CodeRunRequest { code, language, argv, envs, timeout } = json::from_body(&body)?;
    let mut env = toolbox.env();
    add_variables(&mut env, envs.unwrap_or_default())?;
    let (name, mut arguments, input, file) = match language.as_str() {
        "python" => ("python3", vec!["-u".to_owned(), "-".to_owned()], code.into_bytes(), None),
        "javascript" => ("node", vec!["-".to_owned()], code.into_bytes(), None),
        "typescript" => {
            let file = SourceFile::write(&code).map_err(Failure::untyped)?;
            let options = ["ts-node", "-T", "-O", r#"{"module":"CommonJS"}"#].map(str::to_owned);
            ("npx", options.into_iter().chain([file.0.clone()]).collect(), Vec::new(), Some(file))
        }
        other => return Err(Failure::bad_request(format!("unsupported language: {other}"))),
    };
    arguments.extend(argv);
    if shell::find(name, &toolbox.env()).is_none() {
        // what a shell says, since the daemon runs interpreters from one
        let result = format!("{name}: command not found\n");
        return Ok(json::response(StatusCode::OK, &ExecuteResponse { exit_code: 127, result }));
    }
    let run = tokio::spawn(async move {
        let program = Program { name, arguments: &arguments, cwd: None, env };
        let outcome: std::io::Result<Outcome> = capture(&toolbox, program, input, limit(timeout)).await;
        drop(file);
        outcome
    });
    answer(run.await.map_err(Failure::untyped)?.map_err(Failure::untyped)?)
}

/// Code in a file, since ts-node reads no standard input; removed when dropped.
struct SourceFile(String);

impl SourceFile {
    fn write(code: &str) -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("daytona-{}.ts", random::id()));
        std::fs::write(&path, code)?;
        Ok(Self(path.to_string_lossy().into_owned()))
    }
}

impl Drop for SourceFile {
    fn drop(&mut self) {
        // nothing is lost with it
        let _ = std::fs::remove_file(&self.0);
    }
}
