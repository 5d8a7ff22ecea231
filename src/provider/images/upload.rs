//! Brings the files of builds to the platform.

use super::files::ContextFiles;
use super::{Progress, archive, shim};
use crate::api::snapshot::BuildInfo;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};

/// Sends the files of a build, unless the platform has them.
///
/// # Errors
///
/// A file that cannot be read or is not what it was, when nothing is stored; whatever keeps the storage from taking them.
pub(super) async fn upload(
    client: &Client,
    build: &BuildInfo,
    files: ContextFiles,
    progress: &Progress<'_>,
) -> Result<()> {
    if build.context_hashes.is_empty() {
        return Ok(());
    }
    let storage = client.object_storage().await.map_err(|error| match error.kind() {
        ErrorKind::Unsupported => {
            error.with_hint("Builds that read files need a server with an object storage")
        }
        _ => error,
    })?;
    let (ours, hashes): (Vec<_>, Vec<_>) =
        build.context_hashes.iter().partition(|hash| shim::is_context(hash));
    for hash in ours {
        if !storage.has(hash).await? {
            let pieces = shim::pieces().map_err(|error| {
                Error::new(ErrorKind::Unexpected, "the archive of our program was not made")
                    .with_source(error)
            })?;
            storage.upload(hash, pieces, &|_| {}).await?;
        }
    }
    // all of a build's own files are one context
    let Some(hash) = hashes.first() else { return Ok(()) };
    if storage.has(hash).await? {
        return Ok(());
    }
    let length = archive::length(&files.entries);
    progress(&format!("Uploading the build context: {}", megabytes(length)));
    let shown = std::sync::atomic::AtomicU64::new(0);
    let report = |arrived: u64| {
        // every tenth, so that a log stays short
        let tenth = (arrived * 10).checked_div(length).unwrap_or(10).min(10);
        if shown.swap(tenth, std::sync::atomic::Ordering::Relaxed) != tenth {
            progress(&format!(
                "Uploading the build context: {} of {}",
                megabytes(arrived),
                megabytes(length)
            ));
        }
    };
    storage.upload(hash, archive::pieces(files), &report).await
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}
