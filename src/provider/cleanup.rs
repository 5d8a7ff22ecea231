//! Finds and deletes sandboxes of earlier runs: `inspect sandbox cleanup daytona [id]`.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt};

use super::names::{CREATED_BY, CREATED_BY_INSPECT};
use super::run::DELETE_PATIENCE;
use crate::api::sandbox::{DesiredState, Sandbox, SandboxState};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};

/// How many deletes run at once.
const PARALLEL_DELETES: usize = 16;

/// Every sandbox of the account that an Inspect eval created, over all pages, without those on their way out.
///
/// # Errors
///
/// If the list cannot be read.
pub async fn created_by_inspect(client: &Client) -> Result<Vec<Sandbox>> {
    let labels = BTreeMap::from([(CREATED_BY.to_owned(), CREATED_BY_INSPECT.to_owned())]);
    let mut sandboxes = client.sandboxes().list(&labels).await?;
    sandboxes.retain(|sandbox| {
        sandbox.state != SandboxState::Destroying && sandbox.desired_state != Some(DesiredState::Destroyed)
    });
    Ok(sandboxes)
}

/// The sandbox with this id or name.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if there is none; [`ErrorKind::InvalidRequest`] if it is not one of an Inspect eval.
pub async fn find(client: &Client, id_or_name: &str) -> Result<Sandbox> {
    let Some(sandbox) = client.sandboxes().find(id_or_name).await? else {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("there is no sandbox with the id or name {id_or_name}"),
        ));
    };
    if sandbox.labels.get(CREATED_BY).map(String::as_str) != Some(CREATED_BY_INSPECT) {
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            format!("sandbox {id_or_name} was not created by an Inspect eval, so it is left alone"),
        )
        .with_hint("Delete it in Daytona's dashboard or with its CLI"));
    }
    Ok(sandbox)
}

/// Deletes sandboxes by id, several at once; returns an error for each that could not be deleted.
///
/// # Errors
///
/// [`ErrorKind::Forbidden`] if the first was not allowed to be deleted: then none of the others is, and none was tried.
pub async fn delete_all(client: &Client, ids: Vec<String>) -> Result<Vec<(String, Error)>> {
    let delete = |id: String| async move {
        let result = client.sandboxes().delete(&id, DELETE_PATIENCE).await;
        result.err().map(|error| (id, error))
    };
    let mut ids = ids.into_iter();
    let Some(first) = ids.next() else { return Ok(Vec::new()) };
    let mut failed = Vec::from_iter(delete(first).await);
    if let Some((_, error)) = failed.pop_if(|(_, error)| error.kind() == ErrorKind::Forbidden) {
        let suspended = error.message().contains("suspended");
        return Err(error.with_hint(if suspended {
            "Ask the owner of the Daytona organization"
        } else {
            "The API key lacks the permission delete:sandboxes; use one that has it, or Daytona's dashboard"
        }));
    }
    failed.extend(
        stream::iter(ids.map(delete))
            .buffer_unordered(PARALLEL_DELETES)
            .filter_map(|failed| async { failed })
            .collect::<Vec<_>>()
            .await,
    );
    Ok(failed)
}
