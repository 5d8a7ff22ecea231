//! How sandboxes are isolated.
//!
//! An engine is chosen by trial when the server starts: it really makes a sandbox in a short-lived child and never
//! goes by version numbers. What a level cannot promise stands in its [`Isolation`], is printed once, and is part of
//! each sandbox's record. A weaker engine is never chosen silently.

mod cgroup;
mod connection;
mod delegate;
mod hierarchy;
mod isolated;
mod program;
mod state;
mod trial;

use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

pub use self::state::StateDirectory;
use super::spec::{Limits, Network, SandboxSpec};
use crate::error::Result;

/// Which engine the user wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// The strongest level of namespaces that works, or an error.
    #[default]
    Auto,
    /// Plain processes, which a user must ask for.
    Process,
}

/// Chooses an engine by making a sandbox with it, and removes what dead servers have left beside `state`.
///
/// Must be called within a tokio runtime.
///
/// # Errors
///
/// [`crate::ErrorKind::Unsupported`] where this machine does not let us isolate sandboxes: names the steps that
/// failed, with the error numbers, what to enable, and the explicit choice of less.
pub async fn choose(
    choice: EngineChoice,
    network: &NetworkOptions,
    state: StateDirectory,
) -> Result<Arc<dyn Engine>> {
    trial::choose(choice, network, state).await
}

/// How well sandboxes of an engine are separated from this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// `namespaces/root-idmap`, `namespaces/subuid`, `namespaces/single-uid` or `process`.
    pub name: &'static str,
    /// What this level does not promise here, one sentence each.
    pub lost: Vec<String>,
    /// Why sandboxes cannot have a network with a gateway here; `None` where they can.
    pub no_gateway: Option<String>,
}

/// Which network unlimited sandboxes get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkChoice {
    /// One of their own where that works; otherwise the machine's, which is told.
    #[default]
    Auto,
    /// One of their own, or an error.
    Gateway,
    /// The machine's.
    Machine,
}

/// What a user can choose about networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkOptions {
    /// Which network unlimited sandboxes get.
    pub choice: NetworkChoice,
    /// Where gateways ask for names; the name servers of the machine's `/etc/resolv.conf` if empty.
    pub resolvers: Vec<SocketAddr>,
}

/// Makes and removes sandboxes.
pub trait Engine: Send + Sync + Debug {
    /// How sandboxes are isolated.
    fn isolation(&self) -> &Isolation;

    /// Starts a sandbox, new or stopped: its writable layer is taken from `spec.directory` if one is there.
    ///
    /// # Errors
    ///
    /// [`crate::ErrorKind::System`] where the operating system refuses a step, naming the step.
    fn start(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Running>>;

    /// Removes what is left of a sandbox that does not run: its directory and its cgroups. Succeeds if nothing is.
    ///
    /// # Errors
    ///
    /// [`crate::ErrorKind::System`] where something cannot be removed.
    fn delete(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<()>>;

    /// Removes a directory of sandboxes' files that nothing uses any more, such as a [`super::spec::Mount`]'s. Succeeds
    /// if there is none.
    ///
    /// # Errors
    ///
    /// [`crate::ErrorKind::System`] where something cannot be removed.
    fn remove(&self, directory: PathBuf) -> BoxFuture<'_, Result<()>>;

    /// Changes the network of a sandbox; one that does not run gets its network when it starts.
    ///
    /// # Errors
    ///
    /// [`crate::ErrorKind::Unsupported`] where a running sandbox cannot be moved to that network;
    /// [`crate::ErrorKind::System`] where the operating system refuses a step.
    fn change_network(&self, id: String, network: Network) -> BoxFuture<'_, Result<()>>;

    /// Raises the limits of a sandbox, where they are enforced; one that does not run gets its limits when it starts.
    ///
    /// # Errors
    ///
    /// [`crate::ErrorKind::System`] where the operating system refuses a limit.
    fn raise_limits(&self, id: String, limits: Limits) -> BoxFuture<'_, Result<()>>;

    /// Ends the engine and every sandbox in it. Further calls fail.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}

/// A sandbox that runs. Dropping it does not stop the sandbox.
#[derive(Clone, Debug)]
pub struct Running {
    /// Unix socket on the host on which the sandbox's toolbox serves HTTP; connectable at once.
    pub toolbox: PathBuf,
    /// Becomes `Some` when the sandbox's first process has ended, for whatever reason.
    pub exit: watch::Receiver<Option<Exit>>,
    /// Ends the sandbox: every process in it is killed. Idempotent; wait for `exit` afterwards.
    pub killer: Killer,
}

/// How a sandbox's first process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit status, or 128 + signal.
    pub code: i32,
    /// Whether the kernel's memory limit killed a process of the sandbox.
    pub out_of_memory: bool,
}

/// Asks an engine to kill a sandbox.
#[derive(Clone)]
pub struct Killer(pub std::sync::Arc<dyn Fn() + Send + Sync>);

impl Debug for Killer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Killer")
    }
}
