//! What a sandbox is to be: sent by the control plane to the runner as JSON.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything the runner needs to make one sandbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Id; unique and never reused, since it names the cgroup and the directory.
    pub id: String,
    /// Host name inside.
    pub hostname: String,
    /// The user that the toolbox and commands run as, by name or number, optionally with `:group`. Default images:
    /// `daytona`, with passwordless sudo.
    pub user: String,
    /// Environment of the toolbox, and so of every command, beside what an image sets.
    pub env: BTreeMap<String, String>,
    /// Working directory of the toolbox, made if it is missing; the user's home where absent.
    pub work_dir: Option<PathBuf>,
    /// What the toolbox starts beside itself; nothing where empty.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// What the sandbox sees as `/`.
    pub root: RootFs,
    /// Network access.
    pub network: Network,
    /// Whether containers are to run inside: gives the sandbox control groups of its own below its limits, a fresh
    /// `/run`, and a `/var/lib/docker` on which layers can be stacked. Its network must be its own.
    #[serde(default)]
    pub nesting: bool,
    /// Directories of the machine that it shares with others.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Resource limits; what the machine cannot enforce is reported in the engine's `Isolation`.
    pub limits: Limits,
    /// Private directory of this sandbox on the host: its writable layer lives here and survives a stop.
    pub directory: PathBuf,
}

/// What a sandbox sees as `/`, always below a writable layer of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootFs {
    /// This machine's system directories, composed one by one; unknown top-level directories stay hidden.
    #[default]
    Host,
    /// A directory that holds a root file system.
    Directory(PathBuf),
}

/// A directory that sandboxes share, and that outlives them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The directory on the machine; made if it is missing.
    pub source: PathBuf,
    /// Which part of it, by a relative path without `.` and `..`; made if it is missing, and never a link.
    pub subpath: Option<PathBuf>,
    /// Where it is in the sandbox; made if it is missing.
    pub target: PathBuf,
}

/// Network access of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// The machine's network.
    #[default]
    Host,
    /// A loopback interface and nothing else.
    Blocked,
    /// A network of its own, from which everything leaves through a gateway in the server's process.
    Gateway(Access),
}

/// What a gateway lets through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Everything but what no sandbox reaches: this machine's loopback interface and link-local addresses.
    Everything,
    /// These networks, and names only where a name server is in one of them.
    Networks(Vec<Cidr>),
    /// Addresses that these names have. `*.example.com` is every name below `example.com`, not that name itself.
    Domains(Vec<String>),
}

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cidr {
    /// Any address of the network.
    pub address: Ipv4Addr,
    /// Bits that its addresses share, 0 to 32.
    pub prefix: u8,
}

impl Cidr {
    /// Reads `10.0.0.0/8`.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.trim().split_once('/')?;
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
        Some(Self { address: address.parse().ok()?, prefix })
    }

    /// Whether the network has this address.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        let difference = u32::from(self.address) ^ u32::from(address);
        difference.checked_shr(32 - u32::from(self.prefix)).unwrap_or(0) == 0
    }
}

/// The network between a sandbox and its gateway: a range that is reserved for measurements, so that hardly anything
/// that a sandbox wants to reach has an address in it.
pub const GATEWAY_NETWORK: Cidr = Cidr { address: Ipv4Addr::new(198, 18, 0, 0), prefix: 30 };
/// The gateway's address, which is also that of the name server.
pub const GATEWAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The sandbox's address.
pub const SANDBOX_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
/// Bytes of the largest packet between them.
pub const GATEWAY_MTU: u16 = 65_520;

/// Resource limits; `None` is unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Cores.
    pub cpus: Option<u32>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Number of processes.
    pub pids: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_of_its_prefix() {
        let network = Cidr::parse("10.1.2.3/8").unwrap();
        assert!(network.contains(Ipv4Addr::new(10, 255, 0, 1)));
        assert!(!network.contains(Ipv4Addr::new(11, 0, 0, 1)));
        assert!(Cidr::parse("0.0.0.0/0").unwrap().contains(Ipv4Addr::BROADCAST));
        let one = Cidr::parse("192.0.2.7/32").unwrap();
        assert!(one.contains(Ipv4Addr::new(192, 0, 2, 7)) && !one.contains(Ipv4Addr::new(192, 0, 2, 6)));
        for bad in ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/0", "/8", "10.0.0.0/-1"] {
            assert_eq!(Cidr::parse(bad), None, "{bad}");
        }
    }
}
