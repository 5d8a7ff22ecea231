//! The gateway of a sandbox with a network of its own.
//!
//! The sandbox sends packets into a tunnel whose other end is here: what is read from it is taken apart in this process,
//! and what the sandbox may reach is connected to by ordinary sockets of this machine. There is no other way out, so
//! nothing that root does inside changes what is reachable; and nothing of this machine's own firewall or routes is
//! touched.
//!
//! | protocol | what happens |
//! |---|---|
//! | TCP | the connection is made first, then the sandbox's is accepted, so that it sees a refusal as a refusal |
//! | UDP | relayed, one socket for each pair of endpoints |
//! | DNS | answered at the gateway's address by the machine's name servers |
//! | anything else, IPv6 | answered with "administratively prohibited", or dropped |
//!
//! What the rules forbid is answered with "administratively prohibited", which programs see as "no route to host".

mod datagrams;
mod device;
mod dns;
mod packet;
mod pump;
mod relay;
mod resolver;
mod rules;
mod stack;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use self::resolver::Resolver;
use self::rules::Rules;
use self::stack::Stack;
use super::spec::Access;
use crate::error::{Error, ErrorKind, Result};

/// A gateway that runs. Dropping it takes the sandbox's interface away.
#[derive(Debug)]
pub(super) struct Gateway {
    rules: Arc<Rules>,
    changed: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Gateway {
    /// Serves the sandbox at the other end of `tunnel`. Names are asked from `resolvers`; from those of the machine's
    /// `/etc/resolv.conf` where there are none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::System`] where the tunnel cannot be watched.
    pub(super) fn open(tunnel: OwnedFd, access: Access, resolvers: &[SocketAddr]) -> Result<Self> {
        let tunnel = device::watch(tunnel).map_err(|error| {
            Error::new(ErrorKind::System, "cannot watch the sandbox's network interface").with_source(error)
        })?;
        let (rules, changed) = (Arc::new(Rules::new(access)), Arc::new(Notify::new()));
        let stack = Stack::new(tunnel, Arc::clone(&rules), Resolver::new(resolvers.to_vec()));
        let task = tokio::spawn(stack.run(Arc::clone(&changed)));
        Ok(Self { rules, changed, task })
    }

    /// Takes the sandbox's interface away and returns when it is gone.
    pub(super) async fn end(mut self) {
        self.task.abort();
        // an error is what an aborted task ends with
        let _ = (&mut self.task).await;
    }

    /// Changes what is let through: at once for new connections, in a moment for those that exist.
    pub(super) fn allow(&self, access: Access) {
        self.rules.change(access);
        self.changed.notify_one();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}
