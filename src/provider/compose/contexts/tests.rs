//! What arrives in the machine, held against what Docker makes of the same context.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use super::super::archive;
use super::*;
use crate::config::{DockerfileSource, Variables};

/// 1985, which no program takes for now.
const LONG_AGO: u64 = 500_000_000;

/// A context with links of every kind beside a file that is none of its own.
fn context() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let at = |path: &str| directory.path().join("context").join(path);
    for path in ["app/bin", "app/node_modules/.bin", "app/node_modules/tool", "libs/one/deep", "empty"] {
        fs::create_dir_all(at(path)).unwrap();
    }
    std::fs::write(directory.path().join("secret"), "of the host").unwrap();
    for (path, mode) in [
        ("Dockerfile", 0o644),
        ("app/key", 0o400),
        ("app/bin/run", 0o755),
        ("app/bin/setuid", 0o4755),
        ("app/node_modules/tool/cli.js", 0o755),
        ("libs/one/file", 0o640),
        ("libs/one/deep/file", 0o644),
        ("libs/ignored", 0o644),
        ("unused", 0o644),
    ] {
        fs::write(at(path), path).unwrap();
        fs::set_permissions(at(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::write(at(".dockerignore"), "libs/ignored\n").unwrap();
    for (target, path) in [
        ("../tool/cli.js", "app/node_modules/.bin/tool"),
        ("../secret", "out"),
        ("../../../secret", "app/out"),
        ("nowhere", "app/dangling"),
        ("../libs/one", "app/directory"),
        ("libs/one", "linked"),
        ("/libs/one/file", "absolute"),
        ("linked/deep", "twice"),
        ("app/key", "file"),
        ("libs/ignored", "to-ignored"),
        ("loop", "loop"),
    ] {
        symlink(target, at(path)).unwrap();
    }
    fs::set_permissions(at("libs/one"), fs::Permissions::from_mode(0o750)).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(LONG_AGO);
    for path in ["app/key", "app/bin/run", "libs/one/deep", "empty"] {
        fs::File::open(at(path)).unwrap().set_modified(old).unwrap();
    }
    directory
}

fn build(context: &Path, dockerfile: &str) -> Build {
    Build {
        context: context.to_owned(),
        dockerfile: DockerfileSource::Inline(dockerfile.to_owned()),
        args: Variables::default(),
        target: None,
        no_cache: false,
        pull: false,
    }
}

/// Kind, permissions, owner, time, and content or target of each entry of an archive, by path.
type Listing = BTreeMap<String, (tar::EntryType, u32, (u64, u64), u64, String)>;

fn listing(archive: &[u8]) -> Listing {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        if let Some(target) = entry.link_name().unwrap() {
            content = target.display().to_string();
        }
        let header = entry.header();
        let owner = (header.uid().unwrap(), header.gid().unwrap());
        let path = entry.path().unwrap().display().to_string().trim_end_matches('/').to_owned();
        let time = header.mtime().unwrap();
        (path, (header.entry_type(), header.mode().unwrap() & 0o7777, owner, time, content))
    });
    entries.collect()
}

/// What is sent, as an archive.
fn sent(context: &Path, dockerfile: &str) -> bytes::Bytes {
    let items = collect(&build(context, dockerfile), "c", &mut Vec::new()).unwrap();
    archive::bytes(&items).unwrap()
}

#[test]
fn permissions_times_and_links_are_what_they_are_and_no_file_outside_is_sent() {
    let directory = context();
    let sent = listing(&sent(&directory.path().join("context"), "FROM scratch\nCOPY . /\n"));
    let of = |path: &str| &sent[&format!("c/{path}")];
    assert_eq!((of("app/key").1, of("app/key").3), (0o400, LONG_AGO));
    assert_eq!((of("libs/one").1, of("libs/one/deep").3), (0o750, LONG_AGO));
    assert_eq!(of("app/node_modules/.bin/tool").4, "../tool/cli.js");
    assert_eq!(of("Dockerfile").4, "Dockerfile");
    assert_eq!((of("out").0, of("out").4.as_str()), (tar::EntryType::Symlink, "../secret"));
    assert_eq!(of("app/dangling").0, tar::EntryType::Symlink);
    assert_eq!(of("app/directory").0, tar::EntryType::Symlink);
    assert!(!sent.contains_key("c/libs/ignored"));
    assert!(sent.values().all(|entry| entry.2 == (0, 0) && !entry.4.contains("of the host")));
}

#[test]
fn only_what_is_copied_is_sent_and_where_its_links_lead() {
    let directory = context();
    let paths = |dockerfile: &str| {
        let sent = listing(&sent(&directory.path().join("context"), dockerfile));
        let files = sent.into_iter().filter(|(_, entry)| entry.0 != tar::EntryType::Directory);
        files.map(|(path, _)| path.trim_start_matches("c/").to_owned()).collect::<Vec<_>>()
    };
    for (source, expected) in [
        ("file", &["app/key", "file"][..]),
        ("out", &["out"]),
        ("twice/file", &["libs/one/deep/file", "linked", "twice"]),
        ("twi*/f?le", &["libs/one/deep/file", "linked", "twice"]),
        ("linked", &["libs/one/deep/file", "libs/one/file", "linked"]),
        ("absolute", &["absolute", "libs/one/file"]),
        ("to-ignored", &["to-ignored"]),
        ("loop", &["loop"]),
        ("app/directory/file", &["app/directory", "libs/one/file"]),
        ("app/node_modules", &["app/node_modules/.bin/tool", "app/node_modules/tool/cli.js"]),
        ("Dockerfile", &["Dockerfile"]),
    ] {
        assert_eq!(paths(&format!("FROM scratch\nCOPY {source} /\n")), expected, "{source}");
    }
}

#[test]
fn arguments_of_several_lines_stay_outside_of_the_dockerfile() {
    let directory = context();
    let mut build = build(
        &directory.path().join("context"),
        "FROM scratch AS a\nARG NAME\nARG TEXT\nCOPY $NAME /\nFROM a\nCOPY app /\n",
    );
    let args = [("NAME", "unused"), ("TEXT", "first\nsecond")];
    build.args = Variables(args.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    build.target = Some("a".to_owned());
    let items = collect(&build, "c", &mut Vec::new()).unwrap();
    let paths: Vec<_> = items.iter().map(|item| item.path.as_str()).collect();
    assert_eq!(paths, ["c/unused", "c"]);
    build.target = Some("none".to_owned());
    assert!(collect(&build, "c", &mut Vec::new()).unwrap_err().message().contains("no stage `none`"));
}

/// What an image of this context holds, or that it cannot be built.
fn built(context: &Path, dockerfile: &Path) -> Option<Listing> {
    let output = Command::new("docker")
        .args(["buildx", "build", "--quiet", "--output", "type=tar,dest=-", "--file"])
        .args([dockerfile, context])
        .env("BUILDX_NO_DEFAULT_ATTESTATIONS", "1")
        .stderr(Stdio::null())
        .output()
        .unwrap();
    output.status.success().then(|| listing(&output.stdout))
}

#[test]
fn the_machine_builds_what_docker_builds_here() {
    let answers = |arguments: &[&str]| {
        let run = Command::new("docker").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        run.is_ok_and(|status| status.success())
    };
    if !(answers(&["version"]) && answers(&["buildx", "version"])) {
        let expected = std::env::var("INSPECT_DAYTONA_TESTS_EXPECT").is_ok_and(|value| value == "docker");
        assert!(!expected, "no Docker Engine with buildx answers");
        let _ = writeln!(
            std::io::stderr(),
            "skipped, since no Docker Engine with buildx answers: apt-get install docker.io docker-buildx"
        );
        return;
    }
    let directory = context();
    let here = directory.path().join("context");
    let mut refused = Vec::new();
    for source in [
        ".",
        "app",
        "app/bin libs",
        "file",
        "linked",
        "linked/file",
        "twice/file",
        "twi*/f?le",
        "li*",
        "absolute",
        "app/directory",
        "app/directory/file",
        "empty",
        "Dockerfile",
        "out",
        "app/out",
        "app/dangling",
        "to-ignored",
        "loop",
        "/app/key",
        "../app/key",
    ] {
        let text = format!("FROM scratch\nCOPY {source} /to/\n");
        // what Docker is given: the ignore file is the context's here, and says nothing there
        let theirs = directory.path().join("theirs");
        fs::write(&theirs, &text).unwrap();
        let machine = tempfile::tempdir().unwrap();
        let at = |path: &str| machine.path().join(path);
        fs::write(at("Dockerfile"), &text).unwrap();
        fs::write(at("Dockerfile.dockerignore"), "# nothing\n").unwrap();
        fs::write(at("files.tar"), sent(&here, &text)).unwrap();
        let unpack = "umask 0 && tar -xf files.tar";
        assert!(
            Command::new("sh").args(["-c", unpack]).current_dir(machine.path()).status().unwrap().success()
        );
        let (theirs, ours) = (built(&here, &theirs), built(&at("c"), &at("Dockerfile")));
        // that directory is made by the build
        let [theirs, ours] = [theirs, ours].map(|found| {
            found.map(|mut found| {
                found.remove("to");
                found
            })
        });
        if theirs.is_none() {
            refused.push(source);
        }
        assert_eq!(ours, theirs, "{source}");
    }
    assert_eq!(refused, ["out", "app/out", "app/dangling", "to-ignored", "loop"]);
}
