//! A command's log: both streams in one file, told apart by markers.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use axum::http::HeaderMap;
use tokio::sync::watch;

use crate::api::headers::SDK_VERSION;
use crate::api::toolbox::SessionCommandLogs;
use crate::local::toolbox::json;

/// One of a command's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// What precedes each line of the stream in the log.
    const fn marker(self) -> &'static [u8; 3] {
        match self {
            Self::Stdout => b"\x01\x01\x01",
            Self::Stderr => b"\x02\x02\x02",
        }
    }
}

/// The log of a command. It is a file, so that its size is no burden on this process.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// The stream of the line that is not yet ended.
    open_line: Option<Stream>,
    length: watch::Sender<u64>,
}

impl Log {
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        let file = File::create_new(&path)?;
        Ok(Self { path, file, open_line: None, length: watch::Sender::new(0) })
    }

    /// Appends what a stream said, with a marker before each line and at each change of streams.
    pub(super) fn append(&mut self, stream: Stream, said: &[u8]) -> io::Result<()> {
        let mut marked = Vec::with_capacity(said.len() + 64);
        for line in said.split_inclusive(|byte| *byte == b'\n') {
            if self.open_line != Some(stream) {
                marked.extend_from_slice(stream.marker());
            }
            marked.extend_from_slice(line);
            self.open_line = (!line.ends_with(b"\n")).then_some(stream);
        }
        self.file.write_all(&marked)?;
        // readers see whole markers, since the length counts only once they are written
        self.length.send_modify(|length| *length += marked.len() as u64);
        Ok(())
    }

    /// Where it is, and how long; the length changes as the command speaks.
    pub(super) fn reader(&self) -> (PathBuf, watch::Receiver<u64>) {
        (self.path.clone(), self.length.subscribe())
    }
}

/// Reads a range of a log.
pub(super) fn read(path: &Path, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut content = Vec::new();
    file.take(to.saturating_sub(from)).read_to_end(&mut content)?;
    Ok(content)
}

/// In which shape a caller wants a log; it depends on the SDK's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// JSON, streams told apart by the server: SDKs from 0.167.
    Split,
    /// Text with markers: SDKs from 0.27, or on request.
    Marked,
    /// Text without markers: everyone else.
    Combined,
}

impl Shape {
    /// The shape for a request.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        // browsers cannot set headers on websockets
        let offered = text("sec-websocket-protocol").and_then(version_protocol);
        let version = text(SDK_VERSION).or_else(|| offered?.split_once('~').map(|(_, version)| version));
        let split = text("x-daytona-split-output") == Some("true");
        Self::choose(version.filter(|version| !version.is_empty()), split)
    }

    fn choose(version: Option<&str>, split: bool) -> Self {
        let Some(version) = version else { return if split { Self::Marked } else { Self::Combined } };
        if version.contains("dev") {
            return Self::Split;
        }
        let mut numbers = version.trim_start_matches('v').split(['.', '-', '+']).map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (0, 167) => Self::Split,
            (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (0, 27) => Self::Marked,
            _ => Self::Combined,
        }
    }
}

/// The subprotocol that carries the SDK's version, among those that a client offers.
pub(super) fn version_protocol(offered: &str) -> Option<&str> {
    offered.split(',').map(str::trim).find(|protocol| {
        protocol.split_once('~').is_some_and(|(name, _)| name.eq_ignore_ascii_case(SDK_VERSION))
    })
}

/// A log as its raw text and its streams.
pub(super) fn split(log: Vec<u8>) -> SessionCommandLogs {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    for (stream, text) in pieces(&log) {
        match stream {
            Stream::Stdout => stdout.extend_from_slice(text),
            Stream::Stderr => stderr.extend_from_slice(text),
        }
    }
    SessionCommandLogs { output: json::text(log), stdout: json::text(stdout), stderr: json::text(stderr) }
}

/// A log without its markers.
pub(super) fn combine(log: &[u8]) -> Vec<u8> {
    pieces(log).flat_map(|(_, text)| text).copied().collect()
}

/// What lies between the markers. As the SDKs do, it takes any marker for one, even in what a command said.
fn pieces(log: &[u8]) -> impl Iterator<Item = (Stream, &[u8])> {
    let mut stream = Stream::Stdout;
    let mut rest = log;
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            for candidate in [Stream::Stdout, Stream::Stderr] {
                if let Some(after) = rest.strip_prefix(candidate.marker()) {
                    (stream, rest) = (candidate, after);
                }
            }
            let next = rest
                .windows(3)
                .position(|window| window == Stream::Stdout.marker() || window == Stream::Stderr.marker());
            let (text, after) = rest.split_at(next.unwrap_or(rest.len()));
            rest = after;
            if !text.is_empty() {
                return Some((stream, text));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_of(said: &[(Stream, &str)]) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = Log::create(path.clone()).unwrap();
        for (stream, text) in said {
            log.append(*stream, text.as_bytes()).unwrap();
        }
        read(&path, 0, u64::MAX).unwrap()
    }

    #[test]
    fn each_line_has_a_marker_and_streams_come_apart_again() {
        let log = log_of(&[
            (Stream::Stdout, "one\ntw"),
            (Stream::Stdout, "o\nopen"),
            (Stream::Stderr, "err\n"),
            (Stream::Stdout, " end"),
        ]);
        let expected = b"\x01\x01\x01one\n\x01\x01\x01two\n\x01\x01\x01open\x02\x02\x02err\n\x01\x01\x01 end";
        assert_eq!(log, expected);
        assert_eq!(combine(&log), b"one\ntwo\nopenerr\n end");
        let logs = split(log);
        assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("one\ntwo\nopen end", "err\n"));
    }

    #[test]
    fn the_shape_depends_on_the_version() {
        for (version, split, shape) in [
            (Some("0.226.1"), false, Shape::Split),
            (Some("v0.167.0"), false, Shape::Split),
            (Some("0.0.0-dev"), false, Shape::Split),
            (Some("1.2.3"), false, Shape::Split),
            (Some("0.166.9"), false, Shape::Marked),
            (Some("0.27.0"), false, Shape::Marked),
            (Some("0.26.9"), true, Shape::Combined),
            (Some("nonsense"), false, Shape::Combined),
            (None, true, Shape::Marked),
            (None, false, Shape::Combined),
        ] {
            assert_eq!(Shape::choose(version, split), shape, "{version:?} {split}");
        }
    }

    #[test]
    fn a_version_may_come_as_a_subprotocol() {
        let mut headers = HeaderMap::new();
        let offered = "chat, X-Daytona-SDK-Version~0.190.0";
        headers.insert("sec-websocket-protocol", offered.parse().unwrap());
        assert_eq!(Shape::of(&headers), Shape::Split);
        assert_eq!(version_protocol(offered), Some("X-Daytona-SDK-Version~0.190.0"));
    }
}
