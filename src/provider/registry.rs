//! Which sandboxes of a run exist, or may exist. An entry is made before the request that creates its sandbox, and
//! goes only when the sandbox is known to be gone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Where a sandbox is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The create request is about to be sent, under way, or its outcome is unknown.
    Creating,
    /// It exists.
    Alive,
    /// A delete is under way.
    Deleting,
    /// A delete failed, for this reason; it may still exist.
    Left(String),
}

/// What is known of one sandbox.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) phase: Phase,
    /// The platform's id, once it answered.
    pub(super) id: Option<String>,
    /// Nobody wants it any more: whoever finishes its creation deletes it.
    pub(super) doomed: bool,
    /// The server supports a time-to-live on it, which must be extended while it lives.
    pub(super) expires: bool,
    /// The account's limits refused it, so that it holds nothing of them; its creation may ask again.
    pub(super) refused: bool,
    successor: Successor,
}

/// Whether another sandbox is created under the name of one that is deleted, unless it is doomed by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Successor {
    None,
    Another,
}

impl Entry {
    /// One that is about to be created.
    fn new() -> Self {
        Self {
            phase: Phase::Creating,
            id: None,
            doomed: false,
            expires: false,
            refused: false,
            successor: Successor::None,
        }
    }
}

/// The entries of a run by sandbox name.
#[derive(Debug, Default)]
pub(super) struct Registry {
    entries: Mutex<BTreeMap<String, Entry>>,
    /// Woken at every change, so that waiting needs no polling.
    changed: Notify,
    counts: Mutex<Counts>,
    deletions: Deletions,
    used: AtomicBool,
}

/// When a sandbox was deleted last: the platform may still be at it, and until then it counts for the account's limits,
/// also for the next run. Cheap to clone; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Deletions(Arc<Mutex<Option<Instant>>>);

impl Deletions {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether the last one was less than `time` ago.
    pub(super) fn within(&self, time: Duration) -> bool {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last.elapsed() < time)
    }
}

/// How many sandboxes a run has had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Created, and known to have been.
    pub created: u64,
    /// Deleted, and known to be gone or going.
    pub deleted: u64,
}

impl Registry {
    /// Entries of a run that shares `deletions` with those before it.
    pub(super) fn after(deletions: Deletions) -> Self {
        Self { deletions, ..Self::default() }
    }

    pub(super) fn deletions(&self) -> &Deletions {
        &self.deletions
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // a panic elsewhere must not hide sandboxes that cost money
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a sandbox that is about to be created.
    pub(super) fn record(&self, name: &str) {
        self.used.store(true, Ordering::Relaxed);
        self.entries().insert(name.to_owned(), Entry::new());
        self.changed.notify_waiters();
    }

    /// Notes the id, as soon as the platform told it. Returns whether the sandbox is still wanted.
    pub(super) fn identified(&self, name: &str, id: &str, expires: bool) -> bool {
        self.lock_counts().created += 1;
        let mut entries = self.entries();
        // one that was given up before its answer came is back on the account, to be deleted
        let entry = entries.entry(name.to_owned()).or_insert(Entry { doomed: true, ..Entry::new() });
        entry.id = Some(id.to_owned());
        entry.expires = expires;
        !entry.doomed
    }

    /// Notes whether the last create request was refused for the account's limits.
    pub(super) fn set_refused(&self, name: &str, refused: bool) {
        if let Some(entry) = self.entries().get_mut(name) {
            entry.refused = refused;
        }
    }

    /// Marks a sandbox as unwanted. Returns whether it exists now and nobody deletes it yet.
    pub(super) fn doom(&self, name: &str) -> bool {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(name) else { return false };
        entry.doomed = true;
        let exists = matches!(entry.phase, Phase::Alive | Phase::Left(_));
        drop(entries);
        self.changed.notify_waiters();
        exists
    }

    /// Marks every sandbox as unwanted: creations under way delete what they make.
    pub(super) fn doom_all(&self) {
        self.entries().values_mut().for_each(|entry| entry.doomed = true);
        self.changed.notify_waiters();
    }

    /// Whether any sandbox was ever about to be created.
    pub(super) fn was_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Moves an entry on. Returns `false` if there is none.
    pub(super) fn set_phase(&self, name: &str, phase: Phase) -> bool {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(name) else { return false };
        // what stays needs the name
        if matches!(phase, Phase::Left(_)) {
            entry.successor = Successor::None;
        }
        entry.phase = phase;
        drop(entries);
        self.changed.notify_waiters();
        true
    }

    /// The creation succeeded. Returns `false` if the sandbox was given up meanwhile.
    pub(super) fn became_alive(&self, name: &str) -> bool {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(name) else { return false };
        entry.phase = Phase::Alive;
        let wanted = !entry.doomed;
        drop(entries);
        self.changed.notify_waiters();
        wanted
    }

    /// Lets another sandbox take the place of one as soon as that is deleted. There is no moment without an entry in
    /// between, in which giving it up, or the end of the run, would not be noticed.
    pub(super) fn set_replaced(&self, name: &str) {
        if let Some(entry) = self.entries().get_mut(name) {
            entry.successor = Successor::Another;
        }
    }

    /// Forgets a sandbox that never was, or is gone (`deleted`).
    pub(super) fn remove(&self, name: &str, deleted: bool) {
        let mut entries = self.entries();
        let removed = entries.remove(name);
        if removed.as_ref().is_some_and(|entry| entry.successor == Successor::Another && !entry.doomed) {
            entries.insert(name.to_owned(), Entry::new());
        }
        drop(entries);
        if removed.is_some() && deleted {
            self.lock_counts().deleted += 1;
            self.deletions.note();
        }
        self.changed.notify_waiters();
    }

    /// An entry.
    pub(super) fn get(&self, name: &str) -> Option<Entry> {
        self.entries().get(name).cloned()
    }

    /// All entries.
    pub(super) fn all(&self) -> Vec<(String, Entry)> {
        self.entries().iter().map(|(name, entry)| (name.clone(), entry.clone())).collect()
    }

    /// Waits until `condition` holds for the entries.
    pub(super) async fn wait_until(&self, condition: impl Fn(&BTreeMap<String, Entry>) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // registered before the look, so that no change falls between the two
            changed.as_mut().enable();
            if condition(&self.entries()) {
                return;
            }
            changed.await;
        }
    }

    /// Waits for any change, for example for a sandbox to end.
    pub(super) async fn wait_for_change(&self) {
        self.changed.notified().await;
    }

    fn lock_counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many sandboxes there have been.
    pub(super) fn counts(&self) -> Counts {
        *self.lock_counts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_given_up_during_creation_is_not_wanted_when_it_arrives() {
        let registry = Registry::default();
        registry.record("a");
        assert!(!registry.doom("a"), "its creator deletes it");
        assert!(!registry.identified("a", "id", false));
    }

    #[test]
    fn a_sandbox_given_up_when_it_lives_must_be_deleted_by_the_caller() {
        let registry = Registry::default();
        registry.record("a");
        assert!(registry.identified("a", "id", false));
        assert!(registry.became_alive("a"));
        assert!(registry.doom("a"));
    }

    #[test]
    fn counts_tell_created_and_deleted() {
        let registry = Registry::default();
        registry.record("a");
        registry.record("b");
        registry.identified("a", "id", false);
        registry.remove("a", true);
        registry.remove("a", true);
        registry.remove("b", false);
        assert_eq!(registry.counts(), Counts { created: 1, deleted: 1 });
    }

    #[test]
    fn a_sandbox_is_replaced_once_and_unless_it_was_given_up() {
        let registry = Registry::default();
        registry.record("a");
        registry.identified("a", "id", false);
        registry.set_replaced("a");
        registry.set_phase("a", Phase::Deleting);
        registry.remove("a", true);
        let entry = registry.get("a").expect("the next one's");
        assert_eq!((entry.phase, entry.id), (Phase::Creating, None));
        registry.set_replaced("a");
        registry.doom("a");
        registry.remove("a", true);
        assert!(registry.get("a").is_none());
        assert_eq!(registry.counts(), Counts { created: 1, deleted: 2 });
    }

    #[tokio::test]
    async fn waiting_ends_with_the_change_that_fulfils_it() {
        let registry = std::sync::Arc::new(Registry::default());
        registry.record("a");
        let waiting = tokio::spawn({
            let registry = std::sync::Arc::clone(&registry);
            async move { registry.wait_until(BTreeMap::is_empty).await }
        });
        registry.remove("a", false);
        waiting.await.expect("the wait ends");
    }
}
