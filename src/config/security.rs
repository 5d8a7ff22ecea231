//! `security_opt`.

use super::FileKind;
use super::node::{Mapping, Node};
use super::plan::{LocalPath, Purpose};
use super::problem::Read;
use super::reading::Reading;

/// Values of `seccomp` that are no file.
const NO_FILE: [&str; 2] = ["unconfined", "builtin"];

/// Reads the options of a service. For several services Compose applies them, for which a seccomp profile has to be there;
/// for a single one those that widen have no effect, and those that narrow would be a weaker isolation than the file
/// asks for.
pub(crate) fn options(
    reading: &mut Reading<'_>,
    service: &Mapping,
    service_name: &str,
    local: &mut Vec<LocalPath>,
) -> Read<()> {
    let Some(node) = service.get("security_opt") else { return Ok(()) };
    for item in node.sequence("security_opt")? {
        let option = item.text("security_opt")?;
        if !reading.multi {
            check_single(reading, item, option)?;
        } else if let Some(written) = seccomp_profile(option) {
            local.push(LocalPath {
                service: service_name.to_owned(),
                purpose: Purpose::Seccomp,
                written: written.to_owned(),
                path: reading.path(written),
            });
            check_profile(reading, item, written)?;
        }
    }
    Ok(())
}

/// The file of an option, as Compose reads it: it is split at the first equals sign, or else the first colon.
pub(crate) fn seccomp_profile(option: &str) -> Option<&str> {
    let (name, value) = option.split_once('=').or_else(|| option.split_once(':'))?;
    (name == "seccomp" && !NO_FILE.contains(&value)).then_some(value)
}

fn check_profile(reading: &Reading<'_>, item: &Node, written: &str) -> Read<()> {
    let path = reading.path(written);
    let files = reading.context.files;
    let what = match files.kind(&path) {
        Ok(FileKind::File { .. }) => match files.read(&path) {
            Ok(text) => match serde_json::from_slice::<serde::de::IgnoredAny>(&text) {
                Ok(_) => return Ok(()),
                Err(error) => format!("is no JSON: {error}"),
            },
            Err(error) => format!("cannot be read: {error}"),
        },
        Err(error) => format!("cannot be read: {error}"),
        Ok(_) => "is no file".to_owned(),
    };
    Err(item.problem(format!("the seccomp profile {} {what}", path.display())))
}

fn check_single(reading: &mut Reading<'_>, item: &Node, option: &str) -> Read<()> {
    let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
    let widens = matches!(
        (name, value),
        ("seccomp" | "apparmor" | "systempaths", "unconfined")
            | ("label", "disable")
            | ("no-new-privileges", "false")
    );
    if !widens {
        return Err(item.problem(format!("`{option}` of security_opt cannot be applied to a sandbox")));
    }
    reading.warn(
        &item.place,
        format!("`{option}` of security_opt has no effect: a sandbox is a machine of its own"),
    );
    Ok(())
}
