//! The stand-in for `sudo` where a sandbox cannot use the machine's own: the program itself, set-user-id root.
//!
//! `daytona`, members of the group `sudo`, and root may do everything without a password; nobody else may anything.

mod invocation;

use std::ffi::{CString, OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{getgid, getuid};

use self::invocation::{Action, Invocation, Shell};
use super::accounts::{self, Account};
use super::system;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Variables that the target keeps from the caller, beside `LC_*`.
const KEPT: [&str; 6] = ["TERM", "LANG", "LANGUAGE", "DISPLAY", "COLORTERM", "TZ"];

/// Runs `sudo arguments…`. Returns the exit status where there is nothing to run.
pub(super) fn run(arguments: Vec<OsString>) -> i32 {
    match Invocation::parse(arguments).and_then(|invocation| obey(&invocation)) {
        Ok(text) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            0
        }
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "sudo: {message}");
            1
        }
    }
}

/// Returns what is to be printed; a command that runs does not return.
fn obey(invocation: &Invocation) -> Result<String, String> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let caller = accounts::account(&passwd, &format!("#{}", getuid()))
        .ok_or("you do not exist in the passwd database")?;
    if !nix::unistd::geteuid().is_root() {
        return Err("must be owned by uid 0 and have the setuid bit set".into());
    }
    let sudoers = accounts::group_id(&group, "sudo");
    let trusted = caller.uid == 0
        || caller.name == "daytona"
        || sudoers.is_some_and(|id| accounts::groups(&group, &caller).contains(&id));
    if !trusted {
        return Err(format!("{} is not in the sudoers file", caller.name));
    }
    match invocation.action {
        Action::Version => Ok(format!("Sudo stand-in of inspect-daytona {}\n", env!("CARGO_PKG_VERSION"))),
        Action::Help => Ok("usage: sudo [-bEHnS] [-D directory] [-g group] [-u user] [VAR=value] [-i | -s] [command [arg ...]]\n".into()),
        Action::List => Ok(format!("User {} may run the following commands:\n    (ALL : ALL) NOPASSWD: ALL\n", caller.name)),
        Action::Nothing => Ok(String::new()),
        Action::Run => Err(execute(invocation, &caller, &passwd, &group)),
    }
}

/// Becomes the command, or says why not.
fn execute(invocation: &Invocation, caller: &Account, passwd: &str, group: &str) -> String {
    let default = if invocation.group.is_some() { caller.name.as_str() } else { "root" };
    let wanted = invocation.user.as_deref().unwrap_or(default);
    let Some(target) = accounts::account(passwd, wanted) else {
        return format!("unknown user {wanted}");
    };
    let mut groups = accounts::groups(group, &target);
    let mut gid = target.gid;
    if let Some(wanted) = &invocation.group {
        let Some(id) = accounts::group_id(group, wanted) else { return format!("unknown group {wanted}") };
        gid = id;
        groups.insert(0, id);
    }
    let command = command_line(invocation, &target);
    let Some(name) = command.first() else { return "a command is required; see sudo --help".into() };
    let environment = environment(invocation, caller, &target, &command);
    let path = environment
        .iter()
        .find(|(name, _)| name == "PATH")
        .map_or_else(|| PATH.into(), |(_, value)| value.clone());
    let Some(program) = find(name, &path) else {
        return format!("{}: command not found", name.to_string_lossy());
    };
    let login = invocation.shell == Some(Shell::Login);
    if let Some(directory) = invocation.directory.as_deref().or(login.then_some(&target.home))
        && let Err(error) = std::env::set_current_dir(directory)
    {
        return format!("unable to change directory to {}: {error}", directory.display());
    }
    // in a namespace of one id there are no groups to choose from
    let single = std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny");
    if let Err(error) = system::become_user(target.uid, gid, (!single).then_some(&groups[..])) {
        return format!("unable to become {}: {error}", target.name);
    }
    if invocation.background && !system::go_to_background() {
        return "unable to fork".into();
    }
    let _ = system::close_from(3);
    let argv0 = match (login, program.file_name()) {
        (true, Some(name)) => [OsStr::new("-"), name].join(OsStr::new("")),
        _ => name.clone(),
    };
    let arguments = std::iter::once(argv0).chain(command[1..].iter().cloned());
    let c_string = |text: OsString| CString::new(text.into_vec()).ok();
    let argv: Vec<CString> = arguments.filter_map(c_string).collect();
    let envp: Vec<CString> = environment
        .into_iter()
        .filter_map(|(name, value)| c_string([name, value].join(OsStr::new("="))))
        .collect();
    let Some(path) = c_string(program.clone().into_os_string()) else {
        return "the command contains NUL".into();
    };
    match nix::unistd::execve(&path, &argv, &envp) {
        Ok(never) => match never {},
        Err(Errno::ENOEXEC) => run_script(&program, &argv, &envp),
        Err(error) => format!("unable to execute {}: {}", program.display(), error.desc()),
    }
}

/// A text without `#!` is a shell's, as `execvp` has it.
fn run_script(program: &Path, argv: &[CString], envp: &[CString]) -> String {
    let mut script = vec![c"sh".to_owned()];
    script.extend(CString::new(program.as_os_str().as_bytes()));
    script.extend(argv.iter().skip(1).cloned());
    match nix::unistd::execve(c"/bin/sh", &script, envp) {
        Ok(never) => match never {},
        Err(error) => format!("unable to execute /bin/sh: {}", error.desc()),
    }
}

/// The command, or the shell that runs it.
fn command_line(invocation: &Invocation, target: &Account) -> Vec<OsString> {
    let shell = match invocation.shell {
        None => return invocation.command.clone(),
        Some(Shell::Login) => target.shell.clone().into(),
        Some(Shell::Plain) => std::env::var_os("SHELL").unwrap_or_else(|| target.shell.clone().into()),
    };
    if invocation.command.is_empty() {
        return vec![shell];
    }
    let quoted: Vec<OsString> = invocation.command.iter().map(|word| quote(word)).collect();
    vec![shell, "-c".into(), quoted.join(OsStr::new(" "))]
}

/// As sudo does: a backslash before everything that may mean something to a shell, but `$`.
fn quote(word: &OsStr) -> OsString {
    let mut quoted = Vec::new();
    for &byte in word.as_bytes() {
        if !byte.is_ascii_alphanumeric() && !matches!(byte, b'_' | b'-' | b'$') && byte.is_ascii() {
            quoted.push(b'\\');
        }
        quoted.push(byte);
    }
    OsString::from_vec(quoted)
}

fn environment(
    invocation: &Invocation,
    caller: &Account,
    target: &Account,
    command: &[OsString],
) -> Vec<(OsString, OsString)> {
    let mut variables: Vec<(OsString, OsString)> = std::env::vars_os()
        .filter(|(name, _)| {
            invocation.preserve_all
                || KEPT.iter().any(|kept| name == kept)
                || invocation.preserve.iter().any(|kept| name == kept.as_str())
                || name.as_bytes().starts_with(b"LC_")
        })
        .collect();
    let mut set = |name: &str, value: OsString| {
        variables.retain(|(known, _)| known != name);
        variables.push((name.into(), value));
    };
    if !invocation.preserve_all || invocation.set_home || invocation.shell == Some(Shell::Login) {
        set("HOME", target.home.clone().into());
    }
    if !invocation.preserve_all {
        for name in ["USER", "LOGNAME"] {
            set(name, target.name.clone().into());
        }
        set("SHELL", target.shell.clone().into());
    }
    set("PATH", PATH.into());
    set("SUDO_COMMAND", command.join(OsStr::new(" ")));
    set("SUDO_USER", caller.name.clone().into());
    set("SUDO_UID", caller.uid.to_string().into());
    set("SUDO_GID", getgid().to_string().into());
    for (name, value) in &invocation.variables {
        set(name, value.clone());
    }
    variables
}

fn find(name: &OsStr, path: &OsStr) -> Option<PathBuf> {
    let is_program = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if name.as_bytes().contains(&b'/') {
        return is_program(Path::new(name)).then(|| name.into());
    }
    std::env::split_paths(path).map(|directory| directory.join(name)).find(|path| is_program(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_shell_gets_its_command_quoted_as_sudo_does() {
        assert_eq!(quote(OsStr::new("a b;$HOME-1_x")), "a\\ b\\;$HOME-1_x");
    }
}
