//! What an eval needs: names, lifecycle, exec and files, on top of [`crate::client`].
//!
//! - [`run`]: an eval run, which creates sandboxes and sees that none is left
//! - [`sandbox`]: a running sandbox; [`exec`] and `files` are its operations
//! - `containers`: containers inside a sandbox, as sandboxes of their own
//! - [`images`]: images, prepared once for all samples
//! - [`names`]: names and labels
//! - [`settings`]: what a task asks of its sandboxes, and the create request for it
//! - [`explain()`]: what a configuration means, without a server
//! - [`cleanup`]: finding and deleting sandboxes of earlier runs

pub mod cleanup;
mod compose;
pub mod connection;
mod containers;
mod documents;
pub mod exec;
mod explain;
mod files;
pub mod images;
mod keep_alive;
mod listener;
pub mod names;
mod output;
mod registry;
pub mod run;
pub mod sandbox;
pub mod settings;
mod startup;

pub use containers::{ContainerMounts, Mount};
pub use exec::{Command, Outcome};
pub use explain::explain;
pub use images::{Images, Progress};
pub use listener::{Listener, Note};
pub use registry::{Counts, Deletions};
pub use run::{Left, Run, Services};
pub use sandbox::Sandbox;
pub use settings::Settings;
