//! What a sandbox may reach.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::local::spec::{Access, GATEWAY_NETWORK};

/// Addresses of names that are remembered; the oldest are forgotten beyond.
const LEARNED: usize = 4096;

/// The rules of one sandbox.
#[derive(Debug)]
pub(super) struct Rules(Mutex<State>);

#[derive(Debug)]
struct State {
    access: Access,
    /// The names, of those allowed, for which an address was told to the sandbox.
    learned: HashMap<Ipv4Addr, String>,
    order: VecDeque<Ipv4Addr>,
}

impl Rules {
    pub(super) fn new(access: Access) -> Self {
        Self(Mutex::new(State { access, learned: HashMap::new(), order: VecDeque::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // every change is whole, so what a panic leaves is as well
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the sandbox may send to this address.
    pub(super) fn allows(&self, address: Ipv4Addr) -> bool {
        if is_nobodys(address) {
            return false;
        }
        let state = self.state();
        match &state.access {
            Access::Everything => !address.is_link_local(),
            Access::Networks(networks) => networks.iter().any(|network| network.contains(address)),
            Access::Domains(_) => !address.is_link_local() && state.learned.contains_key(&address),
        }
    }

    /// Whether the sandbox may know what this name means.
    pub(super) fn names(&self, name: &str) -> bool {
        match &self.state().access {
            Access::Everything | Access::Networks(_) => true,
            Access::Domains(domains) => covers(domains, name),
        }
    }

    /// Whether names are asked from this name server for the sandbox. A query is a message to whoever owns the name, so
    /// with a list of networks none leaves them.
    pub(super) fn asks(&self, server: std::net::IpAddr) -> bool {
        match (&self.state().access, server) {
            (Access::Everything | Access::Domains(_), _) => true,
            (Access::Networks(networks), std::net::IpAddr::V4(server)) => {
                networks.iter().any(|network| network.contains(server))
            }
            (Access::Networks(_), std::net::IpAddr::V6(_)) => false,
        }
    }

    /// Whether answers are told only as far as the gateway understands them.
    pub(super) fn is_by_name(&self) -> bool {
        matches!(self.state().access, Access::Domains(_))
    }

    /// Notes that the sandbox was told the addresses of a name.
    pub(super) fn learn(&self, name: &str, addresses: impl IntoIterator<Item = Ipv4Addr>) {
        let mut state = self.state();
        let State { access: Access::Domains(domains), learned, order } = &mut *state else { return };
        if !covers(domains, name) {
            return;
        }
        for address in addresses {
            if learned.insert(address, name.to_owned()).is_none() {
                order.push_back(address);
            }
        }
        while order.len() > LEARNED {
            if let Some(oldest) = order.pop_front() {
                learned.remove(&oldest);
            }
        }
    }

    /// Changes the rules. Addresses of names that stay allowed do so too.
    pub(super) fn change(&self, access: Access) {
        let mut state = self.state();
        let State { learned, order, .. } = &mut *state;
        match &access {
            Access::Domains(domains) => learned.retain(|_, name| covers(domains, name)),
            _ => learned.clear(),
        }
        order.retain(|address| learned.contains_key(address));
        state.access = access;
    }
}

/// Addresses that no list opens: the machine's loopback interface is not the sandbox's, and the others are nobody's.
fn is_nobodys(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first == 0 || address.is_loopback() || first >= 224 || GATEWAY_NETWORK.contains(address)
}

/// Whether a list of domains has this name. Upper and lower case are the same, and so is a final dot.
fn covers(domains: &[String], name: &str) -> bool {
    let name = normal(name);
    domains.iter().any(|domain| {
        let domain = normal(domain);
        match domain.strip_prefix("*.") {
            Some(parent) => {
                name.strip_suffix(parent).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            None => name == domain,
        }
    })
}

fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::spec::Cidr;

    const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

    fn domains(names: &[&str]) -> Access {
        Access::Domains(names.iter().map(|&name| name.to_owned()).collect())
    }

    #[test]
    fn a_star_covers_every_name_below_and_a_name_only_itself() {
        let list = ["Example.org".to_owned(), "*.example.com".to_owned()];
        for name in ["example.org", "EXAMPLE.ORG.", "a.example.com", "a.b.example.com"] {
            assert!(covers(&list, name), "{name}");
        }
        for name in
            ["www.example.org", "example.com", "badexample.com", ".example.com", "example.org.evil.net", ""]
        {
            assert!(!covers(&list, name), "{name}");
        }
    }

    #[test]
    fn an_address_is_reached_only_after_an_allowed_name_has_led_to_it() {
        let rules = Rules::new(domains(&["a.test"]));
        assert!(!rules.allows(HOST));
        rules.learn("b.test", [HOST]);
        assert!(!rules.allows(HOST));
        rules.learn("a.test", [HOST]);
        assert!(rules.allows(HOST));
        rules.change(domains(&["a.test", "c.test"]));
        assert!(rules.allows(HOST), "its name is still allowed");
        rules.change(domains(&["c.test"]));
        assert!(!rules.allows(HOST));
    }

    #[test]
    fn no_rule_opens_the_machines_loopback_interface() {
        let all = Access::Networks(vec![Cidr::parse("0.0.0.0/0").unwrap()]);
        for access in [Access::Everything, all] {
            let rules = Rules::new(access);
            assert!(rules.allows(HOST));
            for address in ["127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "198.18.0.1"] {
                assert!(!rules.allows(address.parse().unwrap()), "{address}");
            }
        }
    }

    #[test]
    fn the_metadata_of_cloud_machines_must_be_asked_for() {
        let metadata = Ipv4Addr::new(169, 254, 169, 254);
        assert!(!Rules::new(Access::Everything).allows(metadata));
        let listed = Access::Networks(vec![Cidr::parse("169.254.169.254/32").unwrap()]);
        assert!(Rules::new(listed).allows(metadata));
        let named = Rules::new(domains(&["a.test"]));
        named.learn("a.test", [metadata]);
        assert!(!named.allows(metadata));
    }

    #[test]
    fn queries_stay_within_a_list_of_networks() {
        let rules = Rules::new(Access::Networks(vec![Cidr::parse("10.0.0.0/8").unwrap()]));
        assert!(rules.asks("10.0.0.53".parse().unwrap()));
        assert!(!rules.asks("127.0.0.53".parse().unwrap()) && !rules.asks("::1".parse().unwrap()));
    }

    #[test]
    fn the_oldest_addresses_are_forgotten() {
        let rules = Rules::new(domains(&["a.test"]));
        let address = |number: u32| Ipv4Addr::from(0x0A00_0000 + number);
        let count = u32::try_from(LEARNED).unwrap() + 1;
        rules.learn("a.test", (0..count).map(address));
        assert!(!rules.allows(address(0)) && rules.allows(address(count - 1)));
    }
}
