//! `relay`: hands a call to the shim that is resident in a container, from the machine around it.
//!
//! It runs as the machine's root, and everything in the container may belong to an attacker who is root there. So it
//! follows no path that a container chose: what goes in and comes out are descriptors, of which it copies a bounded
//! number of bytes, and the socket is reached without following links. Who controls the container can spoil the
//! results of what runs in it, and nothing else.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::engine;
use super::link::{self, Message, REPEAT};
use super::program::{complain, own_path};
use super::protocol::{Action, Addressee, Call, ExecId, Kept, Output, Refusal, RefusalKind, Reply, Stdin};
use super::run::{self, Delivery};
use super::system;

/// How much longer than the call says its answer may take.
const MARGIN: Duration = Duration::from_secs(10);
/// Deliveries before the relay gives up.
const TRIES: u32 = 4;
/// The pause after a delivery without an answer, times how many there were: a container that is out of processes or
/// memory for a moment gets over it.
const PAUSE: Duration = Duration::from_millis(100);
/// The largest output that is put into a reply where it cannot be copied.
const LARGEST_INLINE: u64 = 32 * 1024 * 1024;
/// What a reply may hold beyond both outputs.
const REST_OF_REPLY: u64 = 1024 * 1024;

/// Delivers a call to the resident `to`; files that it passes back may have `limit` bytes.
pub(super) fn relay(to: &Addressee, limit: u64, delivery: &Delivery) -> ExitCode {
    run::answer(delivery, |call, is_repeat| {
        let shim = own_path().map_err(|error| format!("the shim does not know its place: {error}"))?;
        let directory = shim.parent().unwrap_or(Path::new("/")).to_owned();
        let relay = Relay { to, limit, directory, user: call.user.clone() };
        let reply = relay.answer(call, is_repeat)?;
        if let Delivery::File(file) = delivery {
            drop(fs::remove_file(file));
        }
        Ok(reply)
    })
}

/// Starts the resident `to` of the container's default user if it does not run.
pub(super) fn enter(to: &Addressee) -> ExitCode {
    system::end_after(run::SLACK);
    if connect(to).is_ok() {
        return ExitCode::SUCCESS;
    }
    match engine::start(to, None) {
        Ok(()) => ExitCode::SUCCESS,
        Err(refusal) => complain(1, &refusal.message),
    }
}

struct Relay<'call> {
    to: &'call Addressee,
    limit: u64,
    /// Where files lie that came out of the container, until the exec is acknowledged.
    directory: PathBuf,
    user: Option<String>,
}

/// What is sent, and what belongs to it.
struct Parcel {
    id: ExecId,
    flags: u8,
    record: Vec<u8>,
    input: Option<File>,
    wait: Duration,
    /// How many bytes of a file the reply may carry.
    inline_limit: u64,
    is_read: bool,
}

impl Relay<'_> {
    fn answer(&self, mut call: Call, is_repeat: bool) -> Result<Reply, String> {
        for id in &call.acks {
            for name in ["stdout", "stderr"] {
                drop(fs::remove_file(self.output_path(*id, name)));
            }
        }
        let input_path = take_input(&mut call);
        let input = match &input_path {
            Some(path) => open_input(path).map_err(|error| format!("the uploaded input: {error}"))?,
            None => None,
        };
        // The resident is that user already.
        call.user = None;
        let (inline_limit, is_read) = match &call.action {
            Action::Read(read) => (read.inline_limit, true),
            _ => (0, false),
        };
        let record = call.encode();
        let flags = if is_repeat { REPEAT } else { 0 };
        let parcel = Parcel { id: call.id, flags, record, input, wait: call.wait, inline_limit, is_read };
        let reply = self.deliver_until_answered(&parcel)?;
        if let Some(path) = input_path {
            drop(fs::remove_file(path));
        }
        Ok(reply)
    }

    fn deliver_until_answered(&self, parcel: &Parcel) -> Result<Reply, String> {
        let mut last = String::new();
        for number in 0..TRIES {
            std::thread::sleep(PAUSE * number);
            let stream = match connect(self.to) {
                Ok(stream) => stream,
                Err(error) if is_absent(&error) => {
                    if let Err(refusal) = engine::start(self.to, self.user.as_deref()) {
                        return Ok(Reply::Refused(refusal));
                    }
                    last = "the container's shim ended as soon as it had started".into();
                    continue;
                }
                Err(error) => return Err(format!("the container's shim cannot be reached: {error}")),
            };
            let message = self.deliver(&stream, parcel);
            match message {
                Ok(Some(message)) => return Ok(self.settle(message, parcel)),
                Ok(None) => match engine::why_silent(&self.to.container) {
                    Some(message) => {
                        return Ok(Reply::Refused(Refusal { kind: RefusalKind::Unavailable, message }));
                    }
                    // Slow is not gone: whoever asks may ask again.
                    None => return Err("its container does not answer in time".into()),
                },
                // The process for the connection died, or the whole container did; a result is not lost by that.
                Err(error) => last = format!("the container's shim gave no answer: {error}"),
            }
        }
        Err(last)
    }

    fn deliver(&self, stream: &UnixStream, parcel: &Parcel) -> io::Result<Option<Message>> {
        let input: Vec<_> = parcel.input.iter().map(AsFd::as_fd).collect();
        link::send(stream, parcel.flags, &parcel.record, &input)?;
        let deadline = Instant::now() + parcel.wait.min(Duration::from_secs(3600)) + MARGIN;
        let limit = self.limit.saturating_mul(2).saturating_add(REST_OF_REPLY);
        link::receive(stream, limit, deadline)
    }

    /// The reply with the files that came with it.
    fn settle(&self, message: Message, parcel: &Parcel) -> Reply {
        let mut reply = match Reply::decode(&message.record) {
            Ok(reply) => reply,
            Err(error) => return Reply::Lost(format!("the container's shim gave a damaged answer: {error}")),
        };
        let mut files = message.descriptors.into_iter();
        if let Reply::Finished(finished) = &mut reply {
            for (name, output) in [("stdout", &mut finished.stdout), ("stderr", &mut finished.stderr)] {
                if let Kept::File { len, .. } = output.kept {
                    match self.take_over(name, len, files.next(), parcel) {
                        Ok(kept) => output.kept = kept,
                        Err(why) => return Reply::Lost(format!("an output in the container is {why}")),
                    }
                }
                if parcel.is_read
                    && let Kept::File { len, .. } = output.kept
                {
                    // It may have been cut off meanwhile.
                    *output = Output { total: len, kept: output.kept.clone() };
                }
            }
        }
        reply
    }

    /// Copies what a descriptor gives.
    fn take_over(
        &self,
        name: &str,
        len: u64,
        descriptor: Option<OwnedFd>,
        parcel: &Parcel,
    ) -> Result<Kept, String> {
        let mut file = File::from(descriptor.ok_or("missing")?);
        let described = |error: io::Error| format!("not readable: {}", system::describe(&error));
        if !file.metadata().map_err(described)?.is_file() {
            return Err("no regular file".into());
        }
        if len > self.limit {
            return Err(format!("larger than {} bytes", self.limit));
        }
        io::Seek::rewind(&mut file).map_err(described)?;
        let complete = |copied: u64| {
            // Files change while they are read; outputs do not.
            if copied == len || parcel.is_read {
                Ok(())
            } else {
                Err(format!("{copied} of {len} bytes long"))
            }
        };
        if len <= parcel.inline_limit {
            let mut bytes = Vec::new();
            file.take(len).read_to_end(&mut bytes).map_err(described)?;
            complete(bytes.len() as u64)?;
            return Ok(Kept::Inline(bytes));
        }
        let path = self.output_path(parcel.id, name);
        let unfinished = path.with_extension(std::process::id().to_string());
        let copy = || -> io::Result<u64> {
            let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
            let copied = io::copy(&mut (&file).take(len), &mut copy)?;
            fs::rename(&unfinished, &path)?;
            Ok(copied)
        };
        let copied = match copy() {
            Ok(copied) => copied,
            // A full disk takes no copy, and a reply can be larger than it should be.
            Err(_) if len <= LARGEST_INLINE => {
                drop(fs::remove_file(&unfinished));
                io::Seek::rewind(&mut (&file)).map_err(described)?;
                let mut bytes = Vec::new();
                file.take(len).read_to_end(&mut bytes).map_err(described)?;
                complete(bytes.len() as u64)?;
                return Ok(Kept::Inline(bytes));
            }
            Err(error) => {
                drop(fs::remove_file(&unfinished));
                return Err(format!("not copied: {}", system::describe(&error)));
            }
        };
        complete(copied)?;
        Ok(Kept::File { path: path.into_os_string().as_bytes().to_vec(), len: copied })
    }

    fn output_path(&self, id: ExecId, name: &str) -> PathBuf {
        self.directory.join(format!("out-{id}-{name}"))
    }
}

/// Takes the path of an uploaded input out of `call`, since it says nothing to the container.
fn take_input(call: &mut Call) -> Option<PathBuf> {
    let Action::Start(start) = &mut call.action else { return None };
    let Stdin::File(path) = &mut start.stdin else { return None };
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(&std::mem::take(path))))
}

/// Opens an uploaded input; `None` if an earlier delivery consumed it.
fn open_input(path: &Path) -> io::Result<Option<File>> {
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    // So that a command of any user may reopen its input by name, and none may change it.
    file.set_permissions(Permissions::from_mode(0o444))?;
    Ok(Some(file))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Connects to the resident's socket without following a link: the socket of another container, or the Engine's,
/// would be in reach of one.
fn connect(to: &Addressee) -> io::Result<UnixStream> {
    let through = |file: &File| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let directory = system::pin(&Path::new(&to.directory).join(&to.name), libc::O_DIRECTORY)?;
    let socket = system::pin(&through(&directory).join("socket"), 0)?;
    if !socket.metadata()?.file_type().is_socket() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    UnixStream::connect(through(&socket))
}
