//! What keeps containers from Daytona's daemon in the machine.
//!
//! The daemon takes orders from whoever connects to it (toolbox, ssh, web terminal, recordings), and only its proxies ask
//! for a key. So the machine drops what comes to these ports through bridges: those of Docker's usual names, which
//! Compose makes later, those that are there, and those that the project names. Orders from outside come in through no
//! bridge: rules for what may come in, instead, could lock them out.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::up::PROJECT;

/// Defines `fence`, which puts up rules for the bridges that are named in its argument, separated by spaces, and says
/// what stays open. What leads out of the machine is never shut, whatever it is called; where there is no IPv6 there is
/// nothing to shut. The daemon may keep its own rules the old way: both ways hold at once.
pub(super) const FENCE: &str = r#"
drop() {
  command -v "$1" >/dev/null || return 1
  for link in $links; do
    for port in 2280 22220 22222 33333; do
      "$1" -w -C INPUT -i "$link" -p tcp --dport "$port" -j DROP 2>/dev/null ||
        "$1" -w -I INPUT -i "$link" -p tcp --dport "$port" -j DROP || return 1
    done
  done
}
fence() {
  outward=" "
  while read -r link to _; do
    [ "$to" != 00000000 ] || outward="$outward$link "
  done </proc/net/route
  [ ! -e /proc/net/ipv6_route ] || while read -r to length _ _ _ _ _ _ _ link; do
    case $to$length in *[!0]*) ;; *) outward="$outward$link " ;; esac
  done </proc/net/ipv6_route
  links=" docker0 br-+ "
  for bridge in /sys/class/net/*/bridge; do
    [ -d "$bridge" ] || continue
    link=${bridge%/bridge} link=${link##*/}
    case "$outward$links" in *" $link "*) ;; *) links="$links$link " ;; esac
  done
  set -f
  for link in $1; do
    case "$outward$link+" in *" $link "* | *++) echo "open bridge $link"; continue ;; esac
    # Docker refuses what is there and no bridge
    [ -e "/sys/class/net/$link" ] && [ ! -d "/sys/class/net/$link/bridge" ] && continue
    case "$links" in *" $link "*) ;; *) links="$links$link " ;; esac
  done
  legacy=/usr/local/sbin/.iptables-legacy
  drop iptables || drop "$legacy/iptables" || echo "open IPv4"
  [ ! -e /proc/net/if_inet6 ] || drop ip6tables || drop "$legacy/ip6tables" || echo "open IPv6"
}
"#;
/// How long the name of a network interface may be.
const LONGEST: usize = 15;
const BRIDGE: &str = "com.docker.network.bridge.name";
const CONSEQUENCE: &str = "reach the toolbox of the sandbox around them, which commands all services";

/// The bridges that the project's networks name, as [`FENCE`] takes them.
pub(super) fn bridges(model: &Value) -> String {
    let networks = model.get("networks").and_then(Value::as_object).into_iter().flat_map(Map::values);
    let written = networks.filter_map(|network| network.get("driver_opts")?.get(BRIDGE));
    let names: BTreeSet<_> = written
        .map(|name| name.as_str().map_or_else(|| name.to_string(), |name| name.replace("$$", "$")))
        .collect();
    // Linux refuses the others
    let possible = |name: &String| {
        name.len() <= LONGEST
            && !name.starts_with('-')
            && !name.contains(|c: char| c.is_whitespace() || c == '/')
    };
    names.into_iter().filter(possible).collect::<Vec<_>>().join(" ")
}

/// What the user should know by what [`FENCE`] said.
pub(super) fn warnings(said: &str) -> Vec<String> {
    let open = said.lines().filter_map(|line| line.strip_prefix("open "));
    let warning = |what: &str| match what {
        "IPv4" => {
            format!(
                "the sandbox's packet filter refuses rules, so services that have a network {CONSEQUENCE}"
            )
        }
        "IPv6" => format!(
            "the sandbox's packet filter refuses rules for IPv6, so services that have a network with IPv6 {CONSEQUENCE}"
        ),
        bridge => {
            format!(
                "no rule of a packet filter can be for this {bridge} alone, so services on its network {CONSEQUENCE}"
            )
        }
    };
    open.map(warning).collect()
}

/// What the user should know of services that stand on the machine's side of the fence.
pub(super) fn exposed(model: &Value) -> Vec<String> {
    let Some(services) = model.get("services").and_then(Value::as_object) else { return Vec::new() };
    let warning = |name: &String| {
        let path = to_host(model, services, name)?;
        let how = match path.as_slice() {
            [_] => "has the machine's own network (`network_mode: host`)".to_owned(),
            [_, others @ ..] => {
                let others = others.join(", which has that of ");
                format!("has the network of {others}, which has the machine's own (`network_mode: host`)")
            }
            [] => return None,
        };
        Some(format!(
            "service {name} {how}: it reaches the toolbox of the sandbox around the services, which commands all of them"
        ))
    };
    services.keys().filter_map(warning).collect()
}

/// The services that lead from `name`, which is the first of them, to one that has the machine's network.
fn to_host<'a>(model: &Value, services: &'a Map<String, Value>, name: &'a str) -> Option<Vec<&'a str>> {
    let mut path = Vec::new();
    let mut next = services.get_key_value(name);
    while let Some((name, service)) = next.filter(|(name, _)| !path.contains(&name.as_str())) {
        path.push(name.as_str());
        let mode = service.get("network_mode").and_then(Value::as_str).unwrap_or_default();
        if mode == "host" || networks(service).any(|network| name_of(model, network) == "host") {
            return Some(path);
        }
        next = match mode.split_once(':') {
            Some(("service", other)) => services.get_key_value(other),
            Some(("container", container)) => {
                services.iter().find(|(name, service)| has_container(name, service, container))
            }
            _ => None,
        };
    }
    None
}

/// The names of a service's networks in the file.
fn networks(service: &Value) -> impl Iterator<Item = &str> {
    let networks = service.get("networks");
    let listed = networks.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let keys = networks.and_then(Value::as_object).into_iter().flat_map(Map::keys).map(String::as_str);
    listed.chain(keys)
}

/// Docker's name of an external network; nothing for those that Compose makes.
fn name_of<'a>(model: &'a Value, network: &'a str) -> &'a str {
    let Some(options) = model.get("networks").and_then(|networks| networks.get(network)) else { return "" };
    match options.get("external") {
        None | Some(Value::Null | Value::Bool(false)) => "",
        Some(external) => {
            let name = options.get("name").or_else(|| external.get("name"));
            name.and_then(Value::as_str).unwrap_or(network)
        }
    }
}

/// Whether `container` is the name of one of a service's containers.
fn has_container(name: &str, service: &Value, container: &str) -> bool {
    match service.get("container_name").and_then(Value::as_str) {
        Some(own) => own == container,
        None => container
            .strip_prefix(PROJECT)
            .and_then(|rest| rest.strip_prefix('-')?.strip_prefix(name)?.strip_prefix('-'))
            .is_some_and(|number| number.parse::<u32>().is_ok()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bridges_with_names_of_their_own_are_known() {
        let named = |name: &str| json!({"driver_opts": {BRIDGE: name}});
        let model = json!({"networks": {
            "a": named("lab0"), "b": named("a$$b"), "c": null, "d": {}, "e": named("longer-than-linux-takes"),
            "f": named("two words"), "g": named("lab0"), "h": {"driver_opts": {BRIDGE: 42}},
        }});
        assert_eq!(bridges(&model), "42 a$b lab0");
        assert_eq!(bridges(&json!({"services": {}})), "");
    }

    #[test]
    fn every_service_that_shares_the_machines_network_is_named() {
        let model = json!({
            "services": {
                "web": {"network_mode": "host"},
                "default": {"network_mode": "service:web"},
                "far": {"network_mode": "service:default"},
                "named": {"network_mode": "container:inspect-web-1"},
                "own": {"network_mode": "container:special"},
                "special": {"network_mode": "host", "container_name": "special"},
                "listed": {"networks": ["out"]},
                "mapped": {"networks": {"outer": null}},
                "apart": {"networks": ["inner"]},
                "round": {"network_mode": "service:robin"},
                "robin": {"network_mode": "service:round"},
                "none": {"network_mode": "none"},
                "other": {"network_mode": "container:inspect-web-x"},
            },
            "networks": {
                "out": {"external": true, "name": "host"}, "outer": {"external": {"name": "host"}},
                "inner": {"name": "host"},
            },
        });
        let warnings = exposed(&model);
        let named: Vec<_> = warnings.iter().filter_map(|text| text.split(' ').nth(1)).collect();
        assert_eq!(named, ["default", "far", "listed", "mapped", "named", "own", "special", "web"]);
        assert!(
            warnings[1].contains("the network of default, which has that of web, which has the machine's")
        );
        assert!(warnings[7].contains("service web has the machine's own network (`network_mode: host`): it"));
    }

    #[test]
    fn what_stays_open_is_told() {
        assert!(warnings("").is_empty());
        let told = warnings("open bridge lab+\nopen IPv4\nopen IPv6\n");
        for (warning, part) in told.iter().zip(["bridge lab+", "that have a network reach", "with IPv6"]) {
            assert!(warning.contains(part), "{warning}");
        }
        assert_eq!(told.len(), 3);
    }
}
