//! The engine of every level: sandboxes made by one runner process.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, ready};
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::Semaphore;

use super::cgroup::Cgroups;
use super::connection::{Connection, Inmate};
use super::state::{Stale, StateDirectory};
use super::{Engine, Isolation, Killer, Running};
use crate::error::{Error, ErrorKind, Result};
use crate::local::gateway::Gateway;
use crate::local::spec::{Access, Limits, Network, SandboxSpec};
use crate::local::wire::{self, Context, Failure, Level, Order, Report, Request, Setup};

/// Sandboxes that are made at the same time; more only wait for the same processors.
const CONCURRENT_STARTS: usize = 16;
/// A start takes milliseconds; this long means that the machine hangs.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// Removing large trees takes its time.
const REMOVE_DEADLINE: Duration = Duration::from_secs(300);
/// Killing takes milliseconds.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// Makes sandboxes at one level.
#[derive(Debug)]
pub(super) struct Isolated {
    level: Level,
    isolation: Isolation,
    state: Arc<StateDirectory>,
    cgroups: Arc<Cgroups>,
    connection: Connection,
    next: AtomicU64,
    starts: Semaphore,
    resolvers: Vec<SocketAddr>,
}

impl Isolated {
    /// Starts a runner at `level`.
    pub(super) async fn open(
        level: Level,
        state: Arc<StateDirectory>,
        cgroups: Arc<Cgroups>,
        own_sudo: bool,
        resolvers: Vec<SocketAddr>,
    ) -> Result<(Self, bool), Failure> {
        let connection = Connection::open(state.path())?;
        let setup = Setup { level, directory: state.path().to_owned(), own_sudo };
        let body = wire::body(&setup).step(|| "write the setup".into())?;
        let asked = tokio::time::timeout(START_DEADLINE, connection.ask(0, Request::Begin, vec![body]));
        let ready = asked.await.map_err(|_| Failure::new("start the runner", "it does not answer"))??;
        let (Report::Ready { lost, host_sudo }, _) = ready else {
            return Err(Failure::new("start the runner", "its answer is not understood"));
        };
        let mut lost = [promises(level), lost].concat();
        lost.extend(cgroups.lost());
        lost.extend(state.notes().iter().cloned());
        let engine = Self {
            level,
            isolation: Isolation { name: name(level), lost, no_gateway: None },
            state,
            cgroups,
            connection,
            next: AtomicU64::new(1),
            starts: Semaphore::new(CONCURRENT_STARTS),
            resolvers,
        };
        Ok((engine, host_sudo))
    }

    /// Makes a sandbox; the outer error is ours, the inner one names the step that the system refused.
    pub(super) async fn make(&self, spec: SandboxSpec) -> Result<Result<Running, Failure>> {
        self.refuse_running(&spec.id).await?;
        if spec.nesting && self.level != Level::RootIdmap {
            return Ok(Err(Failure::new(
                "let containers run inside",
                "the server has to run as root for that",
            )));
        }
        let permit = self.starts.acquire().await.map_err(|error| {
            Error::new(ErrorKind::Unexpected, "the engine takes no more sandboxes").with_source(error)
        })?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let socket = self.state.socket(number);
        let access = match &spec.network {
            Network::Gateway(access) => Some(access.clone()),
            Network::Host | Network::Blocked => None,
        };
        let (cgroups, path) = (Arc::clone(&self.cgroups), socket.clone());
        let can_isolate = self.level != Level::Process;
        let prepared = tokio::task::spawn_blocking(move || {
            let cgroup = cgroups.create(&spec.id, &spec.limits, spec.nesting)?;
            let order = Order { cgroups: cgroup.procs(), delegation: cgroup.delegation(), spec };
            let prepared = prepare(&order, &path);
            let own_network = order.spec.network != Network::Host && can_isolate;
            Ok::<_, Error>((Inmate::new(order.spec.id, cgroup, path, own_network), prepared))
        });
        let (inmate, prepared) = prepared.await.map_err(|error| {
            Error::new(ErrorKind::Unexpected, "preparing the sandbox was interrupted").with_source(error)
        })??;
        let exit = self.connection.expect(number, inmate);
        let started = match prepared {
            Err(failure) => Err(failure),
            Ok(beside) => {
                let abandoned = Abandoned { connection: &self.connection, number };
                let asked = self.connection.ask(number, Request::Start { number }, beside);
                let answer = tokio::time::timeout(START_DEADLINE, asked)
                    .await
                    .unwrap_or_else(|_| Err(Failure::new("start the sandbox", "the runner does not answer")));
                std::mem::forget(abandoned);
                answer
            }
        };
        drop(permit);
        let (_, beside) = match started {
            Ok(answer) => answer,
            Err(failure) => {
                self.connection.give_up(number);
                return Ok(Err(failure));
            }
        };
        let killer = Killer(Arc::new(self.connection.killer(number)));
        if let Some(access) = access {
            match self.gateway(beside, access) {
                Ok(gateway) => drop(self.connection.set_gateway(number, Some(gateway))),
                Err(error) => {
                    (killer.0)();
                    return Err(error);
                }
            }
        }
        Ok(Ok(Running { toolbox: socket, exit, killer }))
    }

    /// A gateway at the descriptor beside a report.
    fn gateway(&self, mut beside: Vec<OwnedFd>, access: Access) -> Result<Gateway> {
        let tunnel = beside.pop().ok_or_else(|| {
            let message =
                "the sandbox's network interface did not arrive: this process may have too many open files";
            Error::new(ErrorKind::System, message)
                .with_hint("Allow it more (ulimit -n), or run fewer samples at a time")
        })?;
        Gateway::open(tunnel, access, &self.resolvers)
    }

    /// Changes the network of a sandbox that may run.
    async fn change(&self, id: &str, network: Network) -> Result<()> {
        let Some((sandbox, own_network)) = self.connection.network(id) else { return Ok(()) };
        let access = match network {
            Network::Gateway(access) if own_network => access,
            Network::Blocked if own_network => {
                if let Some(gateway) = self.connection.set_gateway(sandbox, None) {
                    gateway.end().await;
                }
                return Ok(());
            }
            _ => {
                let message =
                    "it cannot be moved between the machine's network and one of its own while it runs";
                return Err(Error::new(ErrorKind::Unsupported, message).with_sandbox(id));
            }
        };
        if self.connection.allow(sandbox, &access) {
            return Ok(());
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let asked = self.connection.ask(number, Request::Connect { number, sandbox }, Vec::new());
        let answer = tokio::time::timeout(START_DEADLINE, asked).await;
        let (_, beside) = answer
            .unwrap_or_else(|_| Err(Failure::new("connect the sandbox", "the runner does not answer")))
            .map_err(|failure| system_error(&failure).with_operation("connect sandbox").with_sandbox(id))?;
        drop(self.connection.set_gateway(sandbox, Some(self.gateway(beside, access)?)));
        Ok(())
    }

    /// Two starts over one writable layer would destroy it, as would its removal. Waits for a sandbox that ends.
    async fn refuse_running(&self, id: &str) -> Result<()> {
        let running = || Error::new(ErrorKind::Conflict, "it is running").with_sandbox(id);
        match self.connection.find(id) {
            None => Ok(()),
            Some((_, false)) => Err(running()),
            Some((mut exit, true)) => {
                let ended = tokio::time::timeout(END_DEADLINE, exit.wait_for(Option::is_some)).await;
                ended.map(drop).map_err(|_| running().temporary())
            }
        }
    }

    /// Notes why sandboxes cannot have a gateway here.
    pub(super) fn without_gateway(&mut self, reason: String, lost: Option<String>) {
        self.isolation.no_gateway = Some(reason);
        self.isolation.lost.extend(lost);
    }

    async fn remove_tree(&self, directory: PathBuf) -> Result<(), Failure> {
        let body = wire::body(&directory).step(|| "write the order".into())?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let asked = self.connection.ask(number, Request::Remove { number }, vec![body]);
        let removed = tokio::time::timeout(REMOVE_DEADLINE, asked).await;
        removed.map_err(|_| Failure::new("remove the sandbox", "the runner does not answer"))?.map(drop)
    }

    /// Removes what dead servers have left. What is not done when the engine is shut down is left to the next server.
    pub(super) async fn sweep(&self, stale: Vec<Stale>) {
        for left in stale {
            self.remove_sandboxes(&left.path).await;
            if let Err(failure) = self.remove_tree(left.path.clone()).await {
                self.lament(&left.path, &failure);
            }
        }
    }

    /// Removes the files of all sandboxes of a server, through the runner: they may be other users'.
    async fn remove_sandboxes(&self, state: &Path) {
        let sandboxes = state.join("sandboxes");
        let entries = std::fs::read_dir(&sandboxes).into_iter().flatten().flatten().map(|entry| entry.path());
        let removals =
            stream::iter(entries).map(|path| self.remove_tree(path)).buffer_unordered(CONCURRENT_STARTS);
        let failures: Vec<Failure> = removals.filter_map(|removed| ready(removed.err())).collect().await;
        for failure in failures {
            self.lament(state, &failure);
        }
    }

    fn lament(&self, directory: &Path, failure: &Failure) {
        if !self.connection.is_closed() {
            tracing::warn!("files of sandboxes are left in {}: {failure}", directory.display());
        }
    }

    async fn end(&self) {
        self.starts.close();
        let exits = self.connection.exits();
        for (number, _) in &exits {
            self.connection.kill(*number);
        }
        for (_, mut exit) in exits {
            let _ = tokio::time::timeout(END_DEADLINE, exit.wait_for(Option::is_some)).await;
        }
        self.remove_sandboxes(self.state.path()).await;
        self.connection.close();
        let mut ended = self.connection.ended();
        let _ = tokio::time::timeout(END_DEADLINE, ended.wait_for(|ended| *ended)).await;
        self.cgroups.remove();
        if let Err(error) = std::fs::remove_dir_all(self.state.path()) {
            tracing::warn!("cannot remove {}: {error}", self.state.path().display());
        }
    }
}

impl Engine for Isolated {
    fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    fn start(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Running>> {
        let id = spec.id.clone();
        async move {
            self.make(spec)
                .await?
                .map_err(|failure| system_error(&failure).with_operation("start sandbox").with_sandbox(id))
        }
        .boxed()
    }

    fn delete(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<()>> {
        async move {
            self.refuse_running(&spec.id).await?;
            let fail = |error: Error| error.with_operation("delete sandbox").with_sandbox(spec.id.clone());
            self.cgroups
                .remains(&spec.id)
                .remove()
                .map_err(|error| fail(Error::new(ErrorKind::System, error.to_string()).with_source(error)))?;
            self.remove_tree(spec.directory).await.map_err(|failure| fail(system_error(&failure)))
        }
        .boxed()
    }

    fn remove(&self, directory: PathBuf) -> BoxFuture<'_, Result<()>> {
        async move {
            let removed = self.remove_tree(directory).await;
            removed.map_err(|failure| system_error(&failure).with_operation("remove files"))
        }
        .boxed()
    }

    fn change_network(&self, id: String, network: Network) -> BoxFuture<'_, Result<()>> {
        async move { self.change(&id, network).await }.boxed()
    }

    fn raise_limits(&self, id: String, limits: Limits) -> BoxFuture<'_, Result<()>> {
        let cgroups = Arc::clone(&self.cgroups);
        let raised = tokio::task::spawn_blocking(move || cgroups.raise(&id, &limits));
        async move {
            raised.await.unwrap_or_else(|error| {
                let message = "raising the sandbox's limits was interrupted";
                Err(Error::new(ErrorKind::Unexpected, message).with_source(error))
            })
        }
        .boxed()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        self.end().boxed()
    }
}

/// The error of a refused step.
pub(super) fn system_error(failure: &Failure) -> Error {
    let error = Error::new(ErrorKind::System, failure.to_string());
    match failure.errno {
        Some(number) => error.with_source(std::io::Error::from_raw_os_error(number)),
        None => error,
    }
}

/// Directory, listener and order of a start.
fn prepare(order: &Order, socket: &Path) -> Result<Vec<OwnedFd>, Failure> {
    let directory = &order.spec.directory;
    std::fs::create_dir_all(directory).step(|| format!("make {}", directory.display()))?;
    let listener = UnixListener::bind(socket).step(|| format!("listen on {}", socket.display()))?;
    std::fs::set_permissions(socket, PermissionsExt::from_mode(0o600))
        .step(|| format!("listen on {}", socket.display()))?;
    Ok(vec![wire::body(order).step(|| "write the order".into())?, listener.into()])
}

/// A start for which nobody waits any more, unless it is forgotten.
struct Abandoned<'a> {
    connection: &'a Connection,
    number: u64,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        self.connection.doom(self.number);
        // the answer may have been sent and not been read; where it is still to come, its arrival kills too
        self.connection.kill(self.number);
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::RootIdmap => "namespaces/root-idmap",
        Level::Subuid => "namespaces/subuid",
        Level::SingleUid => "namespaces/single-uid",
        Level::Process => "process",
    }
}

/// What a level promises nowhere.
fn promises(level: Level) -> Vec<String> {
    let lost: &[&str] = match level {
        Level::RootIdmap => &[],
        Level::Subuid => {
            &["System directories of this machine are read-only in sandboxes, even for their root."]
        }
        Level::SingleUid => &[
            "System directories of this machine are read-only in sandboxes, even for their root.",
            "Sandboxes have one user only, which is root and called daytona: no chown, no further users.",
            "Sandboxes keep the group memberships of the server's user.",
        ],
        Level::Process => &[
            "Sandboxes are plain processes of the server's user: they see this machine's processes and users.",
            "Sandboxes read every file that the server's user may read, and share its /tmp and its ports.",
            "Sandboxes have no root, no sudo, no home directory /home/daytona and no host name of their own.",
            "A blocked network blocks the loopback interface as well.",
            "Where the runner is killed, background processes of sandboxes are left running.",
        ],
    };
    lost.iter().map(|&line| line.to_owned()).collect()
}
