//! How an image comes into being: what is pulled, or what is built from which files.

use super::files::{ContextFiles, Witness};
use super::{ENTRYPOINT, shim};
use crate::api::snapshot::BuildInfo;
use crate::client::Client;
use crate::config::context::BuildContext;
use crate::config::dockerfile::Dockerfile;
use crate::config::{Build, ImageSource, Service};
use crate::error::{Error, ErrorKind, Result};

/// How an image comes into being.
#[derive(Debug, Default)]
pub(super) struct Recipe {
    pub(super) image: Option<String>,
    pub(super) build: Option<BuildInfo>,
    /// The files of the build.
    pub(super) files: ContextFiles,
    pub(super) notes: Vec<String>,
}

/// The recipe of a service's image; of one that is built, with our program where that can be had.
///
/// # Errors
///
/// What is wrong with the build's files; a failure of the object storage, where files of the build must go there.
pub(super) async fn recipe(client: &Client, service: &Service) -> Result<Recipe> {
    let mut recipe = recipe_of(&service.image).await?;
    if service.replaces_entrypoint()
        && let Some(build) = &mut recipe.build
        && let Some(text) = Dockerfile::parse(build.dockerfile_content.as_str()).starting(&ENTRYPOINT)
    {
        // the service's own is started in the sandbox, see `startup`; the platform would start the Dockerfile's beside it
        build.dockerfile_content = text;
    }
    if let Some(build) = &recipe.build {
        let mut with_shim = build.clone();
        shim::add(&mut with_shim, &recipe.files.entries);
        if with_shim != *build {
            match client.object_storage().await {
                Ok(_) => recipe.build = Some(with_shim),
                // builds that read no files work all the same
                Err(error) if has_no_storage(error.kind()) => {
                    tracing::debug!("the image gets no program of ours: {error}");
                }
                // what lasts beyond the client's retries must not stop what needs no storage
                Err(error) if recipe.files.entries.is_empty() && is_the_storages(error.kind()) => {
                    tracing::warn!(
                        "the object storage cannot be used, so the image is built without the program that runs \
                         commands, which each sandbox gets instead; once the storage works, it is built once more: \
                         {error}"
                    );
                }
                // a moment's failure must not give the image another name
                Err(error) => return Err(error),
            }
        }
    }
    Ok(recipe)
}

/// Whether an answer to the question for the object storage says that there is none, at least for this key.
fn has_no_storage(answer: ErrorKind) -> bool {
    matches!(answer, ErrorKind::Unsupported | ErrorKind::Forbidden | ErrorKind::NotFound)
}

/// Whether a failure is one of the storage or of what the server knows of it, while the server and the key are in order.
fn is_the_storages(failure: ErrorKind) -> bool {
    matches!(failure, ErrorKind::Server | ErrorKind::Protocol | ErrorKind::InvalidRequest)
}

async fn recipe_of(image: &ImageSource) -> Result<Recipe> {
    match image {
        ImageSource::Image(name) => of_image(name),
        ImageSource::Build(build) => {
            let build = build.clone();
            // a context may be large, and its files are read for the hash
            let read = tokio::task::spawn_blocking(move || of_build(&build)).await;
            read.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Unexpected, "reading the build context broke off"))
            })
        }
        ImageSource::Default | ImageSource::Snapshot(_) => Ok(Recipe::default()),
    }
}

/// The recipe of an image that is pulled.
///
/// # Errors
///
/// [`ErrorKind::InvalidConfig`] for what is no name.
pub(super) fn of_image(name: &str) -> Result<Recipe> {
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-:/@".contains(c)) {
        return Err(Error::new(ErrorKind::InvalidConfig, format!("`{name}` is not the name of an image")));
    }
    if is_pinned(name) {
        return Ok(Recipe { image: Some(name.to_owned()), ..Recipe::default() });
    }
    // the platform refuses to make snapshots of images that may change any day, but builds from them
    Ok(Recipe { build: Some(from(name)), ..Recipe::default() })
}

/// Whether an image has a tag other than `latest`, or a digest.
fn is_pinned(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap_or_default();
    image.contains("@sha256:") || name.split_once(':').is_some_and(|(_, tag)| tag != "latest")
}

/// A build that adds nothing to an image.
pub(in crate::provider) fn from(image: &str) -> BuildInfo {
    BuildInfo { dockerfile_content: format!("FROM {image}\n"), ..BuildInfo::default() }
}

fn of_build(build: &Build) -> Result<Recipe> {
    let witness = Witness::default();
    let context = BuildContext::read(build, &witness)?;
    let mut notes = Vec::new();
    if !context.unused_args.is_empty() {
        notes.push(format!("the Dockerfile takes no build argument {}", context.unused_args.join(", ")));
    }
    if !context.left_out.is_empty() {
        let left_out = context.left_out.join(", ");
        notes.push(format!(
            "links to directories or out of the context, and what is no file, are not sent to the platform: {left_out}"
        ));
    }
    // an archive of nothing makes some servers say that the Dockerfile is empty
    let context_hashes =
        if context.entries.is_empty() { Vec::new() } else { context.hash.into_iter().collect() };
    let build = BuildInfo { dockerfile_content: context.dockerfile, context_hashes, ..BuildInfo::default() };
    let files = ContextFiles { entries: context.entries, contents: witness.contents() };
    Ok(Recipe { build: Some(build), files, notes, ..Recipe::default() })
}
