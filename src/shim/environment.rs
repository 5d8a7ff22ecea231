//! The environment of a command: the toolbox's, without what its shell added, with what the caller wants.

use std::env;
use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;

use super::protocol::{ExecId, MARKER};
use super::user::Identity;

/// Variables by name, in order.
pub(super) type Variables = Vec<(Vec<u8>, Vec<u8>)>;

/// What shells set by themselves; the toolbox did not say it.
const OF_THE_SHELL: [&[u8]; 3] = [b"_", b"OLDPWD", b"SHLVL"];
/// What belongs to a user rather than to a sandbox.
const OF_THE_USER: [&[u8]; 5] = [b"HOME", b"LOGNAME", b"MAIL", b"SHELL", b"USER"];

/// The toolbox's environment.
pub(super) fn of_the_toolbox() -> Variables {
    env::vars_os()
        .map(|(name, value)| (name.into_vec(), value.into_vec()))
        .filter(|(name, _)| !OF_THE_SHELL.contains(&name.as_slice()) && name != MARKER.as_bytes())
        .collect()
}

/// `base` without what belongs to its user.
pub(super) fn without_user(mut base: Variables) -> Variables {
    base.retain(|(name, _)| !OF_THE_USER.contains(&name.as_slice()));
    base
}

/// Sets each variable of `added` in `base`; the last one of a name counts.
pub(super) fn merge(mut base: Variables, added: &[(Vec<u8>, Vec<u8>)]) -> Variables {
    for (name, value) in added {
        set(&mut base, name, value);
    }
    base
}

fn set(variables: &mut Variables, name: &[u8], value: &[u8]) {
    variables.retain(|(existing, _)| existing != name);
    variables.push((name.to_vec(), value.to_vec()));
}

/// The environment of the command `id`: `base`, then who runs it, then what the caller `added`, then the marker.
pub(super) fn for_command(
    id: ExecId,
    base: Variables,
    identity: Option<&Identity>,
    added: &[(Vec<u8>, Vec<u8>)],
    moves: bool,
) -> Variables {
    let mut variables = base;
    if moves {
        // It names the directory that the command is not started in.
        variables.retain(|(name, _)| name != b"PWD");
    }
    if let Some(identity) = identity {
        variables = merge(without_user(variables), &identity.variables());
    }
    variables = merge(variables, added);
    set(&mut variables, MARKER.as_bytes(), id.to_string().as_bytes());
    variables
}

/// The value of `name`.
pub(super) fn value<'variables>(variables: &'variables Variables, name: &[u8]) -> Option<&'variables [u8]> {
    variables.iter().find(|(existing, _)| existing == name).map(|(_, value)| value.as_slice())
}

/// The variables as a program receives them; `None` if one contains NUL.
pub(super) fn as_strings(variables: &Variables) -> Option<Vec<CString>> {
    let join = |(name, value): &(Vec<u8>, Vec<u8>)| CString::new([name.as_slice(), b"=", value].concat());
    variables.iter().map(|variable| join(variable).ok()).collect()
}
