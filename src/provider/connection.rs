//! A way into a sandbox, or a container in it, for a person.

use crate::client::Client;
use crate::error::Result;
use crate::shim::protocol::quote;

use super::sandbox::Sandbox;

/// Minutes that a token for ssh lasts; it ends with the sandbox in any case.
const LASTS: u32 = 24 * 60;
/// The best shell of a container.
const SHELL: &str = "sh -c \"command -v bash >/dev/null && exec bash; exec sh\"";

impl Sandbox {
    /// A command for the user's terminal that opens a shell in this sandbox, or in the container that it is, as `user` or
    /// else as ssh's or the container's own user. Nothing is asked of the server: Inspect wants to know for every service
    /// of every sample, and hardly anybody ever enters one.
    pub fn shell_command(&self, user: Option<&str>) -> String {
        let container = self.container_id().map(|id| format!(" --container {id}")).unwrap_or_default();
        let user = user.map(|user| format!(" --user {}", quote(user))).unwrap_or_default();
        format!("inspect-daytona shell {}{container}{user}", self.id())
    }
}

/// What [`Sandbox::shell_command`] does: a command that enters the sandbox, or a container of it, by ssh. It holds a
/// fresh token, which ends the sandbox's earlier ones.
///
/// # Errors
///
/// If the server gives no token, or knows no such sandbox.
pub async fn ssh_command(
    client: &Client,
    sandbox: &str,
    container: Option<&str>,
    user: Option<&str>,
) -> Result<String> {
    let ssh = client.sandboxes().ssh_access(sandbox, LASTS).await?.ssh_command;
    Ok(inside(&ssh, container, user))
}

/// The command `ssh` with what it runs in the sandbox.
fn inside(ssh: &str, container: Option<&str>, user: Option<&str>) -> String {
    let command = match (container, user) {
        (None, None) => return ssh.to_owned(),
        (None, Some(user)) => {
            let user = quote(user);
            // images whose user is root often have no sudo
            format!("if command -v sudo >/dev/null; then exec sudo -iu {user}; else exec su - {user}; fi")
        }
        (Some(container), user) => {
            let user = user.map(|user| format!("--user {} ", quote(user))).unwrap_or_default();
            format!("docker exec -it {user}{} {SHELL}", quote(container))
        }
    };
    // without a terminal of its own the shell would have none either
    let rest = ssh.strip_prefix("ssh ").unwrap_or(ssh);
    format!("ssh -t {rest} {}", quote(&command))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSH: &str = "ssh -p 2222 token@ssh.example.org";

    #[test]
    fn a_sandbox_is_entered_as_the_server_says() {
        assert_eq!(inside(SSH, None, None), SSH);
    }

    #[test]
    fn another_user_of_a_sandbox_is_entered_on_a_terminal_through_sudo() {
        let command = inside(SSH, None, Some("o'neil"));
        assert!(command.starts_with("ssh -t -p 2222 token@ssh.example.org '"), "{command}");
        let line = command.split_once(" 'if").map(|(_, rest)| format!("if{}", rest.trim_end_matches('\'')));
        let line = line.unwrap().replace(r"'\''", "'");
        assert!(line.contains(r"exec sudo -iu 'o'\''neil';"), "{line}");
    }

    #[test]
    fn a_container_is_entered_through_its_engine() {
        let command = inside(SSH, Some("c1"), Some("me"));
        assert!(
            command.starts_with("ssh -t -p 2222 token@ssh.example.org 'docker exec -it --user "),
            "{command}"
        );
    }
}
