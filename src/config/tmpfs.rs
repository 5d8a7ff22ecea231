//! File systems in memory.

use super::keys::IN_MEMORY;
use super::node::{Mapping, Node, Value};
use super::plan::Tmpfs;
use super::problem::{Place, Read};
use super::reading::Reading;
use super::storage::absolute;
use super::suggest::nearest;
use super::units::bytes;

/// Options without a value that both Docker and mount(8) take.
const FLAGS: [&str; 22] = [
    "async",
    "atime",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "relatime",
    "ro",
    "rw",
    "strictatime",
    "suid",
    "sync",
];
/// Options with a number.
const NUMBERS: [&str; 4] = ["gid", "nr_blocks", "nr_inodes", "uid"];

/// Reads `tmpfs`: `/path` or `/path:size=64m,mode=1777,uid=1000,exec`.
pub(crate) fn short(service: &Mapping) -> Read<Vec<Tmpfs>> {
    let Some(node) = service.get("tmpfs") else { return Ok(Vec::new()) };
    let items = match &node.value {
        Value::Sequence(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut all = Vec::new();
    for item in items {
        let text = item.name("tmpfs")?;
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        let mut tmpfs = Tmpfs { path: absolute(item, path)?, ..Tmpfs::default() };
        for written in options.split(',').filter(|option| !option.is_empty()) {
            option(item, written, &mut tmpfs)?;
        }
        all.push(tmpfs);
    }
    Ok(all)
}

/// Whether a size is a part of the memory, such as `50%`.
fn is_share(size: &str) -> bool {
    size.strip_suffix('%').is_some_and(|number| number.parse::<u8>().is_ok_and(|number| number <= 100))
}

fn option(node: &Node, written: &str, tmpfs: &mut Tmpfs) -> Read<()> {
    match written.split_once('=') {
        Some(("size", size)) if is_share(size) => tmpfs.options.push(written.to_owned()),
        Some(("mpol", _)) => tmpfs.options.push(written.to_owned()),
        Some(("size", size)) => {
            let value = Value::Scalar(size.to_owned());
            let size = Node { place: node.place.clone(), value, plain: false };
            tmpfs.size = Some(bytes(&size, "size")?);
        }
        Some(("mode", written)) => tmpfs.mode = Some(octal(node, written)?),
        Some((name, number)) if NUMBERS.contains(&name) => {
            let (digits, unit) = match number.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G']) {
                Some(digits) => (digits, name.starts_with("nr_")),
                None => (number, true),
            };
            if !unit || digits.parse::<u32>().is_err() {
                return Err(node.problem(format!("`{name}` of a tmpfs must be a number, not `{number}`")));
            }
            tmpfs.options.push(written.to_owned());
        }
        None if FLAGS.contains(&written) => tmpfs.options.push(written.to_owned()),
        _ => {
            let name = written.split('=').next().unwrap_or(written);
            let problem = node.problem(format!("unknown option `{written}` of a tmpfs"));
            let known = FLAGS.into_iter().chain(NUMBERS).chain(["size", "mode", "mpol"]);
            return Err(match nearest(name, known) {
                Some(meant) if meant != name => problem.hint(format!("Did you mean `{meant}`?")),
                _ => problem,
            });
        }
    }
    Ok(())
}

/// Reads `tmpfs` of the long form of a volume.
pub(crate) fn long(reading: &mut Reading<'_>, path: String, options: Option<&Node>) -> Read<Tmpfs> {
    let mut tmpfs = Tmpfs { path, ..Tmpfs::default() };
    let Some(node) = options else { return Ok(tmpfs) };
    let options = node.mapping("tmpfs")?;
    reading.check_keys(options, IN_MEMORY, format_args!("`tmpfs` of volumes"))?;
    tmpfs.size = options.get("size").map(|node| bytes(node, "size")).transpose()?;
    if let Some(node) = options.get("mode") {
        let written = node.text("mode")?;
        // a number here, which only a leading 0 makes octal
        tmpfs.mode = Some(match node.plain_integer() {
            Some(number) => {
                let octal = octal(node, &format!("{number:o}"))?;
                // what came as JSON was read by somebody else
                if matches!(node.place, Place::Text { .. }) && !written.starts_with('0') {
                    reading.warn(
                        &node.place,
                        format!("`mode: {written}` is a decimal number, as Compose reads it, which is {octal} in octal"),
                    );
                }
                octal
            }
            None => octal(node, written)?,
        });
    }
    Ok(tmpfs)
}

fn octal(node: &Node, mode: &str) -> Read<String> {
    match u32::from_str_radix(mode, 8) {
        Ok(number) if number <= 0o7777 && !mode.starts_with('+') => Ok(mode.to_owned()),
        _ => Err(node.problem(format!("the mode `{mode}` of a tmpfs is not octal, such as 1777"))),
    }
}
