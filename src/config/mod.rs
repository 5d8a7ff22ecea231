//! What the user wrote: text in, typed plan out. Pure: no network, no processes, files only through [`Files`].
//!
//! [`Source`] says where a configuration comes from, [`Context`] what surrounds it, and [`load`] makes the [`Plan`].
//! [`Document`] does the same in two steps, so that a file is parsed once for many samples.
//!
//! Files are read as Compose reads them, with one difference: scalars stay as they were written (`3.10`, `0755`).
//! Every key is honoured, refused with a message, or ignored with a warning where that is harmless; [`keys`] holds the
//! decisions. The rule: what *widens* the rights of a service is ignored, since a sandbox is a machine of its own; what
//! *narrows* them is refused where it cannot be applied, since nobody may get a weaker isolation than the file says.

mod allow_list;
mod build;
mod command_line;
mod compose;
pub mod context;
pub mod dockerfile;
mod dockerfile_lines;
pub mod dockerignore;
mod document;
mod dotenv;
mod environment;
mod extension;
mod files;
mod healthcheck;
mod include;
mod interpolate;
mod json;
pub mod keys;
mod model;
mod multi;
mod network;
mod node;
mod pattern;
mod plan;
mod platform_volume;
mod prepared;
mod problem;
mod reading;
mod resources;
mod secrets;
mod security;
mod service;
mod source;
mod storage;
mod suggest;
mod tmpfs;
mod typed;
mod units;
mod values;
mod yaml;

pub use document::Document;
#[cfg(feature = "provider")]
pub(crate) use document::PROJECT;
pub use extension::{SETTINGS, Setting, XDaytona};
pub use files::{FileKind, Files, MemoryFiles, RealFiles};
pub use plan::{
    Build, ComposeModel, ComposeProject, DockerfileSource, HealthTest, Healthcheck, ImageSource, LocalPath,
    Network, Plan, Port, Purpose, Resources, SandboxPlan, Service, Tmpfs, Ulimit,
};
pub use platform_volume::PlatformVolume;
pub use source::{CONFIG_FILES, Context, Source};
pub use storage::is_own;
pub use values::Variables;

use crate::error::Result;

/// Reads a configuration and makes its plan.
///
/// # Errors
/// `InvalidConfig`, with file, line and column, for whatever is wrong or cannot be honoured.
pub fn load(source: &Source, context: &Context<'_>) -> Result<Plan> {
    Document::read(source, context)?.into_plan(context)
}
