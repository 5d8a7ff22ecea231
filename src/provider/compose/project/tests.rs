use super::*;
use crate::config::{Context, Document, Plan, RealFiles, Source};

fn read(directory: &Path, compose: &str) -> Result<Project> {
    Project::read(&plan(directory, compose)?)
}

fn plan(directory: &Path, compose: &str) -> Result<ComposeProject> {
    plan_with(directory, compose, &|_| None)
}

fn plan_with(
    directory: &Path,
    compose: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<ComposeProject> {
    let file = directory.join("compose.yaml");
    std::fs::write(&file, compose).unwrap();
    let metadata = BTreeMap::new();
    let context = Context { directory, environment, metadata: &metadata, files: &RealFiles };
    let document = Document::read(&Source::from_path(file).unwrap(), &context)?;
    let Plan::Multi(plan) = document.plan(&context)? else { panic!("several services") };
    Ok(*plan)
}

fn names(project: &Project) -> Vec<String> {
    let mut archive = tar::Archive::new(&project.archive[..]);
    let entries = archive.entries().unwrap();
    let paths = entries.map(|entry| entry.unwrap().path().unwrap().display().to_string());
    let mut paths: Vec<_> = paths.map(|path| path.trim_end_matches('/').to_owned()).collect();
    paths.sort_unstable();
    paths
}

#[test]
fn contexts_binds_and_config_files_get_paths_of_the_sandbox() {
    let directory = tempfile::tempdir().unwrap();
    let at = |path: &str| directory.path().join(path);
    std::fs::create_dir_all(at("web/src")).unwrap();
    std::fs::create_dir_all(at("data/empty")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", at("data/link")).unwrap();
    for (path, text) in [
        ("web/Dockerfile", "FROM scratch\nCOPY src /src\n"),
        ("web/src/a", "a"),
        ("web/unused", "u"),
        ("data/file", "d"),
        ("key", "k"),
    ] {
        std::fs::write(at(path), text).unwrap();
    }
    let project = read(
        directory.path(),
        "services:\n  web:\n    build: web\n    volumes: ['./data:/data:ro', 'named:/n']\n    secrets: [key]\n  \
         other:\n    build: {context: web}\n    volumes:\n      - {type: bind, source: ./data, target: /d}\n\
         volumes: {named: {}}\nsecrets: {key: {file: ./key}}\n",
    )
    .unwrap();
    let web = &project.model["services"]["web"];
    assert_eq!(web["build"]["context"], "/var/lib/inspect-project/context-0");
    assert_eq!(web["build"]["dockerfile"], "/var/lib/inspect-project/Dockerfile-0");
    assert_eq!(web["volumes"], json!(["/var/lib/inspect-project/bind-0:/data:ro", "named:/n"]));
    let other = &project.model["services"]["other"];
    assert_eq!(other["build"]["context"], "/var/lib/inspect-project/context-0");
    assert_eq!(other["volumes"][0]["source"], "/var/lib/inspect-project/bind-0");
    assert_eq!(project.model["secrets"]["key"]["file"], "/var/lib/inspect-project/secrets-0");
    assert_eq!(
        names(&project),
        [
            "bind-0",
            "bind-0/empty",
            "bind-0/file",
            "bind-0/link",
            "context-0",
            "context-0/src",
            "context-0/src/a",
            "secrets-0"
        ]
    );
    assert!(project.builds());
}

#[test]
fn the_ignore_file_of_a_dockerfile_counts_and_not_that_of_the_context() {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("x.Dockerfile", "FROM scratch\nCOPY . /\n"),
        ("x.Dockerfile.dockerignore", "b.txt\n*Dockerfile*\ncompose.yaml\n"),
        (".dockerignore", "a.txt\n"),
        ("a.txt", "a"),
        ("b.txt", "b"),
    ] {
        std::fs::write(directory.path().join(path), text).unwrap();
    }
    let project = read(
        directory.path(),
        "services:\n  a: {build: {context: ., dockerfile: x.Dockerfile}}\n  b: {image: 'b:1'}\n",
    )
    .unwrap();
    assert_eq!(names(&project), ["context-0", "context-0/.dockerignore", "context-0/a.txt"]);
    let files: BTreeMap<_, _> = project.files(&BTreeMap::new()).unwrap().into_iter().collect();
    let own = &files["/var/lib/inspect-project/Dockerfile-0.dockerignore"];
    let ignored =
        crate::config::dockerignore::DockerIgnore::parse(std::str::from_utf8(own).unwrap()).unwrap();
    assert!(!ignored.excludes("a.txt"));
    assert!(!own.is_empty(), "what is empty may count as missing");
}

#[test]
fn bound_files_keep_their_permissions_and_links_stay_links() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    for (name, mode) in [("flag", 0o600), ("program", 0o4755)] {
        std::fs::write(data.join(name), "f").unwrap();
        std::fs::set_permissions(data.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    std::os::unix::fs::symlink("/etc/shadow", data.join("link")).unwrap();
    let project =
        read(directory.path(), "services: {a: {image: 'a:1', volumes: ['./data:/d']}, b: {image: 'b:1'}}\n")
            .unwrap();
    let mut archive = tar::Archive::new(&project.archive[..]);
    let found: BTreeMap<_, _> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let link = entry.link_name().unwrap().map(|target| target.display().to_string());
            (entry.path().unwrap().display().to_string(), (entry.header().mode().unwrap(), link))
        })
        .collect();
    assert_eq!(found["bind-0/flag"], (0o600, None));
    assert_eq!(found["bind-0/program"], (0o755, None), "it is another user's there");
    assert_eq!(found["bind-0/link"].1.as_deref(), Some("/etc/shadow"), "no file of this machine is sent");
}

#[test]
fn additional_contexts_of_a_build_are_sent_along() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a", "shared"] {
        std::fs::create_dir(directory.path().join(name)).unwrap();
    }
    std::fs::write(directory.path().join("a/Dockerfile"), "FROM scratch\nCOPY --from=s f /\n").unwrap();
    std::fs::write(directory.path().join("shared/f"), "f").unwrap();
    let compose = |contexts: &str| {
        format!(
            "services: {{a: {{build: {{context: a, additional_contexts: {contexts}}}}}, b: {{image: 'b:1'}}}}\n"
        )
    };
    let mapped = "/var/lib/inspect-project/additional-0-0";
    let project = read(directory.path(), &compose("{s: ./shared, t: 'docker-image://x'}")).unwrap();
    let contexts = &project.model["services"]["a"]["build"]["additional_contexts"];
    assert_eq!(contexts, &json!({"s": mapped, "t": "docker-image://x"}));
    assert!(names(&project).contains(&"additional-0-0/f".to_owned()));
    let project = read(directory.path(), &compose("['s=./shared']")).unwrap();
    let contexts = &project.model["services"]["a"]["build"]["additional_contexts"];
    assert_eq!(contexts, &json!([format!("s={mapped}")]));
    assert!(read(directory.path(), &compose("{s: ./gone}")).unwrap_err().message().contains("gone"));
}

#[test]
fn every_service_gets_the_mounts_of_the_shim() {
    let directory = tempfile::tempdir().unwrap();
    let project =
        read(directory.path(), "services:\n  a: {image: 'a:1'}\n  b: {image: 'b:1', read_only: true}\n")
            .unwrap();
    let mount = |source: &str, read_only| Mount { source: source.into(), target: "/t".into(), read_only };
    let mounts = ["a", "b"].map(|service| {
        let mounts = ContainerMounts { program: mount("/p", true), state: mount("/s", false) };
        (service.to_owned(), mounts)
    });
    let files = project.files(&BTreeMap::from(mounts)).unwrap();
    let (path, text) = &files[0];
    assert_eq!(path, "/var/lib/inspect-project/compose.json");
    let model: Value = serde_json::from_slice(text).unwrap();
    for service in ["a", "b"] {
        assert_eq!(
            model["services"][service]["volumes"][1],
            json!({"type": "bind", "source": "/s", "target": "/t", "read_only": false})
        );
    }
    assert!(!project.builds());
}

#[test]
fn a_secret_without_its_file_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let error = read(
        directory.path(),
        "services: {a: {image: 'a:1', secrets: [key]}, b: {image: 'b:1'}}\nsecrets: {key: {file: ./gone}}\n",
    )
    .unwrap_err();
    assert!(error.message().contains("gone"), "{error}");
}

const TOKEN: &str =
    "services: {a: {image: 'a:1', secrets: [t]}, b: {image: 'b:1'}}\nsecrets: {t: {environment: T}}\n";

#[test]
fn a_secret_of_a_variable_is_a_file_of_the_archive_and_nothing_else_shows_it() {
    use std::io::Read;
    let directory = tempfile::tempdir().unwrap();
    let plan = plan_with(directory.path(), TOKEN, &|name| (name == "T").then(|| "the token".into())).unwrap();
    let project = Project::read(&plan).unwrap();
    assert_eq!(project.model["secrets"], json!({"t": {"file": "/var/lib/inspect-project/variable-0"}}));
    let mut archive = tar::Archive::new(&project.archive[..]);
    let mut file = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(file.path().unwrap(), Path::new("variable-0"));
    assert_eq!(file.header().mode().unwrap(), 0o444);
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "the token");
    assert!(!serde_json::to_string(&plan).unwrap().contains("the token"));
    assert!(!format!("{plan:?}").contains("the token"));
}

#[tokio::test]
async fn projects_that_differ_in_a_secret_alone_are_two() {
    let directory = tempfile::tempdir().unwrap();
    let plan = |value: &'static str| plan_with(directory.path(), TOKEN, &|_| Some(value.into())).unwrap();
    let projects = Projects::default();
    let first = projects.read(&plan("1"), false).await.unwrap();
    let second = projects.read(&plan("2"), false).await.unwrap();
    assert_ne!(first.archive, second.archive);
    assert!(Arc::ptr_eq(&first, &projects.read(&plan("1"), false).await.unwrap()));
}

#[test]
fn directories_that_volumes_bind_are_sent_along() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("data")).unwrap();
    std::fs::write(directory.path().join("data/file"), "d").unwrap();
    let compose = |device: &str| {
        format!(
            "services: {{a: {{image: 'a:1', volumes: ['v:/v', 'n:/n', 'm:/m']}}, b: {{image: 'b:1'}}}}\nvolumes:\n  \
             v: {{driver_opts: {{type: none, o: 'ro,bind', device: {device}}}}}\n  \
             n: {{driver_opts: {{type: nfs, o: addr=10.0.0.1, device: ':/exported'}}}}\n  \
             m: {{driver_opts: {{type: none, o: bind, device: /dev/shm}}}}\n"
        )
    };
    let project = read(directory.path(), &compose("./data")).unwrap();
    let device = |volume: &str| &project.model["volumes"][volume]["driver_opts"]["device"];
    assert_eq!(device("v"), "/var/lib/inspect-project/volume-2");
    assert_eq!(device("n"), ":/exported");
    assert_eq!(device("m"), "/dev/shm", "it is the machine's");
    assert_eq!(names(&project), ["volume-2", "volume-2/file"]);
    let unused = compose("./gone").replace("'v:/v', ", "");
    assert!(read(directory.path(), &unused).is_ok(), "no service mounts it");
    let error = read(directory.path(), &compose("./gone")).unwrap_err();
    assert!(error.message().contains("the volume v") && error.message().contains("gone"), "{error}");
}

#[test]
fn a_tilde_is_the_home_directory_and_other_paths_start_at_the_project() {
    let home = std::path::PathBuf::from(std::env::var_os("HOME").unwrap());
    let here = |written| super::sections::on_this_machine(std::path::Path::new("/project"), written);
    assert_eq!(here("~"), home);
    assert_eq!(here("~/.key"), home.join(".key"));
    for (written, path) in
        [("~user/key", "/project/~user/key"), ("./key", "/project/./key"), ("/key", "/key")]
    {
        assert_eq!(here(written), std::path::Path::new(path));
    }
}

#[tokio::test]
async fn a_project_is_read_once_and_only_the_last_ones_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::write(&data, "first").unwrap();
    let plan = |image: usize| {
        let compose =
            format!("services: {{a: {{image: 'a:{image}', volumes: ['./data:/d']}}, b: {{image: 'b:1'}}}}\n");
        plan(directory.path(), &compose).unwrap()
    };
    let projects = Projects::default();
    let first = projects.read(&plan(0), false).await.unwrap();
    std::fs::write(&data, "second").unwrap();
    assert!(Arc::ptr_eq(&first, &projects.read(&plan(0), false).await.unwrap()));
    let fresh = projects.read(&plan(0), true).await.unwrap();
    assert_ne!(first.archive, fresh.archive);
    for image in 1..=MOST {
        projects.read(&plan(image), false).await.unwrap();
    }
    assert_eq!(projects.0.lock().unwrap().len(), MOST);
    assert!(!Arc::ptr_eq(&fresh, &projects.read(&plan(0), false).await.unwrap()), "it was the oldest");
}

mod docker_compose;
mod mounts;
