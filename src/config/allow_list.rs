//! Networks and host names that a sandbox may reach, by the platform's rules.

use std::net::Ipv4Addr;

use super::node::{Node, Value};
use super::problem::Read;

/// The platform's limit for either list.
const MOST: usize = 10;

/// At most ten IPv4 networks with their prefix lengths, separated by commas or in a list.
pub(crate) fn cidrs(node: &Node) -> Read<Vec<String>> {
    list(node, "network_allow_list", |item| {
        let (address, prefix) = item.split_once('/')?;
        address.parse::<Ipv4Addr>().ok()?;
        let digits = prefix.bytes().all(|byte| byte.is_ascii_digit()) && prefix.len() <= 2;
        (digits && prefix.parse::<u8>().ok()? <= 32).then_some(())
    })
}

/// At most ten host names, each with an optional `*.` in front.
pub(crate) fn domains(node: &Node) -> Read<Vec<String>> {
    list(node, "domain_allow_list", |item| {
        let name = item.strip_prefix("*.").unwrap_or(item);
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        (name.len() <= 253 && name.split('.').all(label)).then_some(())
    })
}

fn list(node: &Node, key: &str, check: impl Fn(&str) -> Option<()>) -> Read<Vec<String>> {
    let mut items = Vec::new();
    let texts = match &node.value {
        Value::Scalar(text) => text.split(',').map(str::to_owned).collect(),
        _ => node.texts(key)?,
    };
    for text in texts {
        let item = text.trim();
        if item.is_empty() && matches!(node.value, Value::Scalar(_)) {
            continue;
        }
        if check(item).is_none() {
            let example = if key == "network_allow_list" {
                "an IPv4 network such as 10.0.0.0/8"
            } else {
                "a host name such as example.org or *.example.org"
            };
            return Err(node.problem(format!("`{item}` in `{key}` is not {example}")));
        }
        items.push(item.to_owned());
    }
    if items.len() > MOST {
        return Err(node.problem(format!("`{key}` has {} entries, the platform allows {MOST}", items.len())));
    }
    if items.is_empty() {
        // An empty list would read as "nothing is allowed" to one reader and as "no limit" to another.
        return Err(node
            .problem(format!("`{key}` is empty"))
            .hint("Use `network_block_all: true` to block the network, or leave the list out"));
    }
    Ok(items)
}
