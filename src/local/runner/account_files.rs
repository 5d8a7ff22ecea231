//! The accounts of a sandbox: the machine's system accounts, `daytona`, and none of the machine's people.

use std::fs;

use super::base_layer::Layer;
use crate::local::wire::{Context, Failure};

/// Ids from here on are people's.
const PEOPLE: u32 = 1000;
const NOBODY: u32 = 65534;

/// Writes the account files of `/etc`.
pub(super) fn write(layer: &Layer<'_>) -> Result<(), Failure> {
    let read = |name: &str| fs::read_to_string(format!("/etc/{name}")).step(|| format!("read /etc/{name}"));
    let users = layer.identity.has_users();
    let passwd = passwd(&read("passwd")?, users);
    let group = group(&read("group")?, users);
    let write = |name: &str, text: &str, mode: u32| {
        layer
            .file(&format!("etc/{name}"), text.as_bytes(), mode)
            .step(|| format!("write the sandbox's {name}"))
    };
    write("shadow", &shadow(&passwd), 0o640)?;
    write("gshadow", &gshadow(&group), 0o640)?;
    write("passwd", &passwd, 0o644)?;
    write("group", &group, 0o644)?;
    // a sandbox has 65536 ids, so there are none to hand out
    write("subuid", "", 0o644)?;
    write("subgid", "", 0o644)?;
    write("sudoers", SUDOERS, 0o440)?;
    layer.directory("etc/sudoers.d", 0o750, 0).step(|| "write the sandbox's sudoers.d".into())
}

const SUDOERS: &str = "Defaults env_reset
Defaults secure_path=\"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"
root ALL=(ALL:ALL) ALL
daytona ALL=(ALL:ALL) NOPASSWD: ALL
";

fn is_of_system(line: &str) -> bool {
    let id = line.split(':').nth(2).and_then(|id| id.parse::<u32>().ok());
    id.is_some_and(|id| id < PEOPLE || id == NOBODY) && !line.starts_with("daytona:")
}

/// Without users, `daytona` is a second name of root, and the first one found for its id.
fn passwd(host: &str, users: bool) -> String {
    let mut lines: Vec<&str> = host.lines().filter(|line| is_of_system(line)).collect();
    if users {
        lines.push("daytona:x:1000:1000:Daytona:/home/daytona:/bin/bash");
    } else {
        lines.insert(0, "daytona:x:0:0:Daytona:/home/daytona:/bin/bash");
    }
    lines.join("\n") + "\n"
}

fn group(host: &str, users: bool) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in host.lines().filter(|line| is_of_system(line)) {
        // people of the machine are members of system groups; they do not exist inside
        let mut fields = line.split(':');
        let (Some(name), Some(_), Some(id)) = (fields.next(), fields.next(), fields.next()) else { continue };
        lines.push(format!("{name}:x:{id}:{}", if name == "sudo" { "daytona" } else { "" }));
    }
    if !lines.iter().any(|line| line.starts_with("sudo:")) && !lines.iter().any(|line| line.contains(":27:"))
    {
        lines.push("sudo:x:27:daytona".into());
    }
    if users {
        lines.push("daytona:x:1000:".into());
    } else {
        lines.insert(0, "daytona:x:0:".into());
    }
    lines.join("\n") + "\n"
}

/// Nobody has a password.
fn shadow(passwd: &str) -> String {
    lines(names(passwd).map(|name| format!("{name}:*:19000:0:99999:7:::")))
}

fn gshadow(group: &str) -> String {
    lines(names(group).map(|name| format!("{name}:*::{}", if name == "sudo" { "daytona" } else { "" })))
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

fn names(file: &str) -> impl Iterator<Item = &str> {
    file.lines().filter_map(|line| line.split(':').next())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "root:x:0:0:root:/root:/bin/zsh\nalice:x:1000:1000::/home/alice:/bin/sh\n\
                        nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";

    #[test]
    fn people_of_the_machine_are_not_in_a_sandbox() {
        let text = passwd(HOST, true);
        assert!(!text.contains("alice"), "{text}");
        assert!(text.contains("nobody:x:65534"), "{text}");
        assert!(text.ends_with("daytona:x:1000:1000:Daytona:/home/daytona:/bin/bash\n"), "{text}");
        let groups = group("root:x:0:\nadm:x:4:alice\nalice:x:1000:\n", true);
        assert_eq!(groups, "root:x:0:\nadm:x:4:\nsudo:x:27:daytona\ndaytona:x:1000:\n");
    }

    #[test]
    fn without_users_the_first_name_of_the_only_one_is_daytona() {
        assert!(passwd(HOST, false).starts_with("daytona:x:0:0:"));
    }

    #[test]
    fn nobody_has_a_password() {
        assert_eq!(shadow("a:x:1:1:::\nb:x:2:2:::\n"), "a:*:19000:0:99999:7:::\nb:*:19000:0:99999:7:::\n");
    }
}
