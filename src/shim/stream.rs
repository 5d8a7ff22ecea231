//! The streams of a command: its outputs, of which the last bytes are kept, and its input.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use super::system;

/// The last bytes of a stream, in memory that grows with what is written up to the limit.
pub(super) struct Ring {
    bytes: Vec<u8>,
    /// Where the oldest byte is, once the limit is reached; before that, 0.
    oldest: usize,
    limit: usize,
    total: u64,
}

impl Ring {
    /// A ring for the last `limit` bytes.
    pub(super) fn new(limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self { bytes: Vec::new(), oldest: 0, limit, total: 0 }
    }

    /// How many bytes were ever written.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// How many bytes are kept.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The kept bytes, oldest first, in two parts.
    pub(super) fn parts(&self) -> (&[u8], &[u8]) {
        let (newer, older) = self.bytes.split_at(self.oldest);
        (older, newer)
    }

    /// Adds `data`, forgetting the oldest bytes beyond the limit.
    pub(super) fn write(&mut self, data: &[u8]) {
        self.total += data.len() as u64;
        let room = self.limit - self.bytes.len();
        let (head, mut tail) = data.split_at(room.min(data.len()));
        if self.bytes.try_reserve(head.len()).is_ok() {
            self.bytes.extend_from_slice(head);
        } else {
            // Out of memory: what is there already is all the ring can ever be.
            self.limit = self.bytes.len();
            tail = data;
        }
        tail = &tail[tail.len().saturating_sub(self.limit)..];
        while !tail.is_empty() {
            let (now, later) = tail.split_at(tail.len().min(self.limit - self.oldest));
            self.bytes[self.oldest..self.oldest + now.len()].copy_from_slice(now);
            self.oldest = (self.oldest + now.len()) % self.limit;
            tail = later;
        }
    }
}

/// One output of a command: its pipe, until nobody holds it any more, and what came out of it.
pub(super) struct OutputStream {
    pipe: Option<PipeReader>,
    /// What is kept; `None` once it was handed over, after which everything is discarded.
    pub(super) ring: Option<Ring>,
}

impl OutputStream {
    /// Keeps the last `limit` bytes of what comes out of `pipe`.
    pub(super) fn new(pipe: PipeReader, limit: u64) -> io::Result<Self> {
        system::set_nonblocking(pipe.as_fd())?;
        Ok(Self { pipe: Some(pipe), ring: Some(Ring::new(limit)) })
    }

    /// The pipe, if somebody may still write to it.
    pub(super) fn pipe(&self) -> Option<&PipeReader> {
        self.pipe.as_ref()
    }

    /// Takes what is in the pipe, within reason; returns whether there was something.
    pub(super) fn read_available(&mut self) -> bool {
        /// So many reads per turn, so that a command that never stops writing starves nothing else.
        const TURNS: usize = 64;
        let mut buffer = [0; 0x4000];
        let mut any = false;
        for _ in 0..TURNS {
            let Some(pipe) = &mut self.pipe else { break };
            match pipe.read(&mut buffer) {
                Ok(count) if count > 0 => {
                    any = true;
                    if let Some(ring) = &mut self.ring {
                        ring.write(&buffer[..count]);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => self.pipe = None,
            }
        }
        any
    }
}

/// The bytes that are still to be written to a command's input.
pub(super) struct Feed {
    pipe: PipeWriter,
    bytes: Vec<u8>,
    written: usize,
}

impl Feed {
    /// Feeds `bytes` to `pipe`, then closes it.
    pub(super) fn new(pipe: PipeWriter, bytes: Vec<u8>) -> io::Result<Self> {
        system::set_nonblocking(pipe.as_fd())?;
        Ok(Self { pipe, bytes, written: 0 })
    }

    /// Where the bytes go.
    pub(super) fn pipe(&self) -> &PipeWriter {
        &self.pipe
    }

    /// Writes what fits; returns whether anything is left to do. A reader that is gone needs no more.
    pub(super) fn write_available(&mut self) -> bool {
        while self.written < self.bytes.len() {
            match self.pipe.write(&self.bytes[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        false
    }
}

/// What a command reads, before it starts.
pub(super) enum Input {
    /// A file, or `/dev/null`.
    File(File),
    /// The reading end of a pipe.
    Pipe(PipeReader),
}

impl AsFd for Input {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::File(file) => file.as_fd(),
            Self::Pipe(pipe) => pipe.as_fd(),
        }
    }
}

impl Input {
    /// The pipe, which exists for the command alone; a file may be anybody's.
    pub(super) fn owned_by_command(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::File(_) => None,
            Self::Pipe(pipe) => Some(pipe.as_fd()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_ring_keeps_the_last_bytes(limit in 0..50_u64, writes in vec(vec(any::<u8>(), 0..70), 0..12)) {
            let mut ring = Ring::new(limit);
            for data in &writes {
                ring.write(data);
            }
            let all = writes.concat();
            let (older, newer) = ring.parts();
            let kept = [older, newer].concat();
            let expected = &all[all.len().saturating_sub(usize::try_from(limit).unwrap_or(0))..];
            prop_assert_eq!(kept.as_slice(), expected);
            prop_assert_eq!(ring.total(), all.len() as u64);
        }
    }

    #[test]
    fn a_ring_without_a_limit_allocates_only_what_it_keeps() {
        let mut ring = Ring::new(u64::MAX);
        ring.write(b"abc");
        assert_eq!((ring.len(), ring.parts().0), (3, b"abc".as_slice()));
    }
}
