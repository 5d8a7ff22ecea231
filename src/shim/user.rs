//! Who a command runs as, from the sandbox's own files: a static program has no name services.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;

use super::protocol::{Refusal, RefusalKind};
use super::system;

/// A user of the sandbox.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// The user's number.
    pub(super) uid: u32,
    /// The primary group.
    pub(super) gid: u32,
    /// The supplementary groups.
    pub(super) groups: Vec<u32>,
    /// The entry's name; a number without an entry has none.
    name: Option<Vec<u8>>,
    home: Vec<u8>,
    shell: Option<Vec<u8>>,
    /// Whether the call names a group, which is a wish to switch even for the same user.
    names_group: bool,
}

impl Identity {
    /// Looks `user` up, which is a name or number, `name:group` or `number:group`, with the rules of `docker exec`: a number needs
    /// no entry and then has group 0 and home `/`; a named group replaces all others.
    pub(super) fn look_up(user: &str) -> Result<Self, Refusal> {
        let read = |path| fs::read(path).unwrap_or_default();
        Self::look_up_in(user, &read("/etc/passwd"), &read("/etc/group"))
    }

    fn look_up_in(user: &str, passwd: &[u8], group: &[u8]) -> Result<Self, Refusal> {
        let (user, group_name) = match user.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (user, None),
        };
        let number = user.parse().ok();
        let entries = || entries(passwd, 7);
        let named = entries().find(|entry| entry[0] == user.as_bytes());
        let numbered = || entries().find(|entry| number.is_some() && decimal(entry[2]) == number);
        let mut identity = match (named.or_else(numbered), number) {
            (Some(entry), _) => Self::of_entry(&entry, group)
                .ok_or_else(|| unknown(format!("the entry of user {user} in /etc/passwd is damaged")))?,
            (None, Some(uid)) => Self {
                uid,
                gid: 0,
                groups: Vec::new(),
                name: None,
                home: b"/".to_vec(),
                shell: None,
                names_group: false,
            },
            (None, None) => {
                return Err(unknown(format!("unknown user {user}: no such entry in /etc/passwd")));
            }
        };
        if let Some(name) = group_name {
            let by_name = self::entries(group, 4).find(|entry| entry[0] == name.as_bytes());
            identity.gid = by_name
                .and_then(|entry| decimal(entry[2]))
                .or_else(|| name.parse().ok())
                .ok_or_else(|| unknown(format!("unknown group {name}: no such entry in /etc/group")))?;
            identity.groups.clear();
            identity.names_group = true;
        }
        Ok(identity)
    }

    fn of_entry(entry: &[&[u8]], group: &[u8]) -> Option<Self> {
        let name = entry[0];
        let groups = entries(group, 4)
            .filter(|entry| entry[3].split(|byte| *byte == b',').any(|member| member == name))
            .filter_map(|entry| decimal(entry[2]))
            .collect();
        Some(Self {
            uid: decimal(entry[2])?,
            gid: decimal(entry[3])?,
            groups,
            name: Some(name.to_vec()),
            home: if entry[5].is_empty() { b"/".to_vec() } else { entry[5].to_vec() },
            shell: (!entry[6].is_empty()).then(|| entry[6].to_vec()),
            names_group: false,
        })
    }

    /// Whether this process is that user already.
    pub(super) fn is_current(&self) -> bool {
        self.uid == system::effective_user() && !self.names_group
    }

    /// The variables that tell a program whose it is.
    pub(super) fn variables(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let name = self.name.as_ref();
        let mut variables = vec![(b"HOME".to_vec(), self.home.clone())];
        for (variable, value) in [("USER", name), ("LOGNAME", name), ("SHELL", self.shell.as_ref())] {
            variables.extend(value.map(|value| (variable.into(), value.clone())));
        }
        variables
    }

    /// How messages call the user.
    pub(super) fn display(&self) -> String {
        let name = self.name.clone().map(|name| OsString::from_vec(name).to_string_lossy().into_owned());
        name.unwrap_or_else(|| self.uid.to_string())
    }
}

fn unknown(message: String) -> Refusal {
    Refusal { kind: RefusalKind::UnknownUser, message }
}

/// The lines of `file` that have at least `fields` fields.
fn entries(file: &[u8], fields: usize) -> impl Iterator<Item = Vec<&[u8]>> {
    file.split(|byte| *byte == b'\n')
        .map(|line| line.split(|byte| *byte == b':').collect::<Vec<_>>())
        .filter(move |entry| entry.len() >= fields)
}

fn decimal(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] =
        b"root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001:,,,:/home/ann:\nbroken\n42:x:7:8::/seven:/bin/sh\n";
    const GROUP: &[u8] = b"root:x:0:\nann:x:1001:\nwheel:x:10:bob,ann\naudio:x:29:ann\nannex:x:30:annex\n";

    fn look_up(user: &str) -> Result<Identity, Refusal> {
        Identity::look_up_in(user, PASSWD, GROUP)
    }

    #[test]
    fn a_user_has_the_groups_that_list_it() {
        let ann = look_up("ann").unwrap();
        assert_eq!((ann.uid, ann.gid, ann.groups.as_slice()), (1000, 1001, [10, 29].as_slice()));
        assert_eq!(ann, look_up("1000").unwrap(), "by number, too");
        let variables = [("HOME", "/home/ann"), ("USER", "ann"), ("LOGNAME", "ann")];
        assert_eq!(ann.variables(), variables.map(|(name, value)| (name.into(), value.into())));
    }

    #[test]
    fn a_number_without_an_entry_has_group_zero() {
        let nobody = look_up("4711").unwrap();
        assert_eq!((nobody.uid, nobody.gid, nobody.groups.is_empty()), (4711, 0, true));
        assert_eq!(nobody.variables(), [(b"HOME".to_vec(), b"/".to_vec())]);
    }

    #[test]
    fn a_name_made_of_digits_wins_over_the_number() {
        assert_eq!(look_up("42").unwrap().uid, 7);
    }

    #[test]
    fn a_named_group_replaces_the_others() {
        for user in ["ann:wheel", "1000:10"] {
            let ann = look_up(user).unwrap();
            assert_eq!((ann.gid, ann.groups.is_empty()), (10, true), "{user}");
        }
        assert_eq!(look_up("ann:4711").unwrap().gid, 4711);
    }

    #[test]
    fn unknown_names_are_named() {
        assert!(look_up("nonexistent").unwrap_err().message.contains("nonexistent"));
        assert!(look_up("ann:nogroup").unwrap_err().message.contains("nogroup"));
        assert_eq!(look_up("-1").unwrap_err().kind, RefusalKind::UnknownUser);
    }
}
