//! The shim as a part of images that are built anyway, so that their sandboxes need no upload.
//!
//! The last line of the Dockerfile copies it to a path that names its content; so the snapshot's name does too. Nobody
//! is trusted for it: an image's author is the user, who decides what runs in the sandbox anyway, and an agent that may
//! write there is root, who may write wherever a shim could be. One that is missing or cannot be executed is replaced
//! by an upload. Images that only have to be pulled, or whose Dockerfile needs no builder, stay as they are; and so do
//! those that copy their whole context, of which the shim is a file while they are built.

use std::fmt::Write as _;
use std::io;
use std::sync::LazyLock;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::{Receiver, channel};

use crate::api::snapshot::BuildInfo;
use crate::client::PART;
use crate::config::context::ContextEntry;
use crate::config::dockerfile::Dockerfile;
use crate::provider::sandbox::shim;

/// Names the shim's content, also as a context of its own in the platform's object storage.
static HASH: LazyLock<String> = LazyLock::new(|| {
    let digest = Sha256::new().chain_update("inspect-daytona shim 1").chain_update(shim()).finalize();
    digest[..16].iter().fold(String::new(), |mut text, byte| {
        // writing to a string cannot fail
        let _ = write!(text, "{byte:02x}");
        text
    })
});

/// Its name in the context.
fn source() -> String {
    format!("inspect-daytona-shim-{}", *HASH)
}

/// Where the images have it.
pub(super) fn path() -> String {
    format!("/opt/inspect-daytona/{}/shim", *HASH)
}

/// Makes a build copy the shim, if it reads or runs anything. Not where the build could take it for one of its own files,
/// as `COPY . /app` would; where those have rules of their own about what a builder sees; nor where the Dockerfile's
/// end is open.
pub(super) fn add(build: &mut BuildInfo, entries: &[ContextEntry]) {
    let dockerfile = Dockerfile::parse(build.dockerfile_content.as_str());
    if dockerfile.may_read(&source()) || entries.iter().any(|entry| entry.path == ".dockerignore") {
        return;
    }
    if let Some(text) = dockerfile.copying(&source(), &path()) {
        build.dockerfile_content = text;
        build.context_hashes.push(HASH.clone());
    }
}

/// Whether a build copies the shim.
pub(super) fn is_in(build: &BuildInfo) -> bool {
    build.context_hashes.iter().any(|hash| is_context(hash))
}

/// Whether a context is that of the shim.
pub(super) fn is_context(hash: &str) -> bool {
    hash == HASH.as_str()
}

/// The archive of the context, in pieces of [`PART`] bytes.
///
/// # Errors
///
/// None in practice: it is made in memory.
pub(super) fn pieces() -> io::Result<Receiver<io::Result<Bytes>>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(shim().len() as u64);
    archive.append_data(&mut header, source(), shim())?;
    let bytes = Bytes::from(archive.into_inner()?);
    let (sender, receiver) = channel(bytes.len().div_ceil(PART).max(1));
    for start in (0..bytes.len()).step_by(PART) {
        // there is room for all of them
        let _sent = sender.try_send(Ok(bytes.slice(start..bytes.len().min(start + PART))));
    }
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(dockerfile: &str, entries: &[ContextEntry]) -> BuildInfo {
        let mut build = BuildInfo { dockerfile_content: dockerfile.to_owned(), ..BuildInfo::default() };
        add(&mut build, entries);
        build
    }

    #[test]
    fn what_is_built_anyway_gets_it_as_the_last_layer() {
        let build = added("FROM a:1\nRUN true", &[]);
        assert_eq!(
            build.dockerfile_content,
            format!(
                "FROM a:1\nRUN true\nCOPY inspect-daytona-shim-{0} /opt/inspect-daytona/{0}/shim\n",
                *HASH
            )
        );
        assert!(is_in(&build));
    }

    #[test]
    fn what_needs_no_builder_or_is_open_at_its_end_stays_as_it_is() {
        for text in ["FROM a:1\nENV A=1\n", "FROM a:1\nRUN a \\\n", "FROM a:1\nRUN <<E\na\n"] {
            let build = added(text, &[]);
            assert_eq!((build.dockerfile_content.as_str(), is_in(&build)), (text, false));
        }
        let rules = ContextEntry {
            path: ".dockerignore".to_owned(),
            source: "/d/.dockerignore".into(),
            directory: false,
            executable: false,
        };
        assert!(
            !is_in(&added("FROM a:1\nCOPY .dockerignore src /x/\n", &[rules])),
            "the rules might exclude it"
        );
    }

    #[test]
    fn what_could_take_it_for_a_file_of_its_own_stays_as_it_is() {
        for line in ["COPY . /app", "COPY i* /app/", "ADD $WHAT /app/", "RUN --mount=target=/app ls /app"] {
            for text in
                [format!("FROM a:1\n{line}\n"), format!("FROM a:1 AS b\n{line}\nFROM c:1\nRUN true\n")]
            {
                let build = added(&text, &[]);
                assert_eq!((build.dockerfile_content.as_str(), is_in(&build)), (text.as_str(), false));
            }
        }
        assert!(is_in(&added("FROM a:1\nCOPY src *.py /app/\n", &[])));
    }

    #[tokio::test]
    async fn its_archive_holds_the_program() {
        let mut receiver = pieces().unwrap();
        let mut all = Vec::new();
        while let Some(piece) = receiver.recv().await {
            all.extend_from_slice(&piece.unwrap());
        }
        let mut archive = tar::Archive::new(all.as_slice());
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        let header = entry.header();
        assert_eq!((header.mode().unwrap(), header.size().unwrap()), (0o755, shim().len() as u64));
        assert_eq!(entry.path().unwrap().display().to_string(), source());
    }
}
