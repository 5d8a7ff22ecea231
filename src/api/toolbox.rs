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
