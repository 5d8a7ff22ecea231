//! A configuration as it was read, before the values of a sample are known.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::files::{FileKind, normalize};
use super::include::Included;
use super::interpolate::interpolate;
use super::node::{Node, Value};
use super::plan::{Build, DockerfileSource, ImageSource, Plan, SandboxPlan, Service};
use super::prepared::{self, METADATA_PREFIX, Used};
use super::problem::Place;
use super::reading::Reading;
use super::values::Variables;
use super::{Context, Source, XDaytona, compose, dotenv, include, json, yaml};
use crate::error::{Error, ErrorKind, Result};

/// The name of projects in sandboxes with several services.
pub(crate) const PROJECT: &str = "inspect";

/// A configuration that was read and parsed once; [`Document::plan`] is cheap and may be called for every sample.
#[derive(Clone, Debug)]
pub struct Document {
    /// The name in messages.
    file: String,
    /// Where relative paths start.
    directory: PathBuf,
    content: Content,
}

/// Variables without a value, and where each is used first.
type Unset = BTreeMap<String, Place>;

#[derive(Clone, Debug)]
enum Content {
    Nothing,
    Dockerfile(PathBuf),
    File(ComposeFile),
    /// A model from Inspect, and whether variables are put in: those of this machine, as Docker Compose would when Inspect
    /// hands it such a model. A sample's metadata is for files alone.
    Model(Node, bool),
    /// Settings without a compose file, which are never interpolated.
    Settings(Node),
}

/// A compose file.
#[derive(Clone, Debug)]
struct ComposeFile {
    path: PathBuf,
    root: Node,
    /// The text of the `.env` beside it.
    dotenv: Option<String>,
    /// Whether variables or other files are put in, so that a plan needs a tree of its own.
    varies: bool,
    /// What it includes, as far as that is known without a sample.
    included: Included,
    /// The variables of a sample's metadata that change what must be prepared, once somebody asked.
    prepared: OnceLock<Used>,
}

impl Document {
    /// Reads and parses a configuration. Relative paths start from the task's directory, or else from the working
    /// directory, since Inspect hands on a sample's path as it was written.
    ///
    /// # Errors
    /// `InvalidConfig`, with file, line and column, where the file is missing or not YAML.
    pub fn read(source: &Source, context: &Context<'_>) -> Result<Self> {
        match source {
            Source::None => Ok(Self {
                file: "no configuration".to_owned(),
                directory: context.directory.to_path_buf(),
                content: Content::Nothing,
            }),
            Source::Dockerfile(path) => {
                let path = find(path, context)?;
                Ok(Self {
                    file: path.display().to_string(),
                    directory: path.parent().unwrap_or(Path::new("/")).to_path_buf(),
                    content: Content::Dockerfile(path),
                })
            }
            Source::Compose(path) => {
                let path = find(path, context)?;
                let file = path.display().to_string();
                let directory = path.parent().unwrap_or(Path::new("/")).to_path_buf();
                let text = read_text(&path, context)?;
                let root = yaml::parse(&text).map_err(|problem| problem.into_error(&file))?;
                let dotenv = directory.join(".env");
                let dotenv = match context.files.kind(&dotenv) {
                    Ok(FileKind::File { .. }) => Some(read_text(&dotenv, context)?),
                    _ => None,
                };
                let has_includes = matches!(&root.value, Value::Mapping(top) if top.get("include").is_some());
                // A quoted text may hold a dollar sign as an escape.
                let varies = has_includes || text.contains(['$', '\\']);
                let included = if has_includes {
                    include::survey(&root, &path, context.files)
                } else {
                    Included::default()
                };
                let prepared = OnceLock::new();
                let compose = ComposeFile { path, root, dotenv, varies, included, prepared };
                Ok(Self { file, directory, content: Content::File(compose) })
            }
            Source::Model(json) => {
                let file = "compose model".to_owned();
                let root = json::parse(json).map_err(|problem| problem.into_error(&file))?;
                Ok(Self {
                    file,
                    directory: context.directory.to_path_buf(),
                    content: Content::Model(root, json.contains(['$', '\\'])),
                })
            }
            Source::Settings(json) => {
                let file = "Daytona settings".to_owned();
                let root = json::parse(json).map_err(|problem| problem.into_error(&file))?;
                Ok(Self {
                    file,
                    directory: context.directory.to_path_buf(),
                    content: Content::Settings(root),
                })
            }
        }
    }

    /// The plan for one sample, or for a task where the context has no metadata.
    ///
    /// # Errors
    /// `InvalidConfig`, with file, line and column, for whatever cannot be honoured.
    pub fn plan(&self, context: &Context<'_>) -> Result<Plan> {
        match &self.content {
            Content::Nothing => Ok(alone(ImageSource::Default)),
            Content::Dockerfile(path) => Ok(alone(ImageSource::Build(Build {
                context: self.directory.clone(),
                dockerfile: DockerfileSource::Path(path.clone()),
                args: Variables::default(),
                target: None,
                no_cache: false,
                pull: false,
            }))),
            Content::Model(root, varies) => {
                let project = project_name(root);
                let own = |name: &str| (name == "COMPOSE_PROJECT_NAME").then(|| project.clone());
                let lookup = |name: &str| (context.environment)(name).or_else(|| own(name));
                let mut root = Cow::Borrowed(root);
                let unset = match varies {
                    true => interpolate(root.to_mut(), &lookup),
                    false => Ok(Unset::default()),
                };
                let unset = unset.map_err(|problem| problem.into_error(&self.file))?;
                let reading = Reading::new(&self.file, &self.directory, context, &lookup);
                self.plan_root(reading, &root, &unset)
            }
            Content::Settings(root) => compose::alone(root)
                .map(|plan| Plan::Single(Box::new(plan)))
                .map_err(|problem| problem.into_error(&self.file)),
            Content::File(file) => self.plan_file(file, Cow::Borrowed(&file.root), context),
        }
    }

    /// The plan of a configuration that is needed once: nothing of it is copied.
    pub(crate) fn into_plan(mut self, context: &Context<'_>) -> Result<Plan> {
        if let Content::File(file) = &mut self.content {
            let nothing = Node { place: file.root.place.clone(), value: Value::Null, plain: true };
            let root = std::mem::replace(&mut file.root, nothing);
            if let Content::File(file) = &self.content {
                return self.plan_file(file, Cow::Owned(root), context);
            }
        }
        self.plan(context)
    }

    fn plan_file(&self, file: &ComposeFile, root: Cow<'_, Node>, context: &Context<'_>) -> Result<Plan> {
        let metadata = by_variable(context.metadata);
        let outer = |name: &str| metadata.get(name).cloned().or_else(|| (context.environment)(name));
        let defaults = match &file.dotenv {
            Some(text) => {
                let file = self.directory.join(".env").display().to_string();
                dotenv::parse(text, &outer).map_err(|problem| problem.into_error(&file))?
            }
            None => BTreeMap::new(),
        };
        let project = project_name(&root);
        let own = |name: &str| (name == "COMPOSE_PROJECT_NAME").then(|| project.clone());
        let lookup = |name: &str| outer(name).or_else(|| defaults.get(name).cloned()).or_else(|| own(name));
        let reading = Reading::new(&self.file, &self.directory, context, &lookup);
        let mut unset = Unset::default();
        let root = if file.varies {
            let mut root = root.into_owned();
            let chain = &mut vec![file.path.clone()];
            unset = interpolate(&mut root, &lookup)
                .and_then(|mut unset| {
                    include::expand(&mut root, context.files, &lookup, chain, &mut unset)?;
                    Ok(unset)
                })
                .map_err(|problem| problem.into_error(&self.file))?;
            Cow::Owned(root)
        } else {
            root
        };
        self.plan_root(reading, &root, &unset)
    }

    /// The plan of a tree in which variables have been put in.
    fn plan_root(&self, mut reading: Reading<'_>, root: &Node, unset: &Unset) -> Result<Plan> {
        for (name, place) in unset {
            reading.warn(place, format!("the variable `{name}` is not set and is taken as empty"));
        }
        compose::plan(reading, root).map_err(|problem| {
            let error = problem.into_error(&self.file);
            match unset.keys().map(String::as_str).collect::<Vec<_>>().as_slice() {
                [] => error,
                names => error.with_hint(format!("These variables are not set: {}", names.join(", "))),
            }
        })
    }

    /// The files that this document depends on, also those that could exist: it is to be read again when one changes.
    /// What [`Document::plan`] reads anew (`env_file`s, build contexts) is not among them.
    pub fn files(&self) -> Vec<PathBuf> {
        match &self.content {
            Content::Nothing | Content::Model(..) | Content::Settings(_) => Vec::new(),
            Content::Dockerfile(path) => vec![path.clone()],
            Content::File(file) => {
                let own = [file.path.clone(), self.directory.join(".env")];
                own.into_iter().chain(file.included.paths.iter().cloned()).collect()
            }
        }
    }

    /// The variables named `SAMPLE_METADATA_…` that the file itself uses.
    pub fn metadata_variables(&self) -> Vec<String> {
        match &self.content {
            Content::File(file) => prepared::all_variables(&file.root),
            _ => Vec::new(),
        }
    }

    /// The variables of a sample's metadata that change what must be prepared (images, builds, resources, snapshots), with
    /// their values: what Inspect's `task_init_environment` is to return. Empty where samples differ in nothing that
    /// matters before they start.
    pub fn task_environment(&self, metadata: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let Content::File(file) = &self.content else { return BTreeMap::new() };
        let used = file
            .prepared
            .get_or_init(|| prepared::variables(&file.root, file.dotenv.as_deref(), &file.included));
        match used {
            Used::Any => by_variable(metadata),
            Used::These(names) if names.is_empty() => BTreeMap::new(),
            Used::These(names) => {
                let mut values = by_variable(metadata);
                values.retain(|name, _| names.contains(name));
                values
            }
        }
    }
}

/// What Compose's variable `COMPOSE_PROJECT_NAME` is where nobody sets it: the file's `name`, or what projects are called in
/// a sandbox.
fn project_name(root: &Node) -> String {
    let name = match &root.value {
        Value::Mapping(top) => top.get("name").and_then(|node| node.text("name").ok()),
        _ => None,
    };
    name.filter(|name| !name.contains('$')).unwrap_or(PROJECT).to_owned()
}

fn alone(image: ImageSource) -> Plan {
    let service = Service { name: "default".to_owned(), image, ..Service::default() };
    Plan::Single(Box::new(SandboxPlan { service, settings: XDaytona::default(), warnings: Vec::new() }))
}

/// Inspect's rule for the names of variables.
fn by_variable(metadata: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let name = |key: &String| format!("{METADATA_PREFIX}{}", key.replace(' ', "_").to_uppercase());
    let variables = metadata.iter().map(|(key, value)| (name(key), value.clone()));
    // an environment takes no others, and no compose file can use them
    variables.filter(|(name, value)| !name.contains(['=', '\0']) && !value.contains('\0')).collect()
}

fn find(path: &Path, context: &Context<'_>) -> Result<PathBuf> {
    let beside = normalize(&context.directory.join(path));
    for candidate in [beside.as_path(), path] {
        match context.files.kind(candidate) {
            Ok(FileKind::File { .. }) => return Ok(candidate.to_path_buf()),
            Ok(FileKind::Directory | FileKind::LinkToDirectory) => {
                let message = format!("{} is a directory, not a file", candidate.display());
                return Err(Error::new(ErrorKind::InvalidConfig, message));
            }
            Ok(FileKind::Special(name)) => {
                let message = format!("{} is a {name}, not a file", candidate.display());
                return Err(Error::new(ErrorKind::InvalidConfig, message));
            }
            Ok(FileKind::DanglingLink) | Err(_) => {}
        }
    }
    Err(Error::new(
        ErrorKind::InvalidConfig,
        format!("the configuration {} does not exist", beside.display()),
    ))
}

fn read_text(path: &Path, context: &Context<'_>) -> Result<String> {
    let bytes = context.files.read(path).map_err(|error| {
        Error::new(ErrorKind::InvalidConfig, format!("{} cannot be read: {error}", path.display()))
            .with_source(error)
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..valid].split(|byte| *byte == b'\n').skip(1).count();
        Error::new(ErrorKind::InvalidConfig, format!("{}:{line}: the file is not UTF-8", path.display()))
    })
}
