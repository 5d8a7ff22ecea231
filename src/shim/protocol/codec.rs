//! The binary form of calls and replies: a version, then fields in order; numbers as LEB128, bytes with their length.
//!
//! Decoding trusts nothing: no length is allocated before that many bytes were seen to be there.

use std::fmt;
use std::time::Duration;

use super::{
    Action, Call, End, ExecId, Finished, Kept, Output, Read, Refusal, RefusalKind, Reply, Start, Stdin,
};

/// Raised with every change of the form. A call keeps its id right behind the version for ever.
const VERSION: u8 = 2;

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// They are of another version of this protocol.
    Version(u8),
    /// They end too early.
    Truncated,
    /// More bytes follow the record.
    Trailing,
    /// The named field has no valid value.
    Invalid(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => {
                write!(formatter, "protocol version {version}, where {VERSION} was expected")
            }
            Self::Truncated => formatter.write_str("the record ends too early"),
            Self::Trailing => formatter.write_str("bytes follow the record"),
            Self::Invalid(field) => write!(formatter, "invalid {field}"),
        }
    }
}

impl std::error::Error for DecodeError {}

pub(super) fn encode_call(call: &Call) -> Vec<u8> {
    let mut writer = Writer(vec![VERSION]);
    writer.id(call.id);
    writer.duration(call.wait);
    writer.number(call.acks.len() as u64);
    call.acks.iter().for_each(|id| writer.id(*id));
    writer.option(call.user.as_deref(), |writer, user| writer.bytes(user.as_bytes()));
    match &call.action {
        Action::Start(start) => {
            writer.byte(0);
            writer.start(start);
        }
        Action::Attach => writer.byte(1),
        Action::Kill => writer.byte(2),
        Action::Read(read) => {
            writer.byte(3);
            writer.bytes(&read.path);
            writer.number(read.limit);
            writer.number(read.inline_limit);
        }
    }
    writer.0
}

pub(super) fn decode_call(bytes: &[u8]) -> Result<Call, DecodeError> {
    decode(bytes, |reader| {
        Ok(Call {
            id: reader.id()?,
            wait: reader.duration()?,
            acks: reader.list(16, Reader::id)?,
            user: reader.option(|reader| reader.text("user"))?,
            action: match reader.byte()? {
                0 => Action::Start(Box::new(reader.start()?)),
                1 => Action::Attach,
                2 => Action::Kill,
                3 => Action::Read(Box::new(Read {
                    path: reader.bytes()?,
                    limit: reader.number()?,
                    inline_limit: reader.number()?,
                })),
                _ => return Err(DecodeError::Invalid("action")),
            },
        })
    })
}

pub(super) fn encode_reply(reply: &Reply) -> Vec<u8> {
    let mut writer = Writer(vec![VERSION]);
    match reply {
        Reply::Finished(finished) => {
            writer.byte(0);
            let (ended, code) = match finished.end {
                End::Exited(status) => (0, status),
                End::Signaled(signal) => (1, signal),
            };
            writer.byte(ended);
            writer.byte(code);
            writer.byte(u8::from(finished.timed_out));
            writer.byte(u8::from(finished.killed));
            writer.output(&finished.stdout);
            writer.output(&finished.stderr);
        }
        Reply::Pending => writer.byte(1),
        Reply::Lost(why) => {
            writer.byte(2);
            writer.bytes(why.as_bytes());
        }
        Reply::Collected => writer.byte(3),
        Reply::Refused(refusal) => {
            writer.byte(4);
            writer.byte(match refusal.kind {
                RefusalKind::ProgramNotFound => 0,
                RefusalKind::PermissionDenied => 1,
                RefusalKind::WorkingDirectory => 2,
                RefusalKind::UnknownUser => 3,
                RefusalKind::UserUnsupported => 4,
                RefusalKind::System => 5,
                RefusalKind::Unavailable => 6,
                RefusalKind::Execution => 7,
                RefusalKind::Lacking => 8,
            });
            writer.bytes(refusal.message.as_bytes());
        }
    }
    writer.0
}

pub(super) fn decode_reply(bytes: &[u8]) -> Result<Reply, DecodeError> {
    decode(bytes, |reader| {
        Ok(match reader.byte()? {
            0 => {
                let end = match (reader.byte()?, reader.byte()?) {
                    (0, status) => End::Exited(status),
                    (1, signal) => End::Signaled(signal),
                    _ => return Err(DecodeError::Invalid("end")),
                };
                Reply::Finished(Finished {
                    end,
                    timed_out: reader.flag()?,
                    killed: reader.flag()?,
                    stdout: reader.output()?,
                    stderr: reader.output()?,
                })
            }
            1 => Reply::Pending,
            2 => Reply::Lost(reader.text("reason")?),
            3 => Reply::Collected,
            4 => Reply::Refused(Refusal {
                kind: match reader.byte()? {
                    0 => RefusalKind::ProgramNotFound,
                    1 => RefusalKind::PermissionDenied,
                    2 => RefusalKind::WorkingDirectory,
                    3 => RefusalKind::UnknownUser,
                    4 => RefusalKind::UserUnsupported,
                    5 => RefusalKind::System,
                    6 => RefusalKind::Unavailable,
                    7 => RefusalKind::Execution,
                    8 => RefusalKind::Lacking,
                    _ => return Err(DecodeError::Invalid("refusal")),
                },
                message: reader.text("message")?,
            }),
            _ => return Err(DecodeError::Invalid("reply")),
        })
    })
}

fn decode<T>(
    bytes: &[u8],
    record: impl FnOnce(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let mut reader = Reader(bytes);
    match reader.byte()? {
        VERSION => {}
        other => return Err(DecodeError::Version(other)),
    }
    let value = record(&mut reader)?;
    if reader.0.is_empty() { Ok(value) } else { Err(DecodeError::Trailing) }
}

struct Writer(Vec<u8>);

impl Writer {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn id(&mut self, id: ExecId) {
        self.0.extend_from_slice(id.as_bytes());
    }

    fn duration(&mut self, duration: Duration) {
        self.number(duration.as_secs());
        self.number(u64::from(duration.subsec_nanos()));
    }

    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn start(&mut self, start: &Start) {
        self.number(start.argv.len() as u64);
        start.argv.iter().for_each(|argument| self.bytes(argument));
        self.number(start.env.len() as u64);
        for (name, value) in &start.env {
            self.bytes(name);
            self.bytes(value);
        }
        self.option(start.cwd.as_deref(), Self::bytes);
        match &start.stdin {
            Stdin::Null => self.byte(0),
            Stdin::Inline(bytes) => {
                self.byte(1);
                self.bytes(bytes);
            }
            Stdin::File(path) => {
                self.byte(2);
                self.bytes(path);
            }
        }
        self.option(start.timeout, Self::duration);
        self.number(start.output_limit);
        self.number(start.inline_limit);
    }

    fn output(&mut self, output: &Output) {
        self.number(output.total);
        match &output.kept {
            Kept::Inline(bytes) => {
                self.byte(0);
                self.bytes(bytes);
            }
            Kept::File { path, len } => {
                self.byte(1);
                self.bytes(path);
                self.number(*len);
            }
        }
    }
}

struct Reader<'bytes>(&'bytes [u8]);

impl<'bytes> Reader<'bytes> {
    fn take(&mut self, len: usize) -> Result<&'bytes [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        let (&byte, rest) = self.0.split_first().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(byte)
    }

    fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Invalid("flag")),
        }
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            let shifted = part << shift;
            if shifted >> shift != part {
                break;
            }
            number |= shifted;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(DecodeError::Invalid("number"))
    }

    fn bytes(&mut self) -> Result<Vec<u8>, DecodeError> {
        // What does not fit a usize does not fit the record either.
        let len = usize::try_from(self.number()?).map_err(|_| DecodeError::Truncated)?;
        self.take(len).map(<[u8]>::to_vec)
    }

    fn text(&mut self, field: &'static str) -> Result<String, DecodeError> {
        String::from_utf8(self.bytes()?).map_err(|_| DecodeError::Invalid(field))
    }

    fn id(&mut self) -> Result<ExecId, DecodeError> {
        let bytes = self.take(16)?.try_into().map_err(|_| DecodeError::Truncated)?;
        Ok(ExecId::from_bytes(bytes))
    }

    fn duration(&mut self) -> Result<Duration, DecodeError> {
        let seconds = self.number()?;
        match u32::try_from(self.number()?) {
            Ok(nanoseconds) if nanoseconds < 1_000_000_000 => Ok(Duration::new(seconds, nanoseconds)),
            _ => Err(DecodeError::Invalid("duration")),
        }
    }

    fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    /// A list whose elements take at least `smallest` bytes each, which bounds how many there can be.
    fn list<T>(
        &mut self,
        smallest: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = usize::try_from(self.number()?).map_err(|_| DecodeError::Truncated)?;
        if count > self.0.len() / smallest {
            return Err(DecodeError::Truncated);
        }
        // Grown by what is read: an element is larger in memory than in the record.
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(read(self)?);
        }
        Ok(list)
    }

    fn start(&mut self) -> Result<Start, DecodeError> {
        Ok(Start {
            argv: self.list(1, Self::bytes)?,
            env: self.list(2, |reader| Ok((reader.bytes()?, reader.bytes()?)))?,
            cwd: self.option(Self::bytes)?,
            stdin: match self.byte()? {
                0 => Stdin::Null,
                1 => Stdin::Inline(self.bytes()?),
                2 => Stdin::File(self.bytes()?),
                _ => return Err(DecodeError::Invalid("stdin")),
            },
            timeout: self.option(Self::duration)?,
            output_limit: self.number()?,
            inline_limit: self.number()?,
        })
    }

    fn output(&mut self) -> Result<Output, DecodeError> {
        Ok(Output {
            total: self.number()?,
            kept: match self.byte()? {
                0 => Kept::Inline(self.bytes()?),
                1 => Kept::File { path: self.bytes()?, len: self.number()? },
                _ => return Err(DecodeError::Invalid("kept")),
            },
        })
    }
}
