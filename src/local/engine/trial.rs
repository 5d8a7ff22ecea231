//! Chooses an engine by making a sandbox with it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::http::request::Builder;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::cgroup::Cgroups;
use super::isolated::Isolated;
use super::state::StateDirectory;
use super::{Engine, EngineChoice, NetworkChoice, NetworkOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::local::spec::{Access, Limits, Network, RootFs, SandboxSpec};
use crate::local::wire::{Failure, Level};

/// A sandbox is made in milliseconds; this long means that it never will be.
const DEADLINE: Duration = Duration::from_secs(20);

/// The file through which a process is put into a control group.
const PROCS: &str = "cgroup.procs";

/// What a user can do where no level works.
const HINT: &str = "Allow user namespaces to this user (sysctl user.max_user_namespaces, \
                    kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0; in a container: \
                    --security-opt seccomp=unconfined), or choose the weaker isolation by plain processes explicitly: \
                    INSPECT_DAYTONA_LOCAL_ENGINE=process";

/// See [`super::choose`].
pub(super) async fn choose(
    choice: EngineChoice,
    network: &NetworkOptions,
    mut state: StateDirectory,
) -> Result<Arc<dyn Engine>> {
    let remains = state.take_stale();
    let state = Arc::new(state);
    let cgroups = Arc::new(Cgroups::open(&state.name()));
    let is_root = nix::unistd::geteuid().is_root();
    let levels: &[Level] = match choice {
        EngineChoice::Process => &[Level::Process],
        EngineChoice::Auto if is_root => &[Level::RootIdmap],
        EngineChoice::Auto => &[Level::Subuid, Level::SingleUid],
    };
    let mut refusals = Vec::new();
    for level in levels {
        let mut attempted = attempt(*level, network, &state, &cgroups).await;
        if attempted.as_ref().is_err_and(|failure| failure.step.contains(PROCS)) {
            // limits are lost then, which the engine tells
            attempted = attempt(*level, network, &state, &Arc::new(Cgroups::default())).await;
        }
        match attempted {
            Ok(engine) => {
                let engine = Arc::new(engine);
                let sweeper = Arc::clone(&engine);
                // it may take long, and nobody waits for it
                tokio::spawn(async move { sweeper.sweep(remains).await });
                return Ok(engine);
            }
            Err(failure) => {
                tracing::debug!("sandboxes at level {level:?} are impossible: {failure}");
                refusals.push(failure.to_string());
            }
        }
    }
    cgroups.remove();
    let _ = std::fs::remove_dir_all(state.path());
    let message = format!("this machine does not let us isolate sandboxes: {}", refusals.join("; "));
    Err(Error::new(ErrorKind::Unsupported, message).with_hint(HINT))
}

/// Makes an engine and proves that it works.
async fn attempt(
    level: Level,
    network: &NetworkOptions,
    state: &Arc<StateDirectory>,
    cgroups: &Arc<Cgroups>,
) -> Result<Isolated, Failure> {
    let open = |own_sudo| {
        let resolvers = network.resolvers.clone();
        Isolated::open(level, Arc::clone(state), Arc::clone(cgroups), own_sudo, resolvers)
    };
    let (mut engine, host_sudo) = open(false).await?;
    // one for each level, since another one's files may have other owners
    let directory = state.sandbox(&format!("trial-{level:?}"));
    let (sudo_works, refused) = if level == Level::Process {
        (prove(&engine, &directory, Network::Blocked, host_sudo).await?, None)
    } else {
        match prove(&engine, &directory, Network::Gateway(Access::Everything), host_sudo).await {
            Ok(sudo_works) => (sudo_works, None),
            Err(failure) => {
                (prove(&engine, &directory, Network::Blocked, host_sudo).await?, Some(failure.to_string()))
            }
        }
    };
    if !sudo_works {
        tracing::debug!("this machine's sudo does not work in sandboxes; they get the stand-in");
        drop(engine);
        (engine, _) = open(true).await?;
        prove(&engine, &directory, Network::Blocked, false).await?;
    }
    if level == Level::Process {
        // among what that level promises nowhere
        engine.without_gateway("plain processes have the machine's network".into(), None);
    } else if let Some(reason) = refused {
        let shared = "Sandboxes share this machine's network and its ports, or have none where containers run in \
                      them, and allow lists are refused";
        let lost = (network.choice != NetworkChoice::Machine).then(|| format!("{shared}: {reason}."));
        engine.without_gateway(reason, lost);
    }
    if let (NetworkChoice::Gateway, Some(reason)) = (network.choice, &engine.isolation().no_gateway) {
        return Err(Failure::new("give sandboxes a network of their own", reason.clone()));
    }
    Ok(engine)
}

/// Makes a sandbox and asks its toolbox; says whether `sudo` works, if that is asked.
async fn prove(engine: &Isolated, directory: &Path, network: Network, sudo: bool) -> Result<bool, Failure> {
    let spec = SandboxSpec {
        id: "trial".into(),
        hostname: "trial".into(),
        user: "daytona".into(),
        env: std::collections::BTreeMap::new(),
        work_dir: None,
        entrypoint: Vec::new(),
        root: RootFs::Host,
        network,
        nesting: false,
        mounts: Vec::new(),
        limits: Limits { cpus: Some(1), memory: Some(512 << 20), pids: Some(512) },
        directory: directory.to_owned(),
    };
    let refused = |error: Error| Failure::new("make a sandbox on trial", error.to_string());
    let made = engine.make(spec.clone()).await.map_err(refused)?;
    let mut running = match made {
        Ok(running) => running,
        Err(failure) => {
            engine.delete(spec).await.map_err(refused)?;
            return Err(failure);
        }
    };
    let version = ask(&running.toolbox, Request::get("/version"), String::new()).await;
    let sudo_works = match (&version, sudo) {
        (Ok(_), true) => {
            let request = Request::post("/process/execute").header("content-type", "application/json");
            let answer = ask(&running.toolbox, request, r#"{"command":"sudo -n true"}"#.into()).await?;
            answer.contains(r#""exitCode":0"#)
        }
        _ => true,
    };
    (running.killer.0)();
    let ended = tokio::time::timeout(DEADLINE, running.exit.wait_for(Option::is_some)).await;
    ended
        .map_err(|_| Failure::new("end a sandbox on trial", "it does not end"))?
        .map_err(|_| Failure::new("end a sandbox on trial", "the runner has ended"))?;
    engine.delete(spec).await.map_err(refused)?;
    version.map(|_| sudo_works)
}

async fn ask(socket: &Path, request: Builder, body: String) -> Result<String, Failure> {
    let step = "talk to the toolbox of a sandbox on trial";
    let refused = |error: &dyn std::fmt::Display| Failure::new(step, error.to_string());
    let asked = async {
        let stream = UnixStream::connect(socket).await.map_err(|error| refused(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| refused(&error))?;
        let connection = tokio::spawn(connection);
        let request = request
            .header("host", "toolbox")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| refused(&error))?;
        let response = sender.send_request(request).await.map_err(|error| refused(&error))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| refused(&error))?.to_bytes();
        connection.abort();
        let text = String::from_utf8_lossy(&body).into_owned();
        if status.is_success() { Ok(text) } else { Err(refused(&format!("{status} {text}"))) }
    };
    tokio::time::timeout(DEADLINE, asked).await.map_err(|_| refused(&"it does not answer"))?
}
