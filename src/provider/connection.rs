//! A way into a container for a person.

use crate::client::Client;
use crate::error::Result;
use crate::shim::protocol::quote;

use super::sandbox::Sandbox;

/// Minutes that a token for ssh lasts; it ends with the sandbox in any case.
const LASTS: u32 = 24 * 60;
/// The best shell of a container.
const SHELL: &str = "sh -c \"command -v bash >/dev/null && exec bash; exec sh\"";

impl Sandbox {
    /// A command for the user's terminal that opens a shell in this container, as `user` or else as the container's own
    /// user; `None` for a sandbox that is no container. Nothing is asked of the server: Inspect wants to know for every
    /// service of every sample, and hardly anybody ever enters one.
    pub fn shell_command(&self, user: Option<&str>) -> Option<String> {
        let container = self.container_id()?;
        let user = user.map(|user| format!(" --user {}", quote(user))).unwrap_or_default();
        Some(format!("inspect-daytona shell {} --container {container}{user}", self.id()))
    }
}

/// What [`Sandbox::shell_command`] does: a command that enters the container of a sandbox by ssh. It holds a fresh token,
/// which ends the sandbox's earlier ones.
///
/// # Errors
///
/// If the server gives no token, or knows no such sandbox.
pub async fn ssh_command(
    client: &Client,
    sandbox: &str,
    container: &str,
    user: Option<&str>,
) -> Result<String> {
    let ssh = client.sandboxes().ssh_access(sandbox, LASTS).await?.ssh_command;
    let user = user.map(|user| format!("--user {} ", quote(user))).unwrap_or_default();
    let inside = quote(&format!("docker exec -it {user}{} {SHELL}", quote(container)));
    // without a terminal of its own the shell would have none either
    let rest = ssh.strip_prefix("ssh ").unwrap_or(&ssh);
    Ok(format!("ssh -t {rest} {inside}"))
}
