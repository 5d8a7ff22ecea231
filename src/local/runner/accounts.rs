//! The user and group files of a root file system, read without the C library, which would need its modules there.

use std::path::{Path, PathBuf};

/// A line of `passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// Login name.
    pub(super) name: String,
    /// User id.
    pub(super) uid: u32,
    /// Primary group.
    pub(super) gid: u32,
    /// Home directory.
    pub(super) home: PathBuf,
    /// Login shell.
    pub(super) shell: String,
}

/// The account with this name, or with this number, as `1000` or `#1000`.
pub(super) fn account(passwd: &str, user: &str) -> Option<Account> {
    let number = user.strip_prefix('#').unwrap_or(user).parse::<u32>().ok();
    let mut accounts = passwd.lines().filter_map(parse);
    let named = accounts.clone().find(|account| account.name == user);
    named.or_else(|| accounts.find(|account| Some(account.uid) == number)).or_else(|| {
        // a root file system need not list anybody; root and numbers exist all the same
        let uid = if user == "root" { 0 } else { number? };
        let home = PathBuf::from(if uid == 0 { "/root" } else { "/" });
        Some(Account {
            name: user.trim_start_matches('#').into(),
            uid,
            // as Docker starts a number that nobody has
            gid: 0,
            home,
            shell: "/bin/sh".into(),
        })
    })
}

fn parse(line: &str) -> Option<Account> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, shell] = fields[..] else { return None };
    Some(Account {
        name: name.into(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        home: Path::new(if home.is_empty() { "/" } else { home }).into(),
        shell: if shell.is_empty() { "/bin/sh" } else { shell }.into(),
    })
}

/// Every group of an account: its own one first, then those that list it.
pub(super) fn groups(group: &str, account: &Account) -> Vec<u32> {
    let mut groups = vec![account.gid];
    for line in group.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, gid, members] = fields[..] else { continue };
        let Ok(gid) = gid.parse() else { continue };
        if members.split(',').any(|member| member == account.name) && !groups.contains(&gid) {
            groups.push(gid);
        }
    }
    groups
}

/// The id of a group by name or number.
pub(super) fn group_id(group: &str, wanted: &str) -> Option<u32> {
    let named = group.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(wanted)).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    named.or_else(|| wanted.strip_prefix('#').unwrap_or(wanted).parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\ndaytona:x:1000:1001:,,,:/home/daytona:\nbroken:x\n";

    #[test]
    fn accounts_are_found_by_name_and_number() {
        assert_eq!(account(PASSWD, "daytona").unwrap().gid, 1001);
        assert_eq!(account(PASSWD, "#1000").unwrap().name, "daytona");
        assert_eq!(account(PASSWD, "daytona").unwrap().shell, "/bin/sh");
        assert_eq!(account(PASSWD, "nobody"), None);
        assert_eq!(account("", "root").unwrap().home, Path::new("/root"));
        let nobody = account("", "#7").unwrap();
        assert_eq!((nobody.uid, nobody.gid), (7, 0));
    }

    #[test]
    fn supplementary_groups_follow_the_primary_one() {
        let daytona = account(PASSWD, "daytona").unwrap();
        let group = "root:x:0:\nsudo:x:27:a,daytona\ndaytona:x:1001:daytona\nnotdaytona:x:5:daytona2\n";
        assert_eq!(groups(group, &daytona), [1001, 27]);
        assert_eq!(group_id(group, "sudo"), Some(27));
        assert_eq!(group_id(group, "#4"), Some(4));
        assert_eq!(group_id(group, "absent"), None);
    }
}
