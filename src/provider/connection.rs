//! A way into a container for a person.

use crate::error::{Error, ErrorKind, Result};
use crate::shim::protocol::quote;

use super::sandbox::Sandbox;

/// Minutes that a way in lasts; it ends with the sandbox in any case.
const LASTS: u32 = 24 * 60;
/// The best shell of a container.
const SHELL: &str = "sh -c \"command -v bash >/dev/null && exec bash; exec sh\"";

impl Sandbox {
    /// A command for the user's terminal that opens a shell in this container, as `user` or else as the container's own
    /// user. It holds a token for ssh, one for all containers of a sandbox, since a new one ends the earlier ones.
    ///
    /// # Errors
    ///
    /// If the server gives no token; [`ErrorKind::Unsupported`] for a sandbox that is no container.
    pub async fn shell_command(&self, user: Option<&str>) -> Result<String> {
        let Some(id) = self.container_id() else {
            return Err(
                Error::new(ErrorKind::Unsupported, "the sandbox is no container").with_sandbox(self.label())
            );
        };
        let ssh = self.ssh_command(LASTS).await?;
        let user = user.map(|user| format!("--user {} ", quote(user))).unwrap_or_default();
        let inside = quote(&format!("docker exec -it {user}{id} {SHELL}"));
        // without a terminal of its own the shell would have none either
        let rest = ssh.strip_prefix("ssh ").unwrap_or(ssh);
        Ok(format!("ssh -t {rest} {inside}"))
    }
}
