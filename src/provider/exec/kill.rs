//! The guard that kills a command nobody waits for any more.

use std::fmt::Write;
use std::time::Duration;

use super::answer::{Answered, REQUEST_MARGIN, shim_is_missing};
use crate::error::Result;
use crate::provider::sandbox::{Sandbox, Shim};
use crate::shim::protocol::{Action, Call, find_reply, quote};

/// Kills a command whose exec is dropped, in the background.
pub(super) struct KillOnDrop(Option<(Sandbox, Call, Vec<String>)>);

impl KillOnDrop {
    /// `uploads` are the files that belong to the call.
    pub(super) fn new(sandbox: &Sandbox, call: &Call, uploads: Vec<String>) -> Self {
        let call =
            Call { action: Action::Kill, acks: Vec::new(), wait: Duration::from_secs(10), ..call.clone() };
        Self(Some((sandbox.clone(), call, uploads)))
    }

    pub(super) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some((sandbox, call, uploads)) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                if let Err(error) = sandbox.kill(&call, &uploads).await {
                    tracing::debug!("a cancelled command may still run: {error}");
                }
            });
        }
    }
}

impl Sandbox {
    /// Ends a command that nobody waits for any more, and removes what belongs to it.
    async fn kill(&self, call: &Call, uploads: &[String]) -> Result<()> {
        let mut shim = self.shim();
        let mut answer = self.send_kill(&shim, call, uploads).await?;
        if find_reply(&answer.text, call.id).is_none() && shim_is_missing(answer.exit_code) {
            // any shim finds what runs
            shim = self.replace_shim(&shim).await?;
            answer = self.send_kill(&shim, call, uploads).await?;
        }
        if find_reply(&answer.text, call.id).is_some() {
            // nobody wants its result
            self.push_ack(call.user.as_deref(), call.id);
            return Ok(());
        }
        Err(self.broken(answer.exit_code, &answer.text).await)
    }

    async fn send_kill(&self, shim: &Shim, call: &Call, uploads: &[String]) -> Result<Answered> {
        let mut script = String::new();
        for path in uploads {
            // to a string, which is never full
            let _ = write!(script, "rm -f -- {}; ", quote(path));
        }
        script.push_str(&self.script(shim, 0, call));
        self.execute(shim.prepared(script), REQUEST_MARGIN).await
    }
}
