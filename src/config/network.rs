//! Networks, ports and hosts of a service.

use std::net::IpAddr;

use super::node::{Mapping, Node, Value};
use super::plan::{Network, Port};
use super::problem::{Problem, Read};
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
    if let Some(node) = service.get("network_mode") {
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
    let is_internal = |name: &str| -> Read<bool> {
        let network = networks.and_then(|networks| networks.get(name));
        match network.map(|node| node.mapping("networks")).transpose()?.and_then(|map| map.get("internal")) {
            Some(node) => node.boolean("internal"),
            None => Ok(false),
        }
    };
    let names =
        if names.is_empty() { vec!["default"] } else { names.iter().map(|(n, _)| n.as_str()).collect() };
    for name in names {
        if !is_internal(name)? {
            return Ok(Network::Default);
        }
    }
    Ok(Network::Blocked)
}

fn names(reading: &mut Reading<'_>, node: &Node) -> Read<Vec<(String, super::problem::Place)>> {
    match &node.value {
        Value::Mapping(mapping) => Ok(mapping
            .iter()
            .map(|entry| {
                if !reading.multi && !entry.value.is_void() {
                    let message = "options of a service's network have no effect: there is no other service";
                    reading.warn(&entry.value.place, message);
                }
                (entry.key.clone(), entry.place.clone())
            })
            .collect()),
        _ => node
            .sequence("networks")?
            .iter()
            .map(|item| Ok((item.name("networks")?.to_owned(), item.place.clone())))
            .collect(),
    }
}

/// The ports inside the sandbox that `ports` and `expose` name, each once.
pub(crate) fn ports(service: &Mapping) -> Read<Vec<Port>> {
    let mut ports: Vec<Port> = Vec::new();
    for key in ["ports", "expose"] {
        let Some(node) = service.get(key) else { continue };
        for item in node.sequence(key)? {
            for port in port(item, key)? {
                if !ports.contains(&port) {
                    ports.push(port);
                }
            }
        }
    }
    Ok(ports)
}

fn port(node: &Node, key: &str) -> Read<Vec<Port>> {
    let (range, protocol) = if let Value::Mapping(mapping) = &node.value {
        let Some(target) = mapping.get("target") else {
            return Err(node.problem(format!("an entry of `{key}` needs a `target`")));
        };
        let protocol = mapping.get("protocol").map(|node| node.text("protocol")).transpose()?;
        (target.text("target")?.to_owned(), protocol.unwrap_or("tcp").to_owned())
    } else {
        // [[address:]host:]container[/protocol]; the address may be an IPv6 one in brackets.
        let text = node.text(key)?;
        let (text, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (host, range) = text.rsplit_once(':').unwrap_or(("", text));
        let address = host.rsplit_once(':').map_or("", |(address, _)| address);
        if !address.is_empty() && bare(address).parse::<IpAddr>().is_err() {
            return Err(node.problem(format!("`{address}` in `{key}` is not an IP address")));
        }
        (range.to_owned(), protocol.to_owned())
    };
    let Some(range) = port_range(&range).filter(|range| range.len() <= LONGEST_RANGE) else {
        return Err(
            node.problem(format!("`{key}` needs a port such as 8080 or 8000:80, not {}", node.describe()))
        );
    };
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
