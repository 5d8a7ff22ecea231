//! Snapshots of the control plane.

use std::sync::atomic::{AtomicBool, Ordering};

use super::classify::advise;
use super::retry::{Effect, Failure, Random, retry};
use super::{CONTROL_DEADLINE, Client};
use crate::api::routes::snapshot as routes;
use crate::api::snapshot::{CreateSnapshot, Snapshot, SnapshotPage};
use crate::{Error, ErrorKind, Result};

/// The largest page that all servers give.
const PAGE: u32 = 200;
/// So that a server whose pages never end is noticed.
const MOST_PAGES: u32 = 1000;

/// Snapshots of the control plane.
#[derive(Clone, Debug)]
pub struct Snapshots(pub(super) Client);

impl Snapshots {
    /// Reads one by id or name.
    ///
    /// # Errors
    /// `NotFound` if there is none; use [`find`](Self::find) where that is no error.
    pub async fn get(&self, snapshot: &str) -> Result<Snapshot> {
        self.0.json(&routes::get(snapshot)?, CONTROL_DEADLINE).await
    }

    /// Reads one by id or name, if it exists.
    ///
    /// # Errors
    /// Whatever keeps the server from saying so.
    pub async fn find(&self, snapshot: &str) -> Result<Option<Snapshot>> {
        match self.get(snapshot).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            result => result.map(Some),
        }
    }

    /// All snapshots whose name contains `name` in any case, from all pages, each once.
    ///
    /// # Errors
    /// `Protocol` if the pages don't end.
    pub async fn list(&self, name: Option<&str>) -> Result<Vec<Snapshot>> {
        let mut snapshots: Vec<Snapshot> = Vec::new();
        for number in 1..=MOST_PAGES {
            let page: SnapshotPage = self.0.json(&routes::list(name, number, PAGE), CONTROL_DEADLINE).await?;
            let last = page.items.is_empty() || u64::from(number) >= page.total_pages;
            for snapshot in page.items {
                if !snapshots.iter().any(|known| known.id == snapshot.id) {
                    snapshots.push(snapshot);
                }
            }
            if last {
                return Ok(snapshots);
            }
        }
        Err(Error::new(ErrorKind::Protocol, "the server's list does not end")
            .with_operation("list snapshots"))
    }

    /// Creates one and returns at once, usually `pending`. If the answer is lost, the one of that name is returned:
    /// so names should say what they hold, for example by a hash of it.
    ///
    /// # Errors
    /// `AlreadyExists` if the name was taken before; a [`get`](Self::get) may still not see it for some seconds.
    /// `QuotaExceeded` if the account may not have more.
    pub async fn create(&self, request: &CreateSnapshot) -> Result<Snapshot> {
        let route = routes::create(request)?;
        let maybe_created = AtomicBool::new(false);
        retry(&self.0.options().retry, Random::from_entropy(), true, || async {
            let failure = match self.0.attempt_json(self.0.control(&route, CONTROL_DEADLINE)).await {
                Ok(snapshot) => return Ok(snapshot),
                Err(failure) => failure,
            };
            if failure.error.kind() == ErrorKind::AlreadyExists && maybe_created.load(Ordering::Relaxed) {
                let route = routes::get(&request.name).map_err(Failure::refused)?;
                return self.0.attempt_json(self.0.control(&route, CONTROL_DEADLINE)).await.map_err(
                    |mut failure| {
                        if failure.error.kind() == ErrorKind::NotFound {
                            failure.error = failure.error.temporary();
                        }
                        failure
                    },
                );
            }
            if failure.effect == Effect::Possible {
                maybe_created.store(true, Ordering::Relaxed);
            }
            Err(failure)
        })
        .await
        .map_err(|error| advise(error).with_operation(route.operation))
    }

    /// Deletes one by id; it vanishes some seconds later. One that does not exist is done.
    ///
    /// # Errors
    /// `Forbidden` for a general snapshot, or if the key lacks `delete:snapshots`.
    pub async fn delete(&self, id: &str) -> Result<()> {
        match self.0.done(&routes::delete(id)?, CONTROL_DEADLINE).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Makes an inactive one usable, by id.
    ///
    /// # Errors
    /// `InvalidRequest` if it is not inactive, or was made inactive less than ten minutes ago.
    pub async fn activate(&self, id: &str) -> Result<Snapshot> {
        self.0.json(&routes::activate(id)?, CONTROL_DEADLINE).await
    }
}
