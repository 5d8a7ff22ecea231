//! What all handlers and background tasks of one server share.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use secrecy::SecretString;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::access::Access;
use super::clock::Clock;
use super::error::{ApiError, ApiResult};
use super::faults::Faults;
use super::images::Images;
use super::options::LocalOptions;
use super::origin;
use super::record::Record;
use super::requests::Requests;
use super::snapshots::Snapshots;
use super::storage::Storage;
use super::throttle::Throttle;
use crate::api::sandbox::DesiredState;
use crate::api::volume::Volume;
use crate::local::engine::Engine;

/// The control plane of one server. Cheap to clone; every clone is the same control plane.
#[derive(Clone, Debug)]
pub(super) struct Control(Arc<Shared>);

/// A control plane without a socket.
#[derive(Clone, Debug)]
pub struct ControlPlane(pub(super) Control);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) options: LocalOptions,
    pub(super) api_key: SecretString,
    /// `http://host:port`, as clients on this machine reach this server; see [`Control::origin`].
    pub(super) own_origin: String,
    /// Where the directories of the sandboxes are.
    pub(super) directory: PathBuf,
    pub(super) organization: String,
    pub(super) runner: String,
    pub(super) started_at: SystemTime,
    pub(super) throttle: Throttle,
    pub(super) faults: Faults,
    pub(super) storage: Storage,
    pub(super) images: Images,
    pub(super) requests: Requests,
    /// Held while a network is changed, so that what is stored last is what holds.
    pub(super) network_changes: tokio::sync::Mutex<()>,
    /// Wakes the automation, since something may now be due earlier.
    pub(super) reschedule: Notify,
    /// Becomes true when the server ends; creates are refused from then on.
    pub(super) closing: watch::Sender<bool>,
    store: Mutex<Store>,
    tasks: Mutex<JoinSet<()>>,
}

/// Everything that is stored. Locked for moments only, never across an await.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) sandboxes: HashMap<String, Record>,
    /// Name to id; a sandbox whose deletion was requested is found by its new name.
    pub(super) names: HashMap<String, String>,
    pub(super) snapshots: Snapshots,
    pub(super) volumes: BTreeMap<String, Volume>,
    pub(super) access: Access,
    /// How many sandboxes were ever created.
    pub(super) created: u64,
}

/// What a server has on record of its sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Created since the server started.
    pub created: u64,
    /// Deleted, or on their way out.
    pub deleted: u64,
    /// In any other state.
    pub left: u64,
}

impl std::ops::Deref for Control {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl ControlPlane {
    /// A control plane that makes sandboxes with `engine` in `directory` and is reached at `origin`
    /// (`http://host:port`) by whoever does not say otherwise with the header `Host`.
    pub fn new(
        engine: Arc<dyn Engine>,
        clock: Arc<dyn Clock>,
        options: LocalOptions,
        origin: String,
        directory: PathBuf,
    ) -> Self {
        let now = clock.now();
        let api_key = options.api_key.clone().unwrap_or_else(random_key);
        let store = Store { snapshots: Snapshots::new(&options, now), ..Store::default() };
        // beside the sandboxes, whose ids are not like this, so that the engine removes both
        let prepared = directory.join(".prepared");
        Self(Control(Arc::new(Shared {
            engine,
            clock,
            api_key,
            own_origin: origin,
            directory,
            organization: uuid(),
            runner: uuid(),
            started_at: now,
            throttle: Throttle::new(options.rate_limits),
            faults: Faults::new(options.faults.clone()),
            storage: Storage::new(prepared.join("contexts")),
            images: Images::new(&options, prepared.join("images")),
            requests: Requests::default(),
            network_changes: tokio::sync::Mutex::new(()),
            reschedule: Notify::new(),
            closing: watch::Sender::new(false),
            store: Mutex::new(store),
            tasks: Mutex::new(JoinSet::new()),
            options,
        })))
    }

    /// The key that clients must send.
    pub fn api_key(&self) -> &SecretString {
        &self.0.api_key
    }
}

impl Control {
    pub(super) fn now(&self) -> SystemTime {
        self.clock.now()
    }

    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a task that ends with the server.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Ends all tasks at once.
    pub(super) fn abort_tasks(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }

    pub(super) fn toolbox_url(&self) -> String {
        origin::toolbox(&self.origin())
    }

    /// Does something with the sandbox of this id or name.
    pub(super) fn with<T>(
        &self,
        key: &str,
        action: impl FnOnce(&mut Record, SystemTime) -> ApiResult<T>,
    ) -> ApiResult<T> {
        let now = self.now();
        self.store().find(key).ok_or_else(|| ApiError::no_sandbox(key)).and_then(|record| action(record, now))
    }
}

impl Store {
    /// What is on record.
    pub(super) fn statistics(&self) -> Statistics {
        let stays = |record: &&Record| record.desired != DesiredState::Destroyed;
        let left = self.sandboxes.values().filter(stays).count() as u64;
        Statistics { created: self.created, deleted: self.created - left, left }
    }

    /// The sandbox of this id or else name, unless it is hidden.
    pub(super) fn find(&mut self, key: &str) -> Option<&mut Record> {
        let id = if self.sandboxes.contains_key(key) { key } else { self.names.get(key)?.as_str() };
        self.sandboxes.get_mut(id).filter(|record| !record.is_hidden())
    }

    /// Gives the sandbox another name. The caller has checked that it is free.
    pub(super) fn rename(&mut self, id: &str, name: String) {
        if let Some(record) = self.sandboxes.get_mut(id) {
            let old = std::mem::replace(&mut record.sandbox.name, name.clone());
            self.names.remove(&old);
            self.names.insert(name, id.to_owned());
        }
    }

    /// Forgets a sandbox.
    pub(super) fn forget(&mut self, id: &str) {
        if let Some(record) = self.sandboxes.remove(id) {
            // two deletions of one name within a millisecond give the same new name
            if self.names.get(&record.sandbox.name).is_some_and(|owner| owner == id) {
                self.names.remove(&record.sandbox.name);
            }
            self.access.forget(id);
        }
    }
}

/// Waits until a server ends. Never holds the lock of the channel beyond that.
pub(super) async fn closed(mut closing: watch::Receiver<bool>) {
    // a sender that is gone has ended as well
    let _ = closing.wait_for(|closing| *closing).await;
}

/// A random UUID.
pub(super) fn uuid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// A random token of `length` lowercase letters and digits, at most 64.
pub(super) fn token(length: usize) -> String {
    let mut token = random_hex();
    token.truncate(length);
    token
}

fn random_key() -> SecretString {
    SecretString::from(format!("dtn_{}", random_hex()))
}

fn random_hex() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}
