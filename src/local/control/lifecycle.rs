//! The transitions of a sandbox. A request sets the goal and answers; a task carries it out with the engine.
//!
//! Each transition is one task that is the only one for its sandbox: whoever asks for another one meanwhile gets 409.
//! A client that goes away leaves its transition to be finished, so nothing is half made.

use std::time::Duration;

use tokio::time::timeout;

use super::error::{ApiError, ApiResult};
use super::images::{Image, Source};
use super::record::Record;
use super::state::{Control, closed, token};
use super::timestamp;
use crate::api::sandbox::{DesiredState, Sandbox, SandboxState};
use crate::local::engine::{Exit, Running};
use crate::local::spec::{Limits, RootFs, SandboxSpec};

/// How long create, start and recover hold the answer back for the sandbox to start.
const START_WAIT: Duration = Duration::from_secs(30);
/// After this long a start that the engine has not finished is given up (Daytona's own limit of `starting`).
const START_LIMIT: Duration = Duration::from_secs(300);
/// A killed sandbox ends within moments; one that has not by then is stuck in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(60);
/// Pauses between the tries to remove a sandbox, whose mounts may be busy for a moment.
const REMOVAL_PAUSES: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5)];

impl Control {
    /// Starts a stopped or archived sandbox. A started one is answered as it is.
    pub(super) async fn start(&self, key: &str) -> ApiResult<Sandbox> {
        let quota = self.options.quota;
        let mut wait = true;
        let mut first = SandboxState::Starting;
        let id = {
            let now = self.now();
            let mut store = self.store();
            let record = store.find(key).ok_or_else(|| ApiError::no_sandbox(key))?;
            if record.is_errored() {
                return Err(ApiError::bad_request("Sandbox is in an errored state"));
            }
            if record.state == SandboxState::Started && record.desired == DesiredState::Started {
                return Ok(record.view());
            }
            if record.is_pending() {
                return Err(ApiError::busy());
            }
            match record.state {
                SandboxState::Stopped => {}
                SandboxState::Archived | SandboxState::Archiving => {
                    (wait, first) = (false, SandboxState::Restoring);
                }
                _ => return Err(ApiError::bad_request("Sandbox is not in valid state")),
            }
            let id = record.sandbox.id.clone();
            let (cpu, memory) = (record.sandbox.cpu, record.sandbox.memory);
            // what is archived takes up no disk until it is restored
            let disk = if wait { 0 } else { record.sandbox.disk };
            quota.check_total(store.sandboxes.values(), [cpu, memory, disk])?;
            if let Some(record) = store.sandboxes.get_mut(&id) {
                record.want(DesiredState::Started, now);
                // entered here, not in the task, since whoever waits takes `stopped` for the end of a start
                record.enter(first, now);
            }
            id
        };
        self.spawn(self.clone().bring_up(id.clone(), first));
        if wait { self.wait_for_start(&id).await } else { self.with(&id, |record, _| Ok(record.view())) }
    }

    /// Waits until a sandbox has started, failed, or taken too long, and answers it as it then is.
    pub(super) async fn wait_for_start(&self, id: &str) -> ApiResult<Sandbox> {
        let mut watched = self.with(id, |record, _| Ok(record.watched.subscribe()))?;
        let settled = watched.wait_for(|state| *state == SandboxState::Started || state.is_terminal());
        tokio::select! {
            // running out of time is no error: the answer shows how far it is
            _ = timeout(START_WAIT, settled) => {}
            () = closed(self.closing.subscribe()) => {}
        }
        self.with(id, |record, _| {
            if record.is_errored() {
                let reason = record.sandbox.error_reason.as_deref().unwrap_or("unknown reason");
                return Err(ApiError::bad_request(format!("Sandbox failed to start: {reason}")));
            }
            Ok(record.view())
        })
    }

    /// Stops a started sandbox; an ephemeral one is deleted instead.
    pub(super) fn stop(&self, key: &str) -> ApiResult<Sandbox> {
        let (view, ephemeral) = self.with(key, |record, now| {
            if record.is_errored() {
                return Err(ApiError::bad_request("Sandbox is in an errored state"));
            }
            if record.is_pending() {
                return Err(ApiError::busy());
            }
            if record.state != SandboxState::Started {
                return Err(ApiError::bad_request("Sandbox is not in a stoppable state"));
            }
            if record.is_ephemeral() {
                return Ok((record.view(), true));
            }
            record.want(DesiredState::Stopped, now);
            Ok((record.view(), false))
        })?;
        if ephemeral {
            return self.delete(&view.id);
        }
        self.spawn(self.clone().take_down(view.id.clone()));
        Ok(view)
    }

    /// Requests deletion: the name is free at once, the sandbox is gone a little later.
    pub(super) fn delete(&self, key: &str) -> ApiResult<Sandbox> {
        let view = {
            let now = self.now();
            let mut store = self.store();
            let record = store.find(key).ok_or_else(|| ApiError::no_sandbox(key))?;
            // what waits to be built has nothing yet that could be in the way
            if record.is_pending() && record.state != SandboxState::PendingBuild {
                return Err(ApiError::busy());
            }
            let id = record.sandbox.id.clone();
            let name = format!("DESTROYED_{}_{}", record.sandbox.name, timestamp::milliseconds(now));
            record.want(DesiredState::Destroyed, now);
            store.rename(&id, name);
            // errored ones are hidden from now on, so the record itself is asked
            store.sandboxes.get(&id).map(Record::view).ok_or_else(|| ApiError::no_sandbox(key))?
        };
        self.spawn(self.clone().destroy(view.id.clone()));
        Ok(view)
    }

    /// Archives a stopped sandbox: it keeps its files and counts nothing.
    pub(super) fn archive(&self, key: &str) -> ApiResult<Sandbox> {
        let view = self.with(key, |record, now| {
            if record.is_errored() {
                return Err(ApiError::bad_request("Sandbox is in an errored state"));
            }
            if record.is_pending() {
                return Err(ApiError::busy());
            }
            if record.state != SandboxState::Stopped {
                return Err(ApiError::bad_request("Sandbox is not stopped"));
            }
            if record.is_ephemeral() {
                return Err(ApiError::bad_request("Ephemeral sandboxes cannot be archived"));
            }
            record.want(DesiredState::Archived, now);
            Ok(record.view())
        })?;
        let (control, id) = (self.clone(), view.id.clone());
        self.spawn(async move {
            control.enter(&id, SandboxState::Stopped, SandboxState::Archived);
        });
        Ok(view)
    }

    /// Starts an errored sandbox again where that may help.
    pub(super) async fn recover(&self, key: &str, skip_start: bool) -> ApiResult<Sandbox> {
        let view = self.with(key, |record, now| {
            if !record.sandbox.recoverable || record.state != SandboxState::Error {
                return Err(ApiError::bad_request("Sandbox is not in a recoverable state"));
            }
            record.sandbox.recoverable = false;
            record.sandbox.error_reason = None;
            record.want(DesiredState::Stopped, now);
            record.enter(SandboxState::Stopped, now);
            Ok(record.view())
        })?;
        if skip_start { Ok(view) } else { self.start(&view.id).await }
    }

    /// Kills a sandbox as an accident would; the control plane learns of it from the engine.
    pub(super) fn kill(&self, key: &str) -> ApiResult<()> {
        let running = self.with(key, |record, _| Ok(record.running.clone()))?;
        let running = running.ok_or_else(|| ApiError::bad_request("Sandbox does not run"))?;
        (running.killer.0)();
        Ok(())
    }

    /// Starts the sandbox with the engine; the goal has been set.
    pub(super) async fn bring_up(self, id: String, first: SandboxState) {
        if !self.prepare(&id).await {
            return;
        }
        let prepared = self.with(&id, |record, now| {
            record.enter(first, now);
            record.run += 1;
            record.running = None;
            Ok((self.spec(record), record.run))
        });
        let Ok((spec, run)) = prepared else { return };
        let started = match timeout(START_LIMIT, self.engine.start(spec.clone())).await {
            Ok(started) => started.map_err(|error| error.to_string()),
            Err(_) => Err(format!("Timeout while {} sandbox", first.as_str())),
        };
        let orphan = started.as_ref().ok().cloned();
        let running = self.with(&id, |record, now| match started {
            Err(reason) => {
                record.sandbox.recoverable = first != SandboxState::Creating;
                record.fail(reason, now);
                Ok(None)
            }
            Ok(running) => {
                let exit = *running.exit.borrow();
                record.running = Some(running.clone());
                if let Some(exit) = exit {
                    record.sandbox.recoverable = true;
                    record.running = None;
                    record.fail(format!("The sandbox ended while it started: {}", describe(exit)), now);
                    return Ok(None);
                }
                record.preview_token = token(32);
                record.enter(SandboxState::Started, now);
                Ok(Some(running))
            }
        });
        self.reschedule.notify_one();
        match running {
            Ok(Some(running)) => {
                let control = self.clone();
                self.spawn(async move { control.watch_exit(id, run, running).await });
            }
            Ok(None) => {}
            // the server's end was faster, so nobody else knows of it
            Err(_) => {
                end(orphan).await;
                let _ = self.remove(spec).await;
            }
        }
    }

    /// Waits for a sandbox to end by itself, which stops it.
    async fn watch_exit(self, id: String, run: u64, mut running: Running) {
        let exit = running.exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        let ended = self.with(&id, |record, now| {
            let ours = record.run == run && record.state == SandboxState::Started;
            if ours && record.desired == DesiredState::Started {
                record.running = None;
                record.want(DesiredState::Stopped, now);
                record.enter(SandboxState::Stopped, now);
            }
            Ok(ours)
        });
        if ended == Ok(true) {
            let how = exit.map_or_else(|| "the engine lost it".to_owned(), describe);
            tracing::warn!(sandbox = %id, "sandbox ended by itself: {how}");
            self.reschedule.notify_one();
        }
    }

    /// Stops the sandbox; the goal has been set.
    async fn take_down(self, id: String) {
        let running = self.with(&id, |record, now| {
            record.enter(SandboxState::Stopping, now);
            Ok(record.running.take())
        });
        let Ok(running) = running else { return };
        let ended = end(running).await;
        let _ = self.with(&id, |record, now| {
            if ended {
                record.enter(SandboxState::Stopped, now);
            } else {
                record.fail("Timeout while stopping sandbox".to_owned(), now);
            }
            Ok(())
        });
        self.reschedule.notify_one();
    }

    /// Destroys the sandbox and its files; the goal has been set.
    pub(super) async fn destroy(self, id: String) {
        let now = self.now();
        let Some((spec, running)) = self.store().sandboxes.get_mut(&id).map(|record| {
            if !record.is_errored() {
                record.enter(SandboxState::Destroying, now);
            }
            (self.spec(record), record.running.take())
        }) else {
            return;
        };
        let mut failure = (!end(running).await).then(|| "Timeout while destroying sandbox".to_owned());
        if failure.is_none() {
            failure = self.remove(spec).await.err();
        }
        let mut store = self.store();
        match failure {
            None => store.forget(&id),
            Some(reason) => {
                tracing::error!(sandbox = %id, "sandbox could not be removed: {reason}");
                if let Some(record) = store.sandboxes.get_mut(&id) {
                    record.fail(reason, self.now());
                }
            }
        }
    }

    async fn remove(&self, spec: SandboxSpec) -> Result<(), String> {
        let mut pauses = REMOVAL_PAUSES.iter();
        loop {
            let Err(error) = self.engine.delete(spec.clone()).await else { return Ok(()) };
            let Some(pause) = pauses.next() else { return Err(error.to_string()) };
            tokio::time::sleep(*pause).await;
        }
    }

    /// Goes from one state to another if it is still in the first.
    fn enter(&self, id: &str, from: SandboxState, to: SandboxState) {
        let _ = self.with(id, |record, now| {
            if record.state == from {
                record.enter(to, now);
            }
            Ok(())
        });
    }

    fn spec(&self, record: &Record) -> SandboxSpec {
        let sandbox = &record.sandbox;
        let image = match &record.source {
            Source::Ready(image) => Some(image),
            _ => None,
        };
        let nesting = record.has_nesting();
        let mut env = image.map(|image| image.env.clone()).unwrap_or_default();
        env.extend(sandbox.env.clone());
        let built = sandbox.build_info.as_ref().and_then(|build| build.snapshot_ref.as_ref());
        for (name, value) in [
            ("DAYTONA_SANDBOX_ID", Some(&sandbox.id)),
            ("DAYTONA_SANDBOX_SNAPSHOT", sandbox.snapshot.as_ref().or(built)),
            ("DAYTONA_SANDBOX_USER", Some(&sandbox.user)),
            ("DAYTONA_ORGANIZATION_ID", Some(&sandbox.organization_id)),
            ("DAYTONA_REGION_ID", Some(&sandbox.target)),
        ] {
            if let Some(value) = value {
                env.insert(name.to_owned(), value.clone());
            }
        }
        SandboxSpec {
            id: sandbox.id.clone(),
            hostname: sandbox.id.clone(),
            // as at Daytona, a sandbox's own `user` is no more than the variable
            user: image.map_or_else(|| "root".to_owned(), |image| image.user.clone()),
            env,
            work_dir: image.and_then(|image| image.work_dir.clone()),
            entrypoint: image.map(Image::started).unwrap_or_default(),
            root: image.map_or_else(RootFs::default, |image| image.root.clone()),
            network: self.network(sandbox, nesting),
            nesting,
            mounts: self.mounts(&sandbox.volumes),
            limits: self.limits(sandbox),
            directory: self.directory.join(&sandbox.id),
        }
    }

    /// The limits of a sandbox for the engine.
    pub(super) fn limits(&self, sandbox: &Sandbox) -> Limits {
        Limits {
            cpus: u32::try_from(sandbox.cpu).ok(),
            memory: u64::try_from(sandbox.memory).ok().map(|gib| gib << 30),
            pids: self.options.pids,
        }
    }
}

/// Kills what runs and waits for its end.
pub(super) async fn end(running: Option<Running>) -> bool {
    let Some(mut running) = running else { return true };
    (running.killer.0)();
    // an engine that is gone has taken its sandboxes along, so a closed channel is an end as well
    timeout(KILL_LIMIT, running.exit.wait_for(Option::is_some)).await.is_ok()
}

fn describe(exit: Exit) -> String {
    let code = exit.code;
    if exit.out_of_memory {
        return format!("its memory limit was reached (exit code {code})");
    }
    format!("its first process ended with exit code {code}")
}
