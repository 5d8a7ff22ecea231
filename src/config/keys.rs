//! Every key of a compose file and what becomes of it. The tables of `docs/configuration.md` are held against these.

mod mounts;
mod networks;

pub use mounts::{BIND, IMAGE, IN_MEMORY, MOUNT, NAMED, VOLUME};
pub use networks::{MEMBERSHIP, NETWORK, PORT};

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It has the effect that Compose gives it, or the file is refused because of its value.
    Honoured,
    /// Nothing needs to be done, since every sandbox is so already; no warning.
    Satisfied,
    /// It has no effect, which is harmless; a warning says so once.
    Ignored,
    /// A file that gives it a value is refused.
    Refused,
}

impl Decision {
    /// The word in the documentation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Honoured => "honoured",
            Self::Satisfied => "satisfied",
            Self::Ignored => "ignored",
            Self::Refused => "refused",
        }
    }
}

/// A key and its decisions.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Where the file has one service, which becomes the sandbox itself.
    pub single: Decision,
    /// Where `docker compose` inside the sandbox runs several services.
    pub multi: Decision,
    /// Why, or how.
    pub reason: &'static str,
}

/// Looks a key up. Tables are sorted.
pub(crate) fn find(table: &'static [Key], name: &str) -> Option<&'static Key> {
    table.binary_search_by(|key| key.name.cmp(name)).ok().map(|index| &table[index])
}

use Decision::{Honoured, Ignored, Refused, Satisfied};

const fn key(name: &'static str, single: Decision, multi: Decision, reason: &'static str) -> Key {
    Key { name, single, multi, reason }
}

/// Keys at the top of a compose file, beside `x-` keys.
pub const TOP: &[Key] = &[
    key("configs", Refused, Honoured, "copy the file in the Dockerfile, or give it with the sample"),
    key(
        "include",
        Honoured,
        Honoured,
        "services, networks and volumes of other files; each has its own directory and `.env`",
    ),
    key("models", Refused, Refused, "a sandbox cannot provide models"),
    key("name", Satisfied, Satisfied, "sandboxes have names of their own"),
    key("networks", Honoured, Honoured, "a service whose networks are all `internal: true` has no internet"),
    key("secrets", Refused, Honoured, "use `x-daytona.secrets`, or copy the file in the Dockerfile"),
    key(
        "services",
        Honoured,
        Honoured,
        "one service is the sandbox itself; several run under `docker compose` in one",
    ),
    key("version", Satisfied, Satisfied, "obsolete in Compose too"),
    key(
        "volumes",
        Honoured,
        Honoured,
        "a single service's are directories of its own disk; external ones are refused",
    ),
];

/// Keys of a service.
pub const SERVICE: &[Key] = &[
    key("annotations", Ignored, Honoured, "metadata for container tools"),
    key("attach", Satisfied, Satisfied, "nothing attaches to a sandbox's log"),
    key("blkio_config", Ignored, Honoured, "disk scheduling belongs to the platform"),
    key("build", Honoured, Honoured, "the Dockerfile and what it copies are sent to the platform"),
    key(
        "cap_add",
        Ignored,
        Honoured,
        "a sandbox is a machine of its own, where root may do more than in a container",
    ),
    key(
        "cap_drop",
        Refused,
        Honoured,
        "a sandbox cannot drop capabilities, so the isolation would be weaker",
    ),
    key("cgroup", Ignored, Honoured, "a sandbox has its own"),
    key("cgroup_parent", Ignored, Honoured, "a sandbox has its own"),
    key(
        "command",
        Honoured,
        Honoured,
        "a line is split into words as Compose does; what follows an unquoted `;`, `&`, `<`, `>` or pipe is dropped, with a warning",
    ),
    key("configs", Refused, Honoured, "copy the file in the Dockerfile, or give it with the sample"),
    key("container_name", Ignored, Honoured, "a single sandbox has a name of its own"),
    key("cpu_count", Ignored, Honoured, "for Windows; use `cpus`"),
    key("cpu_percent", Ignored, Honoured, "for Windows; use `cpus`"),
    key("cpu_period", Ignored, Honoured, "use `cpus`"),
    key("cpu_quota", Ignored, Honoured, "use `cpus`"),
    key("cpu_rt_period", Ignored, Honoured, "scheduling belongs to the platform"),
    key("cpu_rt_runtime", Ignored, Honoured, "scheduling belongs to the platform"),
    key("cpu_shares", Ignored, Honoured, "there are no other services to share with"),
    key("cpus", Honoured, Honoured, "rounded up to whole cores; `deploy.resources` wins"),
    key("cpuset", Ignored, Honoured, "scheduling belongs to the platform"),
    key("credential_spec", Refused, Honoured, "for Windows"),
    key("depends_on", Honoured, Honoured, "other services must exist, so a single service has none"),
    key("deploy", Honoured, Honoured, "`resources` counts, also GPUs; see below for the rest"),
    key("develop", Satisfied, Satisfied, "for `docker compose watch`"),
    key("device_cgroup_rules", Refused, Honoured, "a sandbox has no devices of its machine"),
    key(
        "devices",
        Refused,
        Honoured,
        "a sandbox has no devices of its machine; see `gpus` and `x-daytona.class`",
    ),
    key("dns", Refused, Honoured, "the platform sets the name servers"),
    key("dns_opt", Refused, Honoured, "the platform sets the name servers"),
    key("dns_search", Refused, Honoured, "the platform sets the name servers"),
    key("domainname", Ignored, Honoured, "only `hostname` is set"),
    key(
        "entrypoint",
        Honoured,
        Honoured,
        "an empty list removes the image's; a single service runs only that of a Dockerfile by itself",
    ),
    key("env_file", Honoured, Honoured, "read on this machine; `environment` wins"),
    key(
        "environment",
        Honoured,
        Honoured,
        "values stay as written; a name alone takes the value of this machine, and is left out where there is none",
    ),
    key(
        "expose",
        Satisfied,
        Honoured,
        "checked, otherwise without effect: every port of a sandbox has a preview URL",
    ),
    key("extends", Refused, Refused, "write the service out, or use a YAML anchor with `<<`"),
    key("external_links", Refused, Honoured, "there are no containers outside of the file"),
    key(
        "extra_hosts",
        Honoured,
        Honoured,
        "lines of `/etc/hosts`; `host-gateway` has no meaning in a sandbox",
    ),
    key("gpus", Honoured, Honoured, "as `deploy.resources.reservations.devices`"),
    key("group_add", Refused, Honoured, "add the group in the Dockerfile"),
    key("healthcheck", Honoured, Honoured, "awaited before the sample starts"),
    key("hostname", Honoured, Honoured, ""),
    key("image", Honoured, Honoured, "with `build`, the build wins"),
    key("init", Satisfied, Honoured, "a sandbox's first process reaps orphans"),
    key("ipc", Ignored, Honoured, "a sandbox has its own; another container's is refused"),
    key("isolation", Ignored, Honoured, "for Windows"),
    key("label_file", Ignored, Honoured, "use `x-daytona.labels` for labels of the sandbox"),
    key("labels", Ignored, Honoured, "use `x-daytona.labels` for labels of the sandbox"),
    key("links", Refused, Honoured, "a single service has no other to link to"),
    key("logging", Ignored, Honoured, "a sandbox has no log driver"),
    key("mac_address", Ignored, Honoured, "the platform sets it"),
    key(
        "mem_limit",
        Honoured,
        Honoured,
        "rounded up to whole GiB; a bare number is bytes; `deploy.resources` wins",
    ),
    key("mem_reservation", Honoured, Honoured, "counts where there is no limit"),
    key("mem_swappiness", Ignored, Honoured, "swap belongs to the platform"),
    key("memswap_limit", Ignored, Honoured, "swap belongs to the platform"),
    key("models", Refused, Refused, "a sandbox cannot provide models"),
    key(
        "network_mode",
        Honoured,
        Honoured,
        "`none` blocks the network; `bridge`, `default` and `host` leave it as it is",
    ),
    key(
        "networks",
        Honoured,
        Honoured,
        "all of them `internal: true` blocks the network; see below for their keys",
    ),
    key("oom_kill_disable", Ignored, Honoured, "memory pressure is the platform's"),
    key("oom_score_adj", Ignored, Honoured, "memory pressure is the platform's"),
    key("pid", Ignored, Honoured, "a sandbox has its own; another container's is refused"),
    key("pids_limit", Ignored, Honoured, "a sandbox is bounded as a whole"),
    key("platform", Honoured, Honoured, "only `linux/amd64`: the platform has no other"),
    key(
        "ports",
        Satisfied,
        Honoured,
        "checked, otherwise without effect: every port inside has a preview URL, and host ports have no meaning",
    ),
    key("post_start", Refused, Honoured, "use the sample's `setup`"),
    key("pre_start", Refused, Honoured, "use the sample's `setup`"),
    key("pre_stop", Refused, Honoured, "sandboxes are deleted, not stopped"),
    key(
        "privileged",
        Ignored,
        Honoured,
        "a sandbox is a machine of its own, where root may do more than in a container",
    ),
    key("profiles", Honoured, Honoured, "a service runs if one is named in `COMPOSE_PROFILES`"),
    key("provider", Refused, Refused, "a sandbox has no Compose providers"),
    key("pull_policy", Satisfied, Honoured, "images are prepared once; `x-daytona.prepare` turns that off"),
    key("pull_refresh_after", Satisfied, Honoured, "images are prepared once"),
    key("read_only", Refused, Honoured, "a sandbox's disk is writable, so the isolation would be weaker"),
    key("restart", Ignored, Honoured, "a sandbox runs on when its command ends"),
    key(
        "runtime",
        Ignored,
        Honoured,
        "the platform chooses it; `nvidia` gives no GPU unless one is asked for",
    ),
    key("scale", Honoured, Honoured, "only 1"),
    key("secrets", Refused, Honoured, "use `x-daytona.secrets`, or copy the file in the Dockerfile"),
    key("security_opt", Honoured, Honoured, "what widens is ignored with a warning, what narrows is refused"),
    key("shm_size", Honoured, Honoured, "size of `/dev/shm`"),
    key("stdin_open", Satisfied, Honoured, "every command has its own stdin"),
    key("stop_grace_period", Ignored, Honoured, "sandboxes are deleted, not stopped"),
    key("stop_signal", Ignored, Honoured, "sandboxes are deleted, not stopped"),
    key("storage_opt", Ignored, Honoured, "use `x-daytona.disk`"),
    key("sysctls", Refused, Honoured, "the kernel belongs to the platform"),
    key(
        "tmpfs",
        Honoured,
        Honoured,
        "mounted when the sandbox starts, `noexec`, `nosuid` and `nodev` unless its options say otherwise; over `/tmp`, `/var/tmp` and \
         `/dev/shm`, where the program that runs commands may be, without `noexec`",
    ),
    key("tty", Satisfied, Honoured, "commands of an eval have no terminal"),
    key(
        "ulimits",
        Refused,
        Honoured,
        "a command can lower its own limits with `ulimit`; how high they may be is the platform's to say",
    ),
    key("umask", Refused, Honoured, "set it in the command"),
    key("use_api_socket", Refused, Refused, "a sandbox has no access to a Docker daemon of this machine"),
    key("user", Honoured, Honoured, "`x-daytona.os_user` wins in a single service"),
    key("userns_mode", Ignored, Honoured, "a sandbox has its own"),
    key("uts", Ignored, Honoured, "a sandbox has its own"),
    key(
        "volumes",
        Honoured,
        Honoured,
        "directories of a single service's disk; bind mounts and `ro` are refused there",
    ),
    key("volumes_from", Refused, Honoured, "there are no other containers"),
    key("working_dir", Honoured, Honoured, "where commands run and what relative paths start from"),
    key("x-default", Honoured, Honoured, "marks the default service"),
];

/// Keys of `build`.
pub const BUILD: &[Key] = &[
    key("additional_contexts", Refused, Honoured, "copy what is needed into the context"),
    key("args", Honoured, Honoured, "a name alone takes the value of this machine"),
    key("cache_from", Ignored, Honoured, "the platform keeps its own cache"),
    key("cache_to", Ignored, Honoured, "the platform keeps its own cache"),
    key("context", Honoured, Honoured, "a directory of this machine; URLs are refused in a single service"),
    key("dockerfile", Honoured, Honoured, "relative to the context"),
    key("dockerfile_inline", Honoured, Honoured, ""),
    key("entitlements", Refused, Honoured, "builds of the platform have no more rights than usual"),
    key("extra_hosts", Refused, Honoured, "builds of the platform have no host entries"),
    key("isolation", Ignored, Honoured, "for Windows"),
    key("labels", Ignored, Honoured, "metadata of an image that nobody else sees"),
    key("network", Ignored, Honoured, "builds use the platform's network"),
    key(
        "no_cache",
        Refused,
        Honoured,
        "the platform keeps layers by itself; whatever changes in the Dockerfile or its files is built anew",
    ),
    key("no_cache_filter", Ignored, Honoured, "the platform keeps layers by itself"),
    key("platforms", Honoured, Honoured, "must include `linux/amd64`"),
    key("privileged", Refused, Honoured, "builds of the platform have no more rights than usual"),
    key("provenance", Ignored, Honoured, "metadata of an image that nobody else sees"),
    key("pull", Refused, Honoured, "the platform keeps images by itself; name a newer tag, or a digest"),
    key("sbom", Ignored, Honoured, "metadata of an image that nobody else sees"),
    key("secrets", Refused, Honoured, "builds of the platform have no secrets"),
    key("shm_size", Ignored, Honoured, "builds use the platform's machine"),
    key("ssh", Refused, Honoured, "builds of the platform have no access to this machine"),
    key("tags", Ignored, Honoured, "the image has a name of its own"),
    key("target", Honoured, Honoured, "the stage to build"),
    key("ulimits", Ignored, Honoured, "builds use the platform's machine"),
];

/// Keys of `deploy`.
pub const DEPLOY: &[Key] = &[
    key("endpoint_mode", Ignored, Honoured, "for Swarm"),
    key("labels", Ignored, Honoured, "for Swarm"),
    key("mode", Ignored, Honoured, "for Swarm"),
    key("placement", Ignored, Honoured, "for Swarm"),
    key("replicas", Honoured, Honoured, "only 1"),
    key("resources", Honoured, Honoured, "limits before reservations; GPUs by count, `device_ids` or `all`"),
    key("restart_policy", Ignored, Honoured, "for Swarm"),
    key("rollback_config", Ignored, Honoured, "for Swarm"),
    key("update_config", Ignored, Honoured, "for Swarm"),
];

/// Keys of `healthcheck`.
pub const HEALTHCHECK: &[Key] = &[
    key("disable", Honoured, Honoured, ""),
    key("interval", Honoured, Honoured, "default 30s"),
    key("retries", Honoured, Honoured, "default 3"),
    key("start_interval", Honoured, Honoured, "default 5s"),
    key("start_period", Honoured, Honoured, "default 0s"),
    key(
        "test",
        Honoured,
        Honoured,
        "a list that begins with `CMD`, `CMD-SHELL` or `NONE`, or a line for the shell",
    ),
    key("timeout", Honoured, Honoured, "default 30s"),
];
