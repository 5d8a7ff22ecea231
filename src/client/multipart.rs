//! The body of a bulk upload, streamed without copying the files.
//!
//! For each file a part `files[i].path` with the destination, then a part `files[i].file` with the bytes; the server
//! relies on this order.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream::{self, Stream};

use crate::{Error, ErrorKind, Result};

/// A larger piece would be copied whole by a TLS connection before it is sent.
const PIECE: usize = 128 << 10;

/// The body; making a stream of it again is cheap, so an upload can be repeated.
#[derive(Clone, Debug)]
pub(super) struct Multipart {
    boundary: String,
    pieces: Vec<Bytes>,
}

impl Multipart {
    /// # Errors
    /// `Unsupported` for destinations that the server would change: it trims white space around them.
    pub(super) fn new<'a>(files: impl IntoIterator<Item = (&'a str, Bytes)>) -> Result<Self> {
        let boundary = format!("inspect-daytona-{}", uuid::Uuid::new_v4().simple());
        let mut pieces = Vec::new();
        for (index, (path, content)) in files.into_iter().enumerate() {
            if path.is_empty() || path.trim() != path || path.contains('\0') {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("Daytona's file API cannot write a file called {path:?}"),
                ));
            }
            let head = format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"files[{index}].path\"\r\n\r\n{path}\r\n\
                 --{boundary}\r\nContent-Disposition: form-data; name=\"files[{index}].file\"; filename=\"file\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n"
            );
            pieces.push(Bytes::from(head));
            let mut rest = content;
            while !rest.is_empty() {
                pieces.push(rest.split_to(rest.len().min(PIECE)));
            }
            pieces.push(Bytes::from_static(b"\r\n"));
        }
        pieces.push(Bytes::from(format!("--{boundary}--\r\n")));
        Ok(Self { boundary, pieces })
    }

    pub(super) fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary)
    }

    /// Bytes of the whole body.
    pub(super) fn length(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }

    pub(super) fn stream(&self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
        stream::iter(self.pieces.clone().into_iter().map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    #[tokio::test]
    async fn the_destination_comes_before_the_bytes() {
        let body = Multipart::new([("/a/ü", Bytes::from_static(b"1\r\n2")), ("b", Bytes::new())]).unwrap();
        let chunks: Vec<_> = body.stream().map(|chunk| chunk.unwrap()).collect().await;
        let text = String::from_utf8(chunks.concat()).unwrap();
        assert_eq!(text.len() as u64, body.length());
        let mark = &body.boundary;
        assert!(body.content_type().ends_with(mark.as_str()));
        assert_eq!(
            text,
            format!(
                "--{mark}\r\nContent-Disposition: form-data; name=\"files[0].path\"\r\n\r\n/a/ü\r\n\
                 --{mark}\r\nContent-Disposition: form-data; name=\"files[0].file\"; filename=\"file\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n1\r\n2\r\n\
                 --{mark}\r\nContent-Disposition: form-data; name=\"files[1].path\"\r\n\r\nb\r\n\
                 --{mark}\r\nContent-Disposition: form-data; name=\"files[1].file\"; filename=\"file\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n\r\n--{mark}--\r\n"
            )
        );
    }

    #[test]
    fn files_are_not_copied() {
        let content = Bytes::from(vec![7; 3 * PIECE + 1]);
        let body = Multipart::new([("f", content.clone())]).unwrap();
        assert_eq!(body.pieces[1].as_ptr(), content.as_ptr());
        assert_eq!(body.pieces.len(), 1 + 4 + 1 + 1);
    }

    #[test]
    fn a_destination_that_the_server_would_trim_is_refused() {
        for path in ["", " a", "a\n", "a\0b"] {
            assert_eq!(Multipart::new([(path, Bytes::new())]).unwrap_err().kind(), ErrorKind::Unsupported);
        }
    }
}
