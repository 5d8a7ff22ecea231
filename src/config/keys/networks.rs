//! Keys of networks and ports.

use super::Decision::{Honoured, Ignored, Refused, Satisfied};
use super::{Key, key};

/// Keys of a network at the top of the file.
pub const NETWORK: &[Key] = &[
    key("attachable", Ignored, Honoured, "for Swarm"),
    key("driver", Honoured, Honoured, "a single service's can only be `bridge`"),
    key(
        "driver_opts",
        Honoured,
        Honoured,
        "options of a single service's are ignored where they change nothing of what it reaches, else refused",
    ),
    key("enable_ipv4", Honoured, Honoured, "`false` is refused in a single service"),
    key("enable_ipv6", Ignored, Honoured, "addresses are the platform's matter"),
    key(
        "external",
        Honoured,
        Honoured,
        "only Docker's own `bridge`, `host` and `none`: the others are not in the sandbox",
    ),
    key("internal", Honoured, Honoured, "no internet for a service that has only such networks"),
    key("ipam", Ignored, Honoured, "addresses are the platform's matter"),
    key("labels", Ignored, Honoured, "metadata of a network that a single service does not have"),
    key("name", Satisfied, Honoured, "no other container looks for it"),
];

/// Keys of a network in a service.
pub const MEMBERSHIP: &[Key] = &[
    key("aliases", Ignored, Honoured, "there is no other service"),
    key("driver_opts", Refused, Honoured, "the network belongs to the platform"),
    key("gw_priority", Ignored, Honoured, "a sandbox has one network"),
    key("interface_name", Ignored, Honoured, "the platform names it"),
    key("ipv4_address", Ignored, Honoured, "addresses are the platform's matter"),
    key("ipv6_address", Ignored, Honoured, "addresses are the platform's matter"),
    key("link_local_ips", Ignored, Honoured, "addresses are the platform's matter"),
    key("mac_address", Ignored, Honoured, "the platform sets it"),
    key("priority", Ignored, Honoured, "a sandbox has one network"),
    key("use_service_name_alias", Ignored, Honoured, "there is no other service"),
];

/// Keys of the long form of a port.
pub const PORT: &[Key] = &[
    key("app_protocol", Satisfied, Honoured, "metadata"),
    key("host_ip", Satisfied, Honoured, "host ports have no meaning"),
    key("mode", Satisfied, Honoured, "for Swarm"),
    key("name", Satisfied, Honoured, "metadata"),
    key("protocol", Honoured, Honoured, "`tcp`, `udp` or `sctp`"),
    key("published", Satisfied, Honoured, "host ports have no meaning"),
    key("target", Honoured, Honoured, "the port inside"),
];
