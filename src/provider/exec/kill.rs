//! The guard that kills a command nobody waits for any more.

use std::time::Duration;

use super::answer::REQUEST_MARGIN;
use crate::provider::sandbox::Sandbox;
use crate::shim::protocol::{Action, Call};

/// Kills a command whose exec is dropped, in the background.
pub(super) struct KillOnDrop(Option<(Sandbox, Call)>);

impl KillOnDrop {
    pub(super) fn new(sandbox: &Sandbox, call: &Call) -> Self {
        let call = Call { action: Action::Kill, acks: Vec::new(), ..call.clone() };
        Self(Some((sandbox.clone(), call)))
    }

    pub(super) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some((sandbox, call)) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { sandbox.kill(call).await });
        }
    }
}

impl Sandbox {
    /// Ends a command that nobody waits for any more.
    async fn kill(&self, call: Call) {
        let kill = Call { action: Action::Kill, acks: Vec::new(), wait: Duration::from_secs(10), ..call };
        let shim = self.shim();
        let request = shim.prepared(self.script(&shim, 0, &kill));
        if let Err(error) = self.execute(request, REQUEST_MARGIN).await {
            tracing::debug!("a cancelled command may still run: {error}");
        }
    }
}
