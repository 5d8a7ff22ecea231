//! How calls and replies travel through a shell: scripts one way, frames in the merged output the other way.
//!
//! A frame is one line without its ends, `<inspect-daytona ID BODY CHECKSUM ID>`, with the body in base64, so whatever
//! a shell prints before, after or right next to it does no harm. What is printed into it makes it unreadable, which
//! costs one more question, since results stay until they are acknowledged.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Call, ExecId, Reply};

/// The script that delivers `call` to the shim at `shim`, for any POSIX shell, zsh included.
///
/// The call is fed by the shell's own `printf`: it shows in no process list and no limit on arguments applies.
pub fn script(shim: &str, call: &Call) -> String {
    format!("printf %s '{}' | {} run\n", STANDARD.encode(call.encode()), quote(shim))
}

/// The script that delivers `call`, whose [`Call::encode`] was uploaded to the file `file` of the sandbox.
///
/// The shim deletes the file once the exec is claimed. A repeat then has no call to read, so the script also carries
/// the one that attaches.
pub fn script_for_file(shim: &str, file: &str, call: &Call) -> String {
    let attach = STANDARD.encode(call.attach().encode());
    format!("printf %s '{attach}' | {} run --call {}\n", quote(shim), quote(file))
}

/// The shim that is resident in a container, as the machine around it sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addressee {
    /// The container's id.
    pub container: String,
    /// The machine's directory that the container has as its state directory.
    pub directory: String,
    /// What the resident's directory in there is called: 32 random lower-case hexadecimal digits. Each user of a
    /// container has a resident with a name of its own.
    pub name: String,
}

impl Addressee {
    /// The script that has the shim at `shim`, on the machine, hand `call` to this resident. The resident is started
    /// first if it does not run, as the call's user. Files that it passes back hold at most `limit` bytes.
    pub fn script(&self, shim: &str, limit: u64, call: &Call) -> String {
        format!("printf %s '{}' | {}\n", STANDARD.encode(call.encode()), self.relay(shim, limit))
    }

    /// The same for a call that was uploaded to the file `file` of the machine; see [`script_for_file`].
    pub fn script_for_file(&self, shim: &str, limit: u64, file: &str, call: &Call) -> String {
        let attach = STANDARD.encode(call.attach().encode());
        format!("printf %s '{attach}' | {} --call {}\n", self.relay(shim, limit), quote(file))
    }

    fn relay(&self, shim: &str, limit: u64) -> String {
        let words = [&self.container, &self.directory, &self.name].map(|word| quote(word)).join(" ");
        format!("{} relay {words} {limit}", quote(shim))
    }
}

/// `word` as one literal word of a POSIX shell.
pub fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The reply to the call `id` within what a shell printed; `None` if there is none, or only a damaged one.
pub fn find_reply(text: &str, id: ExecId) -> Option<Reply> {
    let start = start_marker(id);
    // The last one counts: a shell that traces what it does would show it before it happens.
    text.rmatch_indices(&start).find_map(|(at, _)| read_frame(&text[at + start.len()..], id))
}

pub(super) fn frame(record: &[u8], id: ExecId) -> String {
    let body = STANDARD.encode(record);
    format!("{}{body} {:016x} {id}>\n", start_marker(id), checksum(record))
}

/// The encoded call that a script feeds to the shim.
#[cfg(feature = "shim")]
pub(in crate::shim) fn read_payload(text: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(text.trim_ascii()).ok()
}

/// `call` as a script feeds it to the shim.
#[cfg(feature = "shim")]
pub(in crate::shim) fn write_payload(call: &Call) -> String {
    STANDARD.encode(call.encode())
}

fn start_marker(id: ExecId) -> String {
    format!("<inspect-daytona {id} ")
}

fn read_frame(text: &str, id: ExecId) -> Option<Reply> {
    let (body, rest) = text.split_once(' ')?;
    let (sum, rest) = rest.split_at_checked(16)?;
    let end = format!(" {id}>");
    let record = rest.starts_with(&end).then(|| STANDARD.decode(body).ok())??;
    let intact = u64::from_str_radix(sum, 16).ok()? == checksum(&record);
    intact.then(|| Reply::decode(&record).ok())?
}

/// FNV-1a: it finds accidents; what keeps forgers out is the id.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
