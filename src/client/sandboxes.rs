//! Sandboxes of the control plane.

use std::collections::{BTreeMap, HashSet};
use std::sync::PoisonError;

use super::{CONTROL_DEADLINE, Client, LONG_POLL_DEADLINE};
use crate::api::routes::sandbox as routes;
use crate::api::sandbox::{PreviewUrl, Sandbox, SandboxPage, SandboxState, SshAccess, Url};
use crate::{Error, ErrorKind, Result};

/// The largest page that all servers give.
const PAGE: u32 = 200;
/// 200 000 sandboxes: more than any account has, so that a server whose pages never end is noticed.
const MOST_PAGES: usize = 1000;

/// Sandboxes of the control plane. `sandbox` is an id or a name where it is called so; ids are the stable handle,
/// since the name changes when deletion begins.
#[derive(Clone, Debug)]
pub struct Sandboxes(pub(super) Client);

impl Sandboxes {
    /// Reads one.
    ///
    /// # Errors
    /// `NotFound` if there is none; use [`find`](Self::find) where that is no error.
    pub async fn get(&self, sandbox: &str) -> Result<Sandbox> {
        let route = routes::get(sandbox)?;
        self.0.json(&route, CONTROL_DEADLINE).await.map_err(|error| error.with_sandbox(sandbox))
    }

    /// Reads one, if it exists.
    ///
    /// # Errors
    /// Whatever keeps the server from saying so.
    pub async fn find(&self, sandbox: &str) -> Result<Option<Sandbox>> {
        match self.get(sandbox).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            result => result.map(Some),
        }
    }

    /// All sandboxes that carry all of `labels`, from all pages, each once; those being deleted are left out.
    /// The list lags behind by seconds: confirm with [`find`](Self::find) by id before concluding anything from it.
    ///
    /// # Errors
    /// `Protocol` if the pages don't end.
    pub async fn list(&self, labels: &BTreeMap<String, String>) -> Result<Vec<Sandbox>> {
        let mut seen = HashSet::new();
        let mut sandboxes = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let route = routes::list(labels, cursor.as_deref(), PAGE)?;
            let page: SandboxPage = self.0.json(&route, CONTROL_DEADLINE).await?;
            for sandbox in page.items {
                if !sandbox.is_being_deleted() && seen.insert(sandbox.id.clone()) {
                    sandboxes.push(sandbox);
                }
            }
            match page.next_cursor.filter(|next| !next.is_empty()) {
                None => return Ok(sandboxes),
                next if next == cursor => break,
                next => cursor = next,
            }
        }
        Err(Error::new(ErrorKind::Protocol, "the server's list does not end")
            .with_operation("list sandboxes"))
    }

    /// Starts one and returns what the server says after up to 30 s; wait with
    /// [`wait_started`](Self::wait_started). A started one stays as it is.
    ///
    /// # Errors
    /// `InvalidRequest` if its state does not allow that, `QuotaExceeded` if the account is full.
    pub async fn start(&self, sandbox: &str) -> Result<Sandbox> {
        let route = routes::start(sandbox)?;
        self.0.json(&route, LONG_POLL_DEADLINE).await.map_err(|error| error.with_sandbox(sandbox))
    }

    /// Asks for a stop, by SIGKILL with `force`. A stopped one stays as it is; an ephemeral one is deleted instead.
    ///
    /// # Errors
    /// `NotFound` if there is none, `Conflict` if another change goes on for too long.
    pub async fn stop(&self, sandbox: &str, force: bool) -> Result<()> {
        let route = routes::stop(sandbox, force)?;
        let error = match self.0.done(&route, CONTROL_DEADLINE).await {
            Err(error) if error.kind() == ErrorKind::InvalidRequest => error,
            result => return result.map_err(|error| error.with_sandbox(sandbox)),
        };
        // the server calls it an error to stop what is stopped
        match self.get(sandbox).await {
            Ok(found) if is_stopped(found.state) || found.is_being_deleted() => Ok(()),
            _ => Err(error.with_sandbox(sandbox)),
        }
    }

    /// Replaces all labels.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub async fn set_labels(&self, sandbox: &str, labels: &BTreeMap<String, String>) -> Result<()> {
        let route = routes::set_labels(sandbox, labels)?;
        self.0.done(&route, CONTROL_DEADLINE).await.map_err(|error| error.with_sandbox(sandbox))
    }

    /// Lets the server destroy it `minutes` from now, whatever its state; 0 takes that back.
    /// Returns the sandbox, whose `auto_destroy_at` tells what the server made of it.
    ///
    /// # Errors
    /// `Unsupported` by servers before 0.205, `NotFound` if there is no such sandbox.
    pub async fn set_ttl(&self, sandbox: &str, minutes: u32) -> Result<Sandbox> {
        let route = routes::set_ttl(sandbox, minutes)?;
        self.0.json(&route, CONTROL_DEADLINE).await.map_err(|error| error.with_sandbox(sandbox))
    }

    /// Lets it stop after `minutes` without activity; 0 is never.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub async fn set_auto_stop(&self, sandbox: &str, minutes: u32) -> Result<()> {
        let route = routes::set_auto_stop(sandbox, minutes)?;
        self.0.done(&route, CONTROL_DEADLINE).await.map_err(|error| error.with_sandbox(sandbox))
    }

    /// Counts as activity, so that auto-stop begins anew.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub async fn keep_alive(&self, id: &str) -> Result<()> {
        let route = routes::keep_alive(id)?;
        self.0.done(&route, CONTROL_DEADLINE).await.map_err(|error| error.with_sandbox(id))
    }

    /// The URL of a port (1 to 65535) and its token, which changes with every start.
    ///
    /// # Errors
    /// `NotFound` if there is no such sandbox.
    pub async fn preview_url(&self, sandbox: &str, port: u16) -> Result<PreviewUrl> {
        let route = routes::preview_url(sandbox, port)?;
        self.0.json(&route, CONTROL_DEADLINE).await.map_err(|error| error.with_sandbox(sandbox))
    }

    /// The URL of a port with the token in its host name, valid for `seconds` (1 to 86400).
    ///
    /// # Errors
    /// `NotFound` if there is no such sandbox.
    pub async fn signed_preview_url(&self, sandbox: &str, port: u16, seconds: u32) -> Result<PreviewUrl> {
        let route = routes::signed_preview_url(sandbox, port, seconds)?;
        self.0.json(&route, CONTROL_DEADLINE).await.map_err(|error| error.with_sandbox(sandbox))
    }

    /// A new SSH token, valid for `minutes`. Earlier tokens of the sandbox end.
    ///
    /// # Errors
    /// `NotFound` if there is no such sandbox.
    pub async fn ssh_access(&self, sandbox: &str, minutes: u32) -> Result<SshAccess> {
        let route = routes::ssh_access(sandbox, minutes)?;
        self.0.json(&route, CONTROL_DEADLINE).await.map_err(|error| error.with_sandbox(sandbox))
    }

    /// Ends all SSH tokens of the sandbox.
    ///
    /// # Errors
    /// `NotFound` if there is no such sandbox.
    pub async fn revoke_ssh_access(&self, sandbox: &str) -> Result<()> {
        let route = routes::revoke_ssh_access(sandbox)?;
        self.0.done(&route, CONTROL_DEADLINE).await.map_err(|error| error.with_sandbox(sandbox))
    }

    /// Base of the sandbox's toolbox URLs, without its id: from the sandbox, else asked for once per region.
    ///
    /// # Errors
    /// `NotFound` if there is no such sandbox.
    pub async fn toolbox_url(&self, sandbox: &Sandbox) -> Result<String> {
        if let Some(url) = sandbox.toolbox_proxy_url.as_deref().filter(|url| !url.is_empty()) {
            return Ok(url.trim_end_matches('/').to_owned());
        }
        let cache = &self.0.0.toolbox_urls;
        let known = cache.lock().unwrap_or_else(PoisonError::into_inner).get(&sandbox.target).cloned();
        if let Some(url) = known {
            return Ok(url);
        }
        let route = routes::toolbox_url(&sandbox.id)?;
        let answer: Url =
            self.0.json(&route, CONTROL_DEADLINE).await.map_err(|error| error.with_sandbox(&sandbox.id))?;
        let url = answer.url.trim_end_matches('/').to_owned();
        if !sandbox.target.is_empty() {
            cache.lock().unwrap_or_else(PoisonError::into_inner).insert(sandbox.target.clone(), url.clone());
        }
        Ok(url)
    }
}

fn is_stopped(state: SandboxState) -> bool {
    matches!(
        state,
        SandboxState::Stopped | SandboxState::Stopping | SandboxState::Archived | SandboxState::Archiving
    )
}
