//! The interface through which a sandbox reaches its gateway.
//!
//! It is a tunnel: what the sandbox sends can be read from a descriptor, and nothing leaves the sandbox otherwise. Only
//! the server holds that descriptor; when it is closed, the interface is gone.

use std::fs::File;
use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;

use super::system;
use crate::local::spec::{GATEWAY_ADDRESS, GATEWAY_MTU, GATEWAY_NETWORK, SANDBOX_ADDRESS};
use crate::local::wire::{Context, Failure};

const NAME: &std::ffi::CStr = c"eth0";

/// The network namespace of a process.
pub(super) fn namespace_of(pid: Pid) -> Result<OwnedFd, Failure> {
    File::open(format!("/proc/{pid}/ns/net"))
        .map(OwnedFd::from)
        .step(|| "find the sandbox's network namespace".into())
}

/// Takes this process into the namespace and makes the interface there. Returns the gateway's end.
pub(super) fn create(namespace: &OwnedFd) -> Result<OwnedFd, Failure> {
    setns(namespace, CloneFlags::CLONE_NEWNET).step(|| "enter the sandbox's network namespace".into())?;
    let tunnel = system::tunnel(NAME).step(|| "make the sandbox's interface (/dev/net/tun)".into())?;
    let mask = u32::MAX.checked_shl(32 - u32::from(GATEWAY_NETWORK.prefix)).unwrap_or(0);
    system::address_interface(NAME, SANDBOX_ADDRESS, mask.into(), GATEWAY_MTU)
        .step(|| "give the sandbox's interface its address".into())?;
    system::interface_up(NAME).step(|| "switch the sandbox's interface on".into())?;
    system::default_route(GATEWAY_ADDRESS).step(|| "set the sandbox's default route".into())?;
    Ok(tunnel)
}
