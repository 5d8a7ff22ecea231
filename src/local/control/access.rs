//! Tokens for other ways into a sandbox: ssh and signed preview URLs. Records only; nothing listens for ssh here.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use super::state::{token, uuid};
use super::timestamp;
use crate::api::sandbox::SshAccess;

/// All tokens of all sandboxes.
#[derive(Debug, Default)]
pub(super) struct Access {
    /// One per sandbox: creating access revokes every earlier token.
    ssh: HashMap<String, Ssh>,
    signed: HashMap<String, Signed>,
}

#[derive(Debug)]
struct Ssh {
    token: String,
    expires_at: SystemTime,
}

/// What a signed preview token opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signed {
    pub(super) sandbox: String,
    pub(super) port: u16,
    expires_at: SystemTime,
}

impl Access {
    pub(super) fn create_ssh(&mut self, sandbox: &str, lifetime: Duration, now: SystemTime) -> SshAccess {
        let (token, expires_at) = (token(32), now + lifetime);
        self.ssh.insert(sandbox.to_owned(), Ssh { token: token.clone(), expires_at });
        SshAccess {
            id: uuid(),
            sandbox_id: sandbox.to_owned(),
            expires_at: timestamp::format(expires_at),
            created_at: timestamp::format(now),
            updated_at: timestamp::format(now),
            ssh_command: format!("ssh {token}@localhost"),
            token,
        }
    }

    /// Revokes the token, or whichever there is.
    pub(super) fn revoke_ssh(&mut self, sandbox: &str, token: Option<&str>) {
        if self.ssh.get(sandbox).is_some_and(|ssh| token.is_none_or(|token| token == ssh.token)) {
            self.ssh.remove(sandbox);
        }
    }

    /// The sandbox that an ssh token opens.
    pub(super) fn validate_ssh(&self, token: &str, now: SystemTime) -> Option<&str> {
        let (sandbox, _) = self.ssh.iter().find(|(_, ssh)| ssh.token == token && ssh.expires_at > now)?;
        Some(sandbox)
    }

    pub(super) fn sign(&mut self, sandbox: &str, port: u16, lifetime: Duration, now: SystemTime) -> String {
        self.signed.retain(|_, signed| signed.expires_at > now);
        let token = token(16);
        let signed = Signed { sandbox: sandbox.to_owned(), port, expires_at: now + lifetime };
        self.signed.insert(token.clone(), signed);
        token
    }

    pub(super) fn expire(&mut self, sandbox: &str, port: u16, token: &str) {
        if self.signed.get(token).is_some_and(|signed| signed.sandbox == sandbox && signed.port == port) {
            self.signed.remove(token);
        }
    }

    /// What a signed token opens on a port.
    pub(super) fn signed(&self, token: &str, port: u16, now: SystemTime) -> Option<&str> {
        let signed =
            self.signed.get(token).filter(|signed| signed.port == port && signed.expires_at > now)?;
        Some(&signed.sandbox)
    }

    /// Forgets everything about a sandbox.
    pub(super) fn forget(&mut self, sandbox: &str) {
        self.ssh.remove(sandbox);
        self.signed.retain(|_, signed| signed.sandbox != sandbox);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_ssh_access_revokes_the_earlier_one_and_ends_in_time() {
        let (mut access, now) = (Access::default(), SystemTime::now());
        let first = access.create_ssh("a", Duration::from_secs(60), now);
        let second = access.create_ssh("a", Duration::from_secs(60), now);
        assert_eq!(access.validate_ssh(&first.token, now), None);
        assert_eq!(access.validate_ssh(&second.token, now), Some("a"));
        assert_eq!(access.validate_ssh(&second.token, now + Duration::from_secs(60)), None);
        access.revoke_ssh("a", Some("another"));
        assert_eq!(access.validate_ssh(&second.token, now), Some("a"));
        access.revoke_ssh("a", None);
        assert_eq!(access.validate_ssh(&second.token, now), None);
    }

    #[test]
    fn a_signed_token_opens_its_port_until_it_expires() {
        let (mut access, now) = (Access::default(), SystemTime::now());
        let token = access.sign("a", 80, Duration::from_secs(60), now);
        assert_eq!(token.len(), 16);
        assert_eq!(access.signed(&token, 80, now), Some("a"));
        assert_eq!(access.signed(&token, 81, now), None);
        access.expire("b", 80, &token);
        assert_eq!(access.signed(&token, 80, now), Some("a"));
        access.expire("a", 80, &token);
        assert_eq!(access.signed(&token, 80, now), None);
    }
}
