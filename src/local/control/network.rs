//! Which network a sandbox has, and changes of it.

use super::error::{ApiError, ApiResult};
use super::record::Record;
use super::state::Control;
use super::validate;
use crate::api::sandbox::{NetworkSettings, Sandbox, SandboxState};
use crate::error::ErrorKind;
use crate::local::engine::NetworkChoice;
use crate::local::spec::{Access, Network};

impl Control {
    /// Refuses settings that cannot be kept. Lists beside a block have no effect, but must be lists.
    pub(super) fn check_network(
        &self,
        blocks: bool,
        networks: Option<&str>,
        domains: Option<&str>,
    ) -> ApiResult<()> {
        if validate::access(networks, domains)?.is_none() || blocks {
            return Ok(());
        }
        match &self.engine.isolation().no_gateway {
            None => Ok(()),
            // leaving a list out would open the network further than was asked
            Some(reason) => Err(ApiError::bad_request(format!(
                "Local Daytona cannot enforce networkAllowList and domainAllowList on this machine ({reason}); it can \
                 block all network access (networkBlockAll) or none"
            ))),
        }
    }

    /// The network that the settings of a sandbox ask for.
    ///
    /// One in which containers run never has the machine's: their engine changes interfaces and firewall.
    pub(super) fn network(&self, sandbox: &Sandbox, nesting: bool) -> Network {
        if sandbox.network_block_all {
            return Network::Blocked;
        }
        let (networks, domains) =
            (sandbox.network_allow_list.as_deref(), sandbox.domain_allow_list.as_deref());
        match validate::access(networks, domains) {
            Ok(Some(access)) => Network::Gateway(access),
            // lists are checked before they are stored
            Err(_) => Network::Blocked,
            Ok(None) => {
                let machine = self.options.network.choice == NetworkChoice::Machine;
                match (self.engine.isolation().no_gateway.is_some(), nesting) {
                    (true, true) => Network::Blocked,
                    (true, false) => Network::Host,
                    (false, false) if machine => Network::Host,
                    (false, _) => Network::Gateway(Access::Everything),
                }
            }
        }
    }

    /// Changes the network of a sandbox, also of one that runs.
    pub(super) async fn change_network(&self, key: &str, settings: NetworkSettings) -> ApiResult<Sandbox> {
        let _turn = self.network_changes.lock().await;
        let (id, before, network, differs) = self.with(key, |record, now| {
            let mut after = record.sandbox.clone();
            apply(&mut after, settings);
            let (networks, domains) =
                (after.network_allow_list.as_deref(), after.domain_allow_list.as_deref());
            self.check_network(after.network_block_all, networks, domains)?;
            let nesting = record.has_nesting();
            let (former, latter) = (self.network(&record.sandbox, nesting), self.network(&after, nesting));
            let runs = record.state == SandboxState::Started;
            if record.is_pending() && former != latter {
                return Err(ApiError::busy());
            }
            let before = std::mem::replace(&mut record.sandbox, after);
            record.updated_at = now;
            Ok((record.sandbox.id.clone(), before, latter.clone(), runs && former != latter))
        })?;
        if differs {
            // stored first, so that a start meanwhile has the new one
            let changed = self.engine.change_network(id.clone(), network).await;
            if let Err(error) = changed {
                self.with(&id, |record, _| {
                    restore(record, before);
                    Ok(())
                })?;
                return Err(match error.kind() {
                    ErrorKind::Unsupported => ApiError::bad_request(format!(
                        "Local Daytona cannot change the network of this sandbox: {}; stop it first",
                        error.message()
                    )),
                    _ => ApiError::bad_request(error.to_string()),
                });
            }
        }
        self.reschedule.notify_one();
        self.with(&id, |record, _| Ok(record.view()))
    }
}

/// Puts settings into a sandbox: blocking clears the lists, a list ends the blocking, an empty one is none. Of both at
/// once, both are kept, and the sandbox is blocked.
fn apply(sandbox: &mut Sandbox, settings: NetworkSettings) {
    let NetworkSettings { network_block_all, network_allow_list, domain_allow_list } = settings;
    let text = |list: &Option<String>| list.as_ref().is_some_and(|list| !list.trim().is_empty());
    let lists = text(&network_allow_list) || text(&domain_allow_list);
    match network_block_all {
        Some(true) => (sandbox.network_allow_list, sandbox.domain_allow_list) = (None, None),
        Some(false) if !lists => sandbox.network_allow_list = None,
        Some(false) | None => {}
    }
    sandbox.network_block_all = network_block_all.unwrap_or(sandbox.network_block_all && !lists);
    for (list, stored) in [
        (network_allow_list, &mut sandbox.network_allow_list),
        (domain_allow_list, &mut sandbox.domain_allow_list),
    ] {
        if let Some(list) = list {
            *stored = Some(list).filter(|list| !list.trim().is_empty());
        }
    }
}

fn restore(record: &mut Record, before: Sandbox) {
    record.sandbox.network_block_all = before.network_block_all;
    record.sandbox.network_allow_list = before.network_allow_list;
    record.sandbox.domain_allow_list = before.domain_allow_list;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(stored: (bool, Option<&str>), asked: (Option<bool>, Option<&str>)) -> (bool, Option<String>) {
        let mut sandbox = Sandbox {
            network_block_all: stored.0,
            network_allow_list: stored.1.map(str::to_owned),
            ..Sandbox::default()
        };
        let settings = NetworkSettings {
            network_block_all: asked.0,
            network_allow_list: asked.1.map(str::to_owned),
            domain_allow_list: None,
        };
        apply(&mut sandbox, settings);
        (sandbox.network_block_all, sandbox.network_allow_list)
    }

    #[test]
    fn blocking_and_the_list_of_networks_replace_each_other() {
        let list = Some("10.0.0.0/8");
        let listed = (false, Some("10.0.0.0/8".to_owned()));
        assert_eq!(after((false, list), (Some(true), None)), (true, None));
        assert_eq!(after((true, None), (None, list)), listed);
        assert_eq!(after((false, list), (Some(false), None)), (false, None));
        assert_eq!(after((false, list), (None, Some(""))), (false, None));
        assert_eq!(after((false, list), (None, None)), listed);
    }

    #[test]
    fn of_a_block_and_a_list_at_once_both_are_kept() {
        let list = Some("10.0.0.0/8");
        let both = (true, Some("10.0.0.0/8".to_owned()));
        for before in [(false, None), (true, None), (false, Some("192.0.2.0/24"))] {
            assert_eq!(after(before, (Some(true), list)), both);
        }
        assert_eq!(after((true, list), (Some(false), None)), (false, None));
        assert_eq!(after((true, list), (None, None)), both);
    }
}
