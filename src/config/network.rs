//! Networks, ports and hosts of a service.

use std::net::IpAddr;

use super::keys::{MEMBERSHIP, NETWORK, PORT};
use super::node::{Mapping, Node, Value};
use super::plan::{Network, Port};
use super::problem::{Place, Problem, Read};
use super::reading::Reading;
use super::units::port_range;

/// The most ports of one range: all that a machine has would make a useless plan.
const LONGEST_RANGE: usize = 1024;

/// Network access of a service by `network_mode`, `networks` and the networks' `internal`.
pub(crate) fn access(
    reading: &mut Reading<'_>,
    service: &Mapping,
    networks: Option<&Mapping>,
) -> Read<Network> {
    let is_set = |node: &&Node| !matches!(&node.value, Value::Scalar(text) if text.is_empty());
    if let Some(node) = service.get("network_mode").filter(is_set) {
        if let Some(both) = service.get("networks").filter(|both| !both.is_void()) {
            return Err(both.problem("`network_mode` and `networks` exclude each other"));
        }
        return match node.text("network_mode")? {
            "none" => Ok(Network::Blocked),
            "bridge" | "default" | "host" => Ok(Network::Default),
            mode if reading.multi && (mode.starts_with("service:") || mode.starts_with("container:")) => {
                Ok(Network::Default)
            }
            mode => Err(node
                .problem(format!("the network mode `{mode}` is not supported"))
                .hint("Use none, bridge, default or host")),
        };
    }
    let names = match service.get("networks") {
        Some(node) => names(reading, node)?,
        None => Vec::new(),
    };
    for (name, place) in &names {
        let defined = name == "default" || networks.is_some_and(|networks| networks.entry(name).is_some());
        if !defined {
            return Err(Problem::at(place, format!("the network `{name}` is not defined in this file")));
        }
    }
    let names: Vec<&str> =
        if names.is_empty() { vec!["default"] } else { names.iter().map(|(n, _)| n.as_str()).collect() };
    let mut access = Network::Blocked;
    for name in names {
        let is_open = match networks.and_then(|networks| networks.get(name)) {
            Some(node) => is_open(reading, name, node)?,
            None => true,
        };
        if is_open {
            access = Network::Default;
        }
    }
    Ok(access)
}

/// Refuses what nobody knows in top-level `networks`: a misspelt `internal` would open one.
pub(crate) fn check(reading: &mut Reading<'_>, networks: &Mapping) -> Read<()> {
    for entry in networks.iter().filter(|entry| entry.value.value != Value::Null) {
        let network = entry.value.mapping(&entry.key)?;
        reading.check_keys(network, NETWORK, format_args!("network `{}`", entry.key))?;
    }
    Ok(())
}

/// Whether a network has internet. Of a single service's, an error where nobody can say.
fn is_open(reading: &mut Reading<'_>, key: &str, node: &Node) -> Read<bool> {
    let network = node.mapping(key)?;
    let internal = network.get("internal").map_or(Ok(false), |node| node.boolean("internal"))?;
    if reading.multi {
        return Ok(!internal);
    }
    if let Some(external) = network.get("external") {
        // Compose takes the old form too: a mapping with the name
        let (is_external, old_name) = match &external.value {
            Value::Mapping(old) => (true, old.get("name")),
            _ => (external.boolean("external")?, None),
        };
        let name = network.get("name").or(old_name).map_or(Ok(key), |name| name.text("name"))?;
        match name {
            _ if !is_external => {}
            "none" => return Ok(false),
            "bridge" | "host" => return Ok(true),
            _ => {
                return Err(external
                    .problem(format!(
                        "the network `{name}` is external, so it is not known whether it has internet"
                    ))
                    .hint("Leave `external` out; `internal: true` says that it has none"));
            }
        }
    }
    if internal {
        return Ok(false);
    }
    let hint = "Leave it out; `internal: true` says that the network has no internet";
    if let Some(driver) = network.get("driver")
        && !matches!(driver.text("driver")?, "" | "bridge" | "default")
    {
        let message = format!("a network with the driver {} is not supported", driver.describe());
        return Err(driver.problem(message).hint(hint));
    }
    if let Some(node) = network.get("enable_ipv4")
        && !node.boolean("enable_ipv4")?
    {
        return Err(node.problem("a sandbox has IPv4, so `enable_ipv4: false` is not supported").hint(hint));
    }
    if let Some(options) = network.get("driver_opts") {
        for option in options.mapping("driver_opts")?.iter() {
            let is_harmless = match option.key.as_str() {
                "com.docker.network.bridge.enable_ip_masquerade" | "com.docker.network.enable_ipv4" => {
                    option.value.boolean(&option.key)?
                }
                "com.docker.network.bridge.enable_icc"
                | "com.docker.network.bridge.default_bridge"
                | "com.docker.network.bridge.host_binding_ipv4"
                | "com.docker.network.bridge.name"
                | "com.docker.network.container_iface_prefix"
                | "com.docker.network.driver.mtu"
                | "com.docker.network.enable_ipv6" => true,
                _ => false,
            };
            if !is_harmless {
                let message = format!("the network option `{}` is not supported", option.key);
                return Err(Problem::at(&option.place, message).hint(hint));
            }
            reading.warn(
                &option.place,
                format!(
                    "the network option `{}` has no effect: the network belongs to the platform",
                    option.key
                ),
            );
        }
    }
    Ok(true)
}

fn names(reading: &mut Reading<'_>, node: &Node) -> Read<Vec<(String, Place)>> {
    if let Value::Mapping(mapping) = &node.value {
        let mut names = Vec::new();
        for entry in mapping.iter() {
            if entry.value.value != Value::Null {
                let options = entry.value.mapping(&entry.key)?;
                reading.check_keys(
                    options,
                    MEMBERSHIP,
                    format_args!("the service's network `{}`", entry.key),
                )?;
            }
            names.push((entry.key.clone(), entry.place.clone()));
        }
        return Ok(names);
    }
    let items = node.sequence("networks")?.iter();
    items.map(|item| Ok((item.name("networks")?.to_owned(), item.place.clone()))).collect()
}

/// The ports inside the sandbox that `ports` and `expose` name, each once.
pub(crate) fn ports(reading: &mut Reading<'_>, service: &Mapping) -> Read<Vec<Port>> {
    let mut ports: Vec<Port> = Vec::new();
    for key in ["ports", "expose"] {
        let Some(node) = service.get(key) else { continue };
        for item in node.sequence(key)? {
            for port in port(reading, item, key)? {
                if !ports.contains(&port) {
                    ports.push(port);
                }
            }
        }
    }
    Ok(ports)
}

fn port(reading: &mut Reading<'_>, node: &Node, key: &str) -> Read<Vec<Port>> {
    let number = |node: &Node, key: &str| match node.plain_integer() {
        Some(number) => Ok(number.to_string()),
        None => node.text(key).map(str::to_owned),
    };
    let (range, protocol) = if let Value::Mapping(mapping) = &node.value {
        reading.check_keys(mapping, PORT, format_args!("an entry of `{key}`"))?;
        let Some(target) = mapping.get("target") else {
            return Err(node.problem(format!("an entry of `{key}` needs a `target`")));
        };
        let protocol = mapping.get("protocol").map(|node| node.text("protocol")).transpose()?;
        (number(target, "target")?, protocol.unwrap_or("tcp").to_owned())
    } else {
        // [[address:]host:]container[/protocol]; the address may be an IPv6 one in brackets.
        let text = number(node, key)?;
        let (text, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
        let (host, range) = text.rsplit_once(':').unwrap_or(("", text));
        let address = host.rsplit_once(':').map_or("", |(address, _)| address);
        if !address.is_empty() && bare(address).parse::<IpAddr>().is_err() {
            return Err(node.problem(format!("`{address}` in `{key}` is not an IP address")));
        }
        (range.to_owned(), protocol.to_owned())
    };
    let Some(range) = port_range(&range) else {
        return Err(
            node.problem(format!("`{key}` needs a port such as 8080 or 8000:80, not {}", node.describe()))
        );
    };
    if range.len() > LONGEST_RANGE {
        return Err(node.problem(format!("an entry of `{key}` names more than {LONGEST_RANGE} ports")));
    }
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(node.problem(format!("the protocol `{protocol}` in `{key}` is not tcp, udp or sctp")));
    }
    Ok(range.map(|port| Port { port, protocol: protocol.clone() }).collect())
}

/// Additional names and addresses of `/etc/hosts`.
pub(crate) fn extra_hosts(reading: &mut Reading<'_>, service: &Mapping) -> Read<Vec<(String, String)>> {
    let Some(node) = service.get("extra_hosts") else { return Ok(Vec::new()) };
    let mut hosts = Vec::new();
    match &node.value {
        Value::Mapping(mapping) => {
            for entry in mapping.iter() {
                for address in entry.value.texts("extra_hosts")? {
                    host(reading, &entry.key, &address, &entry.value, &mut hosts)?;
                }
            }
        }
        _ => {
            for item in node.sequence("extra_hosts")? {
                let text = item.text("extra_hosts")?;
                // `=` first, since an IPv6 address contains colons.
                let Some((name, address)) = text.split_once('=').or_else(|| text.split_once(':')) else {
                    return Err(item.problem(format!("`extra_hosts` needs name=address, not `{text}`")));
                };
                host(reading, name, address, item, &mut hosts)?;
            }
        }
    }
    Ok(hosts)
}

fn host(
    reading: &mut Reading<'_>,
    name: &str,
    address: &str,
    node: &Node,
    hosts: &mut Vec<(String, String)>,
) -> Read<()> {
    if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(node.problem(format!("`{name}` in `extra_hosts` is not a host name")));
    }
    if address == "host-gateway" {
        if !reading.multi {
            reading.warn(&node.place, "`host-gateway` has no meaning in a sandbox, so the name is left out");
        }
        return Ok(());
    }
    match bare(address).parse::<IpAddr>() {
        Ok(address) => {
            hosts.push((name.to_owned(), address.to_string()));
            Ok(())
        }
        Err(_) => Err(node.problem(format!("`{address}` in `extra_hosts` is not an IP address"))),
    }
}

/// An IPv6 address may stand in brackets.
fn bare(address: &str) -> &str {
    address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address)
}
