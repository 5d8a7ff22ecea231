//! `image` and `build`.

use super::dockerfile::Dockerfile;
use super::environment::pairs;
use super::files::FileKind;
use super::keys::BUILD;
use super::node::{Mapping, Node, Value};
use super::plan::{Build, DockerfileSource, ImageSource, LocalPath, Purpose};
use super::problem::Read;
use super::reading::Reading;
use super::values::Variables;

/// What a service runs; [`ImageSource::Default`] where it says nothing.
pub(crate) fn image(
    reading: &mut Reading<'_>,
    service: &Mapping,
    service_name: &str,
    local: &mut Vec<LocalPath>,
) -> Read<ImageSource> {
    if let Some(node) = service.get("build")
        && let Some(build) = build(reading, node, service_name, local)?
    {
        return Ok(ImageSource::Build(build));
    }
    match service.get("image") {
        Some(node) => {
            let image = node.name("image")?;
            if image.chars().any(char::is_whitespace) {
                return Err(node.problem(format!("`image` must be the name of an image, not `{image}`")));
            }
            Ok(ImageSource::Image(image.to_owned()))
        }
        None => Ok(ImageSource::Default),
    }
}

/// A build; nothing where the context is elsewhere and Compose fetches it inside the sandbox.
fn build(
    reading: &mut Reading<'_>,
    node: &Node,
    service_name: &str,
    local: &mut Vec<LocalPath>,
) -> Read<Option<Build>> {
    let empty = Mapping::default();
    let (mapping, written) = match &node.value {
        Value::Mapping(mapping) => {
            reading.check_keys(mapping, BUILD, format_args!("build"))?;
            (mapping, mapping.get("context").map(|node| node.name("context")).transpose()?.unwrap_or("."))
        }
        _ => (&empty, node.name("build")?),
    };
    if is_remote(written) {
        if reading.multi {
            return Ok(None);
        }
        return Err(node
            .problem(format!("the build context `{written}` is not a directory of this machine"))
            .hint("Fetch it first, or use an image"));
    }
    let context = reading.path(written);
    match reading.context.files.kind(&context) {
        Ok(FileKind::Directory | FileKind::LinkToDirectory) => {}
        Ok(FileKind::File { .. } | FileKind::Special(_)) => {
            return Err(node.problem(format!("the build context {} is a file", context.display())));
        }
        Ok(FileKind::DanglingLink) => {
            let message = format!("the build context {} is a link that leads nowhere", context.display());
            return Err(node.problem(message));
        }
        Err(error) => {
            return Err(
                node.problem(format!("the build context {} cannot be read: {error}", context.display()))
            );
        }
    }
    let dockerfile = match (mapping.get("dockerfile"), mapping.get("dockerfile_inline")) {
        (Some(_), Some(inline)) => {
            return Err(inline.problem("`dockerfile` and `dockerfile_inline` of build exclude each other"));
        }
        (None, Some(inline)) => DockerfileSource::Inline(inline.name("dockerfile_inline")?.to_owned()),
        (file, None) => {
            let written = file.map(|node| node.text("dockerfile")).transpose()?.unwrap_or_default();
            let written = if written.is_empty() { "Dockerfile" } else { written };
            let path = super::files::normalize(&context.join(written));
            if !matches!(reading.context.files.kind(&path), Ok(FileKind::File { .. })) {
                return Err(file
                    .unwrap_or(node)
                    .problem(format!("there is no Dockerfile at {}", path.display())));
            }
            DockerfileSource::Path(path)
        }
    };
    if let Some(platforms) = mapping.get("platforms")
        && !platforms.texts("platforms")?.iter().any(|platform| super::service::is_amd64(platform))
    {
        return Err(platforms.problem("`platforms` of build must include linux/amd64"));
    }
    local.push(LocalPath {
        service: service_name.to_owned(),
        purpose: Purpose::Build,
        written: written.to_owned(),
        path: context.clone(),
    });
    Ok(Some(Build {
        context,
        dockerfile,
        args: match mapping.get("args") {
            Some(node) => Variables(pairs(node, "args", &|name| (reading.lookup)(name))?),
            None => Variables::default(),
        },
        target: mapping
            .get("target")
            .map(|node| node.text("target"))
            .transpose()?
            .filter(|target| !target.is_empty())
            .map(str::to_owned),
        no_cache: flag(mapping, "no_cache")?,
        pull: flag(mapping, "pull")?,
    }))
}

/// The entrypoint of an image that is built, to which a service's command is the arguments. What is wrong with the
/// Dockerfile is told when it is built.
pub(crate) fn entrypoint(reading: &Reading<'_>, build: &Build) -> Option<Vec<String>> {
    let text = match &build.dockerfile {
        DockerfileSource::Inline(text) => text.clone(),
        DockerfileSource::Path(path) => String::from_utf8(reading.context.files.read(path).ok()?).ok()?,
    };
    Dockerfile::parse(text).until(build.target.as_deref()).ok()?.entrypoint(&build.args)
}

fn flag(mapping: &Mapping, key: &str) -> Read<bool> {
    mapping.get(key).map_or(Ok(false), |node| node.boolean(key))
}

/// Whether a context is something that the Docker builder fetches: a URL or a Git address.
pub(crate) fn is_remote(context: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@", "github.com/", "docker-image://", "oci-layout://"]
        .iter()
        .any(|scheme| context.starts_with(scheme))
        || context.contains(".git#")
}
