//! The toolbox: processes, files and ports inside one sandbox, at `{toolboxProxyUrl}/{sandboxId}{path}`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::lenient;

/// `POST /process/execute`: a script for the sandbox's shell. Unknown fields are ignored by the server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecuteRequest {
    /// The script; the server pipes it to a shell (zsh, bash or sh) on standard input.
    pub command: String,
    /// Working directory; the toolbox's own where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Added to the toolbox's environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envs: Option<BTreeMap<String, String>>,
    /// Seconds; absent or 0 is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
}

/// The answer to [`ExecuteRequest`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecuteResponse {
    /// The shell's exit code; -1 where it could not start or was killed by a signal.
    #[serde(alias = "code", deserialize_with = "lenient::integer")]
    pub exit_code: i64,
    /// Both streams, interleaved; invalid UTF-8 is replaced.
    #[serde(default)]
    pub result: String,
}

/// What the toolbox says of a file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileInfo {
    /// Base name.
    pub name: String,
    /// Bytes.
    #[serde(deserialize_with = "lenient::integer")]
    pub size: i64,
    /// `-rw-r--r--`.
    pub mode: String,
    /// Time of modification, in Go's format.
    #[serde(default)]
    pub mod_time: String,
    /// The same as RFC 3339; absent before 0.184.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified_at: Option<String>,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Numeric user id.
    pub owner: String,
    /// Numeric group id.
    pub group: String,
    /// Octal, four digits.
    pub permissions: String,
    /// Full path, in recursive lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// A file written by a bulk upload.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UploadedFile {
    /// Where.
    pub path: String,
    /// How many bytes.
    #[serde(default, deserialize_with = "lenient::integer")]
    pub bytes: i64,
}

/// The answer to `POST /files/bulk-upload`: status 200, or 400 where `errors` is not empty.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BulkUploadResult {
    /// One message per failed file: `<destination>: create: open <destination>: is a directory`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// What was written all the same.
    #[serde(default, deserialize_with = "lenient::null_default")]
    pub files: Vec<UploadedFile>,
}

/// `GET /work-dir` and `GET /user-home-dir`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Directory {
    /// Absolute path.
    pub dir: String,
}

/// `GET /version`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Version {
    /// With a leading `v`.
    pub version: String,
}

/// `POST /env`: changes the environment of processes that the toolbox starts later.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UpdateEnvRequest {
    /// Variables to set.
    #[serde(deserialize_with = "lenient::null_default")]
    pub set: BTreeMap<String, String>,
    /// Names to remove first.
    #[serde(deserialize_with = "lenient::null_default")]
    pub unset: Vec<String>,
    /// Variables whose value begins like this are removed first, unless `set` names them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unset_value_prefix: Option<String>,
}

/// `POST /files/bulk-download`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FilesDownloadRequest {
    /// Files, in the order in which they are wanted.
    #[serde(default, deserialize_with = "lenient::null_default")]
    pub paths: Vec<String>,
}

/// The answer to `POST /files/upload-v2`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UploadedItem {
    /// Base name.
    pub name: String,
    /// Path as given.
    pub path: String,
    /// `file`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// The answer to `GET /files/search`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SearchFilesResponse {
    /// Paths whose base name matches.
    #[serde(default, deserialize_with = "lenient::null_default")]
    pub files: Vec<String>,
}

/// One line found by `GET /files/find`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// Path.
    pub file: String,
    /// From 1.
    pub line: u64,
    /// The line, without its end.
    pub content: String,
}

/// `POST /files/replace`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplaceRequest {
    /// Files to change.
    #[serde(deserialize_with = "lenient::null_default")]
    pub files: Vec<String>,
    /// Literal text to find.
    pub pattern: String,
    /// What takes its place.
    pub new_value: String,
}

/// What became of one file of a [`ReplaceRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplaceResult {
    /// Path.
    pub file: String,
    /// Whether it was rewritten.
    pub success: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `POST /process/code-run`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CodeRunRequest {
    /// The program's text.
    pub code: String,
    /// `python`, `javascript` or `typescript`.
    pub language: String,
    /// Arguments of the program.
    #[serde(default, deserialize_with = "lenient::null_default")]
    pub argv: Vec<String>,
    /// Added to the toolbox's environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envs: Option<BTreeMap<String, String>>,
    /// Seconds; absent or 0 is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
}

/// `GET /port`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PortList {
    /// Ports on which something listens, ascending.
    pub ports: Vec<u16>,
}

/// `GET /port/{port}/in-use`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortInUse {
    /// Whether something listens there.
    pub is_in_use: bool,
}

/// `POST /process/session`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateSessionRequest {
    /// Chosen by the caller.
    pub session_id: String,
}

/// A session: one shell and what it ran.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Its name.
    pub session_id: String,
    /// Oldest first.
    #[serde(default, deserialize_with = "lenient::null_default")]
    pub commands: Vec<SessionCommand>,
}

/// A command of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionCommand {
    /// Its id.
    pub id: String,
    /// Its text.
    pub command: String,
    /// Absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
}

/// `POST /process/session/{id}/exec`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionExecuteRequest {
    /// Script for the session's shell.
    pub command: String,
    /// Answer at once, while the command runs.
    pub run_async: Option<bool>,
    /// Old name of `run_async`.
    #[serde(rename = "async")]
    pub legacy_async: Option<bool>,
    /// Do not copy input to the log.
    pub suppress_input_echo: Option<bool>,
}

/// The answer to [`SessionExecuteRequest`]; all but the id is null while the command runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionExecuteResponse {
    /// The command's id.
    pub cmd_id: String,
    /// The log, with or without markers.
    pub output: Option<String>,
    /// Standard output, for SDKs from 0.167.
    pub stdout: Option<String>,
    /// Standard error, for SDKs from 0.167.
    pub stderr: Option<String>,
    /// The command's status.
    pub exit_code: Option<i64>,
}

/// A command's log, for SDKs from 0.167; others get text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionCommandLogs {
    /// Both streams, with a marker before each line.
    pub output: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// `POST /process/session/{id}/command/{id}/input`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SessionInput {
    /// Text; the server ends it with a newline.
    pub data: String,
}

/// `POST /process/pty`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PtyCreateRequest {
    /// Chosen by the caller.
    pub id: String,
    /// Working directory; the toolbox's own where absent.
    pub cwd: Option<String>,
    /// Added to the toolbox's environment.
    pub envs: Option<BTreeMap<String, String>>,
    /// Columns, at most 1000; 80 where absent.
    pub cols: Option<u16>,
    /// Rows, at most 1000; 24 where absent.
    pub rows: Option<u16>,
    /// Start the shell when the first client connects.
    pub lazy_start: Option<bool>,
}

/// The answer to [`PtyCreateRequest`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PtyCreateResponse {
    /// The id again.
    pub session_id: String,
}

/// `POST /process/pty/{id}/resize`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PtyResizeRequest {
    /// Columns, 1 to 1000.
    pub cols: u16,
    /// Rows, 1 to 1000.
    pub rows: u16,
}

/// A terminal.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PtySessionInfo {
    /// Its id.
    pub id: String,
    /// Working directory of its shell.
    pub cwd: String,
    /// What was added to the toolbox's environment.
    #[serde(default, deserialize_with = "lenient::null_default")]
    pub envs: BTreeMap<String, String>,
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
    /// When it was made, as RFC 3339.
    pub created_at: String,
    /// Whether its shell runs.
    pub active: bool,
    /// Whether its shell waits for the first client.
    pub lazy_start: bool,
}

/// `GET /process/pty`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PtyList {
    /// All terminals.
    #[serde(default, deserialize_with = "lenient::null_default")]
    pub sessions: Vec<PtySessionInfo>,
}
