//! Where configurations come from, what a sample changes, and real files.

use std::collections::BTreeMap;
use std::path::Path;

use inspect_daytona::ErrorKind;
use inspect_daytona::config::context::BuildContext;
use inspect_daytona::config::{
    Build, Context, DockerfileSource, Document, FileKind, Files, ImageSource, MemoryFiles, Plan, RealFiles,
    Source, Variables, load,
};

fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn image(plan: &Plan) -> &ImageSource {
    match plan {
        Plan::Single(plan) => &plan.service.image,
        Plan::Multi(_) => panic!("several services"),
    }
}

#[test]
fn a_path_is_a_dockerfile_or_a_compose_file_by_its_name() {
    for name in ["Dockerfile", "a/Dockerfile.test", "test.Dockerfile", "dockerfile"] {
        assert_eq!(Source::from_path(name).unwrap(), Source::Dockerfile(name.into()), "{name}");
    }
    for name in ["compose.yaml", "a/docker-compose.yml", "my_compose.yaml", "/x/.compose.yaml"] {
        assert_eq!(Source::from_path(name).unwrap(), Source::Compose(name.into()), "{name}");
    }
    for name in ["values.json", "", "compose"] {
        assert_eq!(Source::from_path(name).unwrap_err().kind(), ErrorKind::InvalidConfig, "{name}");
    }
}

#[test]
fn a_relative_path_starts_from_the_task_or_else_from_the_working_directory() {
    let files = MemoryFiles::default()
        .with("/task/compose.yaml", "services: {a: {image: 'task:1'}}")
        .with("elsewhere/compose.yaml", "services: {a: {image: 'cwd:1'}}");
    let nothing = BTreeMap::new();
    let context =
        Context { directory: Path::new("/task"), environment: &|_| None, metadata: &nothing, files: &files };
    let read = |path: &str| load(&Source::from_path(path).unwrap(), &context);
    assert_eq!(image(&read("compose.yaml").unwrap()), &ImageSource::Image("task:1".to_owned()));
    assert_eq!(image(&read("elsewhere/compose.yaml").unwrap()), &ImageSource::Image("cwd:1".to_owned()));
    let error = read("nowhere/compose.yaml").unwrap_err().to_string();
    assert_eq!(error, "the configuration /task/nowhere/compose.yaml does not exist");
}

#[test]
fn one_document_gives_each_sample_its_plan() {
    let text = "services:\n  default:\n    image: base:${SAMPLE_METADATA_TAG-1}\n    environment:\n      - LEVEL=${SAMPLE_METADATA_LEVEL-easy}\n";
    let files = MemoryFiles::default().with("/task/compose.yaml", text);
    let nothing = BTreeMap::new();
    let context =
        Context { directory: Path::new("/task"), environment: &|_| None, metadata: &nothing, files: &files };
    let document = Document::read(&Source::Compose("compose.yaml".into()), &context).unwrap();
    assert_eq!(document.metadata_variables(), ["SAMPLE_METADATA_LEVEL", "SAMPLE_METADATA_TAG"]);
    assert_eq!(image(&document.plan(&context).unwrap()), &ImageSource::Image("base:1".to_owned()));
    let metadata = texts(&[("tag", "2"), ("level", "hard"), ("other", "x")]);
    let sample = Context { metadata: &metadata, ..context };
    assert_eq!(image(&document.plan(&sample).unwrap()), &ImageSource::Image("base:2".to_owned()));
    // Only what decides what is prepared: the level does not.
    assert_eq!(document.task_environment(&metadata), texts(&[("SAMPLE_METADATA_TAG", "2")]));
    assert_eq!(document.task_environment(&texts(&[("level", "hard")])), BTreeMap::new());
}

/// What `task_environment` gives of these metadata for `compose.yaml` among `files`.
fn task_environment(files: &MemoryFiles) -> Vec<String> {
    let nothing = BTreeMap::new();
    let context =
        Context { directory: Path::new("/task"), environment: &|_| None, metadata: &nothing, files };
    let document = Document::read(&Source::Compose("compose.yaml".into()), &context).unwrap();
    document.task_environment(&texts(&[("image", "i"), ("tag", "t"), ("level", "l")])).into_keys().collect()
}

#[test]
fn metadata_that_decides_an_image_is_seen_in_included_files_and_files_of_variables() {
    const IMAGE: &str = "SAMPLE_METADATA_IMAGE";
    const TAG: &str = "SAMPLE_METADATA_TAG";
    const LEVEL: &str = "SAMPLE_METADATA_LEVEL";
    let compose = |text: &str| MemoryFiles::default().with("/task/compose.yaml", text);
    let inner =
        "services: {a: {image: '${SAMPLE_METADATA_IMAGE}', environment: {L: '${SAMPLE_METADATA_LEVEL-}'}}}";
    let direct = compose("include: [sub/a.yaml]\n").with("/task/sub/a.yaml", inner);
    assert_eq!(task_environment(&direct), [IMAGE], "the level changes nothing that is prepared");
    let by_another = compose("include: [b.yaml]\n")
        .with("/task/b.yaml", "include: [{path: sub/a.yaml, env_file: vars}]\n")
        .with("/task/vars", "TAG=${SAMPLE_METADATA_TAG}\n")
        .with("/task/sub/a.yaml", inner);
    assert_eq!(task_environment(&by_another), [IMAGE, TAG]);
    let beside = compose("include: [sub/a.yaml]\n")
        .with("/task/sub/a.yaml", "services: {a: {image: 'x:$TAG'}}")
        .with("/task/sub/.env", "TAG=$SAMPLE_METADATA_TAG\n");
    assert_eq!(task_environment(&beside), [TAG]);
    let own =
        compose("services: {a: {image: 'x:$TAG'}}\n").with("/task/.env", "TAG=${SAMPLE_METADATA_TAG:-1}\n");
    assert_eq!(task_environment(&own), [TAG]);
    // what cannot be told without a sample may be anything
    let chosen = compose("include: ['${SAMPLE_METADATA_IMAGE}.yaml']\n");
    assert_eq!(task_environment(&chosen), [IMAGE, LEVEL, TAG]);
    let odd = texts(&[("a=b", "1"), ("nul", "x\0y"), ("image", "i")]);
    let context =
        Context { directory: Path::new("/task"), environment: &|_| None, metadata: &odd, files: &chosen };
    let document = Document::read(&Source::Compose("compose.yaml".into()), &context).unwrap();
    assert_eq!(
        document.task_environment(&odd),
        texts(&[(IMAGE, "i")]),
        "what no environment takes is left out"
    );
    let by_this_machine = compose("include: ['${SUITE:-base}/compose.yaml']\n");
    assert_eq!(task_environment(&by_this_machine), Vec::<String>::new(), "it is the same for all samples");
    let itself = compose("include: [compose.yaml]\n");
    assert_eq!(task_environment(&itself).len(), 3);
    let none = compose("include: [sub/a.yaml]\n").with("/task/sub/a.yaml", "services: {a: {image: x}}");
    assert_eq!(task_environment(&none), Vec::<String>::new());
}

#[test]
fn ten_thousand_samples_and_a_hundred_services_are_quick() {
    let service = |index| {
        format!(
            "  s{index}:\n    image: a:${{SAMPLE_METADATA_TAG-1}}\n    environment: {{A: '1', B: \"${{X-y}}\"}}\n    mem_limit: 1g\n"
        )
    };
    let services: Vec<String> = (0..100).map(service).collect();
    let text = format!("services:\n{}", services.concat());
    let files = MemoryFiles::default().with("/task/compose.yaml", text);
    let nothing = BTreeMap::new();
    let context =
        Context { directory: Path::new("/task"), environment: &|_| None, metadata: &nothing, files: &files };
    let document = Document::read(&Source::Compose("compose.yaml".into()), &context).unwrap();
    let metadata = texts(&[("tag", "2")]);
    let begin = std::time::Instant::now();
    for _ in 0..10_000 {
        assert_eq!(document.task_environment(&metadata).len(), 1);
    }
    let samples = begin.elapsed();
    let begin = std::time::Instant::now();
    for _ in 0..100 {
        load(&Source::Compose("compose.yaml".into()), &context).unwrap();
    }
    println!("10,000 samples: {samples:?}; one plan of 100 services: {:?}", begin.elapsed() / 100);
    // A guard against accidental quadratic work in a debug build, not a measurement.
    assert!(samples.as_secs() < 60, "{samples:?}");
}

#[test]
fn real_files_tell_links_permissions_and_order() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::create_dir(path("sub")).unwrap();
    std::fs::write(path("script"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(path("script"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(path("text"), "x").unwrap();
    symlink("sub", path("link")).unwrap();
    symlink("nowhere", path("broken")).unwrap();
    assert_eq!(RealFiles.list(directory.path()).unwrap(), ["broken", "link", "script", "sub", "text"]);
    assert_eq!(RealFiles.kind(&path("script")).unwrap(), FileKind::File { executable: true });
    assert_eq!(RealFiles.kind(&path("text")).unwrap(), FileKind::File { executable: false });
    assert_eq!(RealFiles.kind(&path("sub")).unwrap(), FileKind::Directory);
    assert_eq!(RealFiles.kind(&path("link")).unwrap(), FileKind::LinkToDirectory);
    assert_eq!(RealFiles.kind(&path("broken")).unwrap(), FileKind::DanglingLink);
    assert_eq!(RealFiles.kind(&path("nothing")).unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn what_is_no_file_is_told_from_one_and_never_waited_for() {
    use std::os::unix::fs::symlink;
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let _listener = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
    symlink("pipe", path("link")).unwrap();
    symlink("itself", path("itself")).unwrap();
    for (name, kind) in [
        ("socket", FileKind::Special("socket")),
        ("pipe", FileKind::Special("pipe")),
        ("link", FileKind::Special("pipe")),
        ("itself", FileKind::DanglingLink),
    ] {
        assert_eq!(RealFiles.kind(&path(name)).unwrap(), kind, "{name}");
    }
    assert_eq!(RealFiles.kind(std::path::Path::new("/dev/null")).unwrap(), FileKind::Special("device"));
    assert!(RealFiles.read(&path("link")).unwrap_err().to_string().contains("a pipe"));
    assert_eq!(RealFiles.read(std::path::Path::new("/dev/null")).unwrap(), b"");
}

#[test]
fn a_build_context_leaves_out_sockets_pipes_and_links_to_elsewhere_with_a_note() {
    let parent = tempfile::tempdir().unwrap();
    let context = parent.path().join("context");
    std::fs::create_dir(&context).unwrap();
    let path = |name: &str| context.join(name);
    std::fs::write(path("Dockerfile"), "FROM a\nCOPY . /x\n").unwrap();
    std::fs::write(path(".dockerignore"), ".dockerignore\nignored.sock\n").unwrap();
    std::fs::write(path("file"), "x").unwrap();
    std::fs::create_dir(path("only-a-socket")).unwrap();
    let _listeners = ["daemon.sock", "ignored.sock", "only-a-socket/s"]
        .map(|name| std::os::unix::net::UnixListener::bind(path(name)).unwrap());
    assert!(std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
    std::os::unix::fs::symlink("host.1234", path(".#file")).unwrap();
    std::fs::write(parent.path().join("credentials"), "of this machine").unwrap();
    std::os::unix::fs::symlink("../credentials", path("a-secret")).unwrap();
    std::os::unix::fs::symlink(path("file"), path("b-link")).unwrap();
    // the context itself may be named by a link
    std::os::unix::fs::symlink("context", parent.path().join("named")).unwrap();
    let build = Build {
        context: parent.path().join("named"),
        dockerfile: DockerfileSource::Path(path("Dockerfile")),
        args: Variables::default(),
        target: None,
        no_cache: false,
        pull: false,
    };
    let context = BuildContext::read(&build, &RealFiles).unwrap();
    let sent: Vec<_> = context.entries.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(sent, ["b-link", "file", "only-a-socket"]);
    assert_eq!(
        context.left_out,
        [
            ".#file (it leads nowhere)",
            "a-secret (it leads out of the context)",
            "daemon.sock (a socket)",
            "pipe (a pipe)",
            "only-a-socket/s (a socket)"
        ]
    );
}
