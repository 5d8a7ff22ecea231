//! Tokens for another way into a sandbox: signed preview URLs.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use super::state::token;

/// All tokens of all sandboxes.
#[derive(Debug, Default)]
pub(super) struct Access {
    signed: HashMap<String, Signed>,
}

/// What a signed preview token opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signed {
    pub(super) sandbox: String,
    pub(super) port: u16,
    expires_at: SystemTime,
}

impl Access {
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
        self.signed.retain(|_, signed| signed.sandbox != sandbox);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
