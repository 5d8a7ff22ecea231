//! `GET /files/download`: one file, streamed, with ranges.

use std::fs::{File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;

use super::{CHUNK, open};
use crate::local::toolbox::error::file_status;
use crate::local::toolbox::query::Query;
use crate::local::toolbox::state::Toolbox;
use crate::local::toolbox::time::Timestamp;

pub(super) async fn download(
    State(toolbox): State<Arc<Toolbox>>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, StatusCode> {
    let given = query.path("path").ok_or(StatusCode::BAD_REQUEST)?;
    let (mut file, metadata) = open_file(&toolbox.resolve(&given)).map_err(|error| file_status(&error))?;
    let size = metadata.len();
    let modified = Timestamp { seconds: metadata.mtime(), nanoseconds: 0 }.http();
    let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if header(header::RANGE).is_none() && header(header::IF_MODIFIED_SINCE) == Some(modified.as_str()) {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    let range = header(header::RANGE).filter(|_| {
        // a range of another version of the file is no use
        header(header::IF_RANGE).is_none_or(|version| version == modified)
    });
    let range = match range.map(|range| parse_range(range, size)) {
        Some(Range::Unsatisfiable) => {
            let total = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, total).into_response());
        }
        Some(Range::Part { first, length }) => Some((first, length)),
        Some(Range::Whole) | None => None,
    };
    let (first, length) = range.unwrap_or((0, size));
    file.seek(SeekFrom::Start(first)).map_err(|error| file_status(&error))?;

    let name = Path::new(&given).file_name().unwrap_or(&given);
    let mut answer = Response::new(content(file, length));
    let fields = answer.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    fields.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    fields.insert(header::CONTENT_LENGTH, length.into());
    let texts = [
        (header::CONTENT_DISPOSITION, Some(format!("attachment; {}", file_name(name.as_encoded_bytes())))),
        (header::LAST_MODIFIED, Some(modified)),
        (header::CONTENT_RANGE, range.map(|_| format!("bytes {first}-{}/{size}", first + length - 1))),
    ];
    for (field, text) in texts {
        if let Some(value) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
            fields.insert(field, value);
        }
    }
    if range.is_some() {
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(answer)
}

/// Opens what can be read as a file.
pub(super) fn open_file(path: &Path) -> io::Result<(File, Metadata)> {
    let file = open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if metadata.file_type().is_fifo() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok((file, metadata))
}

/// The next `length` bytes of a file. If it has become shorter, the connection breaks, which the receiver notices.
fn content(file: File, length: u64) -> Body {
    Body::from_stream(stream::try_unfold((file, length), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let chunk = read_chunk(&mut file, left)?;
        if chunk.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let left = left - chunk.len() as u64;
        Ok(Some((chunk, (file, left))))
    }))
}

/// Reads at most `limit` bytes; nothing at the end of the file.
pub(super) fn read_chunk(file: &mut File, limit: u64) -> io::Result<Bytes> {
    let mut chunk = vec![0; usize::try_from(limit).unwrap_or(CHUNK).min(CHUNK)];
    let read = loop {
        match file.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    chunk.truncate(read);
    Ok(chunk.into())
}

/// `filename="…"; filename*=utf-8''…`: for old readers in Latin-1, as far as that goes, and exactly.
pub(super) fn file_name(name: &[u8]) -> String {
    let mut plain = String::new();
    for character in String::from_utf8_lossy(name).chars() {
        match character {
            '"' | '\\' => plain.extend(['\\', character]),
            ' '..='~' => plain.push(character),
            _ => plain.push('_'),
        }
    }
    let mut exact = String::new();
    for byte in name {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                exact.push(char::from(*byte));
            }
            _ => exact.extend(['%', hex(byte >> 4), hex(byte & 15)]),
        }
    }
    format!("filename=\"{plain}\"; filename*=utf-8''{exact}")
}

/// A hexadecimal digit.
fn hex(digit: u8) -> char {
    char::from_digit(digit.into(), 16).unwrap_or_default().to_ascii_uppercase()
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// Not understood, or several at once: the whole file is a correct answer.
    Whole,
    Part {
        first: u64,
        length: u64,
    },
    Unsatisfiable,
}

fn parse_range(text: &str, size: u64) -> Range {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-'))
    else {
        return Range::Whole;
    };
    let (first, end) = match (first.trim(), last.trim()) {
        ("", suffix) => match suffix.parse::<u64>() {
            Ok(suffix) => (size.saturating_sub(suffix), size),
            Err(_) => return Range::Whole,
        },
        (first, last) => match (first.parse::<u64>(), last.parse::<u64>()) {
            (Ok(first), Ok(last)) if first <= last => (first, last.saturating_add(1).min(size)),
            (Ok(first), Err(_)) if last.is_empty() => (first, size),
            _ => return Range::Whole,
        },
    };
    if first >= end { Range::Unsatisfiable } else { Range::Part { first, length: end - first } }
}

#[cfg(test)]
mod tests {
    use super::{Range, file_name, parse_range};

    #[test]
    fn ranges_are_read_as_http_defines_them() {
        assert_eq!(parse_range("bytes=0-0", 10), Range::Part { first: 0, length: 1 });
        assert_eq!(parse_range("bytes=4-", 10), Range::Part { first: 4, length: 6 });
        assert_eq!(parse_range("bytes=-3", 10), Range::Part { first: 7, length: 3 });
        assert_eq!(parse_range("bytes=5-99", 10), Range::Part { first: 5, length: 5 });
        assert_eq!(parse_range("bytes=10-", 10), Range::Unsatisfiable);
        assert_eq!(parse_range("bytes=-0", 10), Range::Unsatisfiable);
        assert_eq!(parse_range("bytes=0-1,3-4", 10), Range::Whole);
        assert_eq!(parse_range("lines=1-2", 10), Range::Whole);
    }

    #[test]
    fn a_file_name_is_exact_in_its_extended_form() {
        assert_eq!(file_name("/a \"é".as_bytes()), r#"filename="/a \"_"; filename*=utf-8''%2Fa%20%22%C3%A9"#);
    }
}
