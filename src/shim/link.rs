//! The connection between a relay and a resident: one message each way, a record with the descriptors that belong to it.
//!
//! A message is a byte of flags, the record's length in four bytes (least significant first) and the record. Either end
//! may be hostile to the other: nothing is allocated before it arrived, and every wait has an end.

use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::system;

/// A call whose start was consumed by an earlier delivery.
pub(super) const REPEAT: u8 = 1;
/// Flags and length.
const HEADER: usize = 5;
/// How long a message may take once it began to arrive, and how long one may take to be accepted.
const TRANSFER: Duration = Duration::from_secs(30);

/// What arrived.
pub(super) struct Message {
    pub(super) flags: u8,
    pub(super) record: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// Sends a message; the other end gets copies of `descriptors`, at most two.
pub(super) fn send(
    mut stream: &UnixStream,
    flags: u8,
    record: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let length = u32::try_from(record.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut header = vec![flags];
    header.extend_from_slice(&length.to_le_bytes());
    stream.set_write_timeout(Some(TRANSFER))?;
    let sent = loop {
        match system::send(stream, &header, descriptors) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            sent => break sent?,
        }
    };
    stream.write_all(&header[sent..])?;
    stream.write_all(record)
}

/// Receives a message whose record has at most `limit` bytes; `None` if nothing arrived until `deadline`.
pub(super) fn receive(stream: &UnixStream, limit: u64, deadline: Instant) -> io::Result<Option<Message>> {
    let mut descriptors = Vec::new();
    let mut header = Vec::new();
    let mut buffer = [0; HEADER];
    let mut deadline = deadline;
    while header.len() < HEADER {
        // Zero would mean no limit.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        stream.set_read_timeout(Some(left))?;
        match system::receive(stream, &mut buffer[header.len()..], &mut descriptors) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                if header.is_empty() {
                    deadline = Instant::now() + TRANSFER;
                }
                let from = header.len();
                header.extend_from_slice(&buffer[from..from + count]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && header.is_empty() => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let length = u64::from(u32::from_le_bytes([header[1], header[2], header[3], header[4]]));
    if length > limit {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut record = Vec::new();
    stream.set_read_timeout(Some(TRANSFER))?;
    stream.take(length).read_to_end(&mut record)?;
    if record.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(Message { flags: header[0], record, descriptors }))
}
