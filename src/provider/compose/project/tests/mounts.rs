//! What is mounted from this machine, and what of it is one thing.

use super::*;

/// The paths that services and volumes mount, by where they were written.
fn mounted(project: &Project, pointer: &str) -> String {
    let written = project.model.pointer(pointer).unwrap().as_str().unwrap();
    written.trim_start_matches("/var/lib/inspect-project/").to_owned()
}

#[test]
fn a_source_below_another_is_a_path_in_its_copy_whatever_the_order() {
    let directory = tempfile::tempdir().unwrap();
    let at = |path: &str| directory.path().join(path);
    std::fs::create_dir_all(at("shared/logs/deep")).unwrap();
    std::fs::write(at("shared/app.conf"), "conf").unwrap();
    std::fs::write(at("shared/key"), "key").unwrap();
    std::fs::create_dir(at("sharedother")).unwrap();
    std::os::unix::fs::symlink("shared/logs", at("link")).unwrap();
    let services = [
        "  app:\n    image: 'a:1'\n    volumes: ['./shared:/shared', './sharedother:/o']\n    secrets: [key]\n",
        "  logs:\n    image: 'a:1'\n    volumes:\n      - './shared/logs:/logs:ro'\n      - {type: bind, source: ./link, target: /l}\n",
        "  conf:\n    image: 'a:1'\n    volumes: ['./shared/app.conf:/c', './shared/new/$$er:/n', 'v:/v']\n",
    ];
    let rest = "volumes: {v: {driver_opts: {type: none, o: bind, device: ./shared/logs/deep}}}\n\
                secrets: {key: {file: ./shared/key}}\n";
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let services = order.map(|index| services[index]).concat();
        let project = read(directory.path(), &format!("services:\n{services}{rest}")).unwrap();
        let app = mounted(&project, "/services/app/volumes/0");
        let copy = app.strip_suffix(":/shared").unwrap();
        assert!(copy.starts_with("bind-") && !copy.contains('/'), "{copy}");
        for (pointer, expected) in [
            ("/services/logs/volumes/0", format!("{copy}/logs:/logs:ro")),
            ("/services/logs/volumes/1/source", format!("{copy}/logs")),
            ("/services/conf/volumes/0", format!("{copy}/app.conf:/c")),
            ("/services/conf/volumes/1", format!("{copy}/new/$$er:/n")),
            ("/volumes/v/driver_opts/device", format!("{copy}/logs/deep")),
            ("/secrets/key/file", format!("{copy}/key")),
        ] {
            assert_eq!(mounted(&project, pointer), expected, "{pointer}");
        }
        let other = mounted(&project, "/services/app/volumes/1");
        let other = other.strip_suffix(":/o").unwrap();
        assert!(other.starts_with("bind-") && other != copy && !other.contains('/'), "{other}");
        let below = ["", "/app.conf", "/key", "/logs", "/logs/deep", "/new", "/new/$er"];
        let mut expected: Vec<_> = below.iter().map(|path| format!("{copy}{path}")).collect();
        expected.push(other.to_owned());
        expected.sort_unstable();
        assert_eq!(names(&project), expected);
        assert_eq!(project.notes.len(), 1, "{:?}", project.notes);
        assert!(project.notes[0].contains("new/$er does not exist"), "{:?}", project.notes);
    }
}

#[test]
fn a_source_that_a_directorys_link_leads_to_is_a_copy_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let at = |path: &str| directory.path().join(path);
    for path in ["data", "elsewhere"] {
        std::fs::create_dir(at(path)).unwrap();
    }
    std::os::unix::fs::symlink("../elsewhere", at("data/link")).unwrap();
    std::os::unix::fs::symlink("nowhere", at("data/dangling")).unwrap();
    let project = read(
        directory.path(),
        "services:\n  a: {image: 'a:1', volumes: ['./data:/d', './data/link:/e']}\n  \
         b: {image: 'a:1', volumes: ['./gone/below:/b', './gone:/g']}\n",
    )
    .unwrap();
    assert_eq!(mounted(&project, "/services/a/volumes/1"), "bind-1:/e");
    assert_eq!(mounted(&project, "/services/b/volumes/0"), "bind-3/below:/b");
    assert_eq!(
        names(&project),
        ["bind-0", "bind-0/dangling", "bind-0/link", "bind-1", "bind-3", "bind-3/below"]
    );
    std::fs::write(at("file"), "f").unwrap();
    let refused = "services: {a: {image: 'a:1', volumes: ['./file/x:/d']}, b: {image: 'b:1'}}\n";
    let error = read(directory.path(), refused).unwrap_err();
    assert!(error.message().contains("file/x"), "{error}");
}

#[test]
fn what_the_platform_mounts_stays_the_sandboxs_own() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("file"), "of this machine").unwrap();
    let data = data.display();
    let project = read(
        directory.path(),
        &format!(
            "services:\n  a: {{image: 'a:1', volumes: ['{data}:/d', 'v:/v']}}\n  \
             b: {{image: 'b:1', volumes: [{{type: bind, source: {data}/part, target: /p}}, './data:/own']}}\n\
             volumes: {{v: {{driver_opts: {{type: none, o: bind, device: {data}/part}}}}}}\n\
             x-daytona: {{volumes: ['data:{data}']}}\n"
        ),
    )
    .unwrap();
    assert_eq!(mounted(&project, "/services/a/volumes/0"), format!("{data}:/d"));
    assert_eq!(mounted(&project, "/services/b/volumes/0/source"), format!("{data}/part"));
    assert_eq!(mounted(&project, "/volumes/v/driver_opts/device"), format!("{data}/part"));
    assert_eq!(
        mounted(&project, "/services/b/volumes/1"),
        "bind-0:/own",
        "a relative path is this machine's"
    );
    assert_eq!(names(&project), ["bind-0", "bind-0/file"]);
}

#[test]
fn seccomp_profiles_are_sent_along() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("$p.json"), "{}").unwrap();
    let project = read(
        directory.path(),
        "services:\n  a: {image: 'a:1', security_opt: ['seccomp:./$$p.json', 'no-new-privileges:true']}\n  \
         b: {image: 'b:1', security_opt: ['seccomp=$$p.json', 'seccomp=unconfined']}\n",
    )
    .unwrap();
    let sent = "seccomp=/var/lib/inspect-project/seccomp-0";
    let options = |service: &str| project.model["services"][service]["security_opt"].clone();
    assert_eq!(options("a"), json!([sent, "no-new-privileges:true"]));
    assert_eq!(options("b"), json!([sent, "seccomp=unconfined"]));
    assert_eq!(names(&project), ["seccomp-0"]);
}
