//! Images with a Docker Engine in them: which ones they are, and this machine's own directories in their place.

use std::path::{Path, PathBuf};

use super::{Image, short};
use crate::local::spec::RootFs;

/// Where sandboxes look for programs.
const PROGRAMS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
const NEEDED: [&str; 5] = ["dockerd", "containerd", "runc", "docker", "iptables"];
/// Where `docker` looks for its plugins, but in the homes of users, which sandboxes do not see.
const PLUGINS: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];
/// The directories of this machine that are in sandboxes.
const VISIBLE: [&str; 4] = ["/usr", "/bin", "/sbin", "/opt"];
const INSTALL: &str = "Debian 13: apt-get install docker.io docker-cli docker-compose iptables; Debian 12: apt-get install \
                       docker.io iptables, and the program docker-compose of Debian 13's package in \
                       /usr/libexec/docker/cli-plugins";

/// Whether the name is that of Docker's image with an Engine, of whatever version.
pub(super) fn is_engine(name: &str) -> bool {
    let Some(tag) = short(name).strip_prefix("docker:") else { return false };
    let mut words = tag.split('-');
    words.clone().any(|word| word == "dind") && !words.any(|word| word == "rootless") && !tag.contains('@')
}

/// Whether a root file system has a Docker Engine in it. This machine's is asked for by name only: most sandboxes from
/// it run no containers.
pub(super) fn is_for_containers(root: &RootFs) -> bool {
    let RootFs::Directory(root) = root else { return false };
    // links are not followed, since they would lead out of it
    ["usr/local/bin", "usr/bin", "usr/sbin"]
        .iter()
        .any(|directory| root.join(directory).join("dockerd").symlink_metadata().is_ok())
}

/// This machine's directories as an image with an Engine. Unlike Docker's, it does not start it.
pub(super) fn of_host() -> Image {
    let plain = Image::plain(RootFs::Host);
    Image { user: "root".to_owned(), work_dir: Some(PathBuf::from("/")), nesting: true, ..plain }
}

/// What of this machine's directories lacks to stand in for Docker's image, with how to get it.
///
/// # Errors
///
/// A sentence that names everything that is missing.
pub(super) fn check_host() -> Result<(), String> {
    check(&PROGRAMS, &PLUGINS)
}

fn check(programs: &[&str], plugins: &[&str]) -> Result<(), String> {
    let found = |name: &str| programs.iter().any(|directory| has(directory, name));
    let mut missing: Vec<&str> = NEEDED.into_iter().filter(|name| !found(name)).collect();
    if !plugins.iter().any(|directory| has(directory, "docker-compose")) {
        missing.push("docker compose (version 2, where all users find it)");
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!(
        "this machine's own directories cannot stand in for it, since they lack {} ({INSTALL})",
        missing.join(", ")
    ))
}

/// Whether a directory has a file that a sandbox sees too.
fn has(directory: &str, name: &str) -> bool {
    let found = Path::new(directory).join(name).canonicalize();
    found.is_ok_and(|path| VISIBLE.iter().any(|visible| path.starts_with(visible)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_with_an_engine_are_known_by_name() {
        for name in ["docker:28.3.3-dind", "docker:dind", "docker.io/library/docker:28-dind-alpine3.22"] {
            assert!(is_engine(name), "{name}");
        }
        for name in ["docker:28.3.3", "docker:28-dind-rootless", "docker", "other/docker:dind", "docker:cli"]
        {
            assert!(!is_engine(name), "{name}");
        }
    }

    #[test]
    fn a_root_file_system_with_an_engine_is_for_containers() {
        let directory = tempfile::tempdir().unwrap();
        let root = RootFs::Directory(directory.path().to_owned());
        assert!(!is_for_containers(&root));
        std::fs::create_dir_all(directory.path().join("usr/local/bin")).unwrap();
        std::fs::write(directory.path().join("usr/local/bin/dockerd"), "").unwrap();
        assert!(is_for_containers(&root));
        assert!(Image::plain(root).nesting && !Image::plain(RootFs::Host).nesting);
    }

    #[test]
    fn everything_that_is_missing_is_named_with_how_to_get_it() {
        let error = check(&["/usr/absent"], &["/usr/absent"]).unwrap_err();
        for name in NEEDED.into_iter().chain(["docker compose", "apt-get install docker.io"]) {
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn what_sandboxes_do_not_see_is_missing() {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::write(directory.path().join("docker-compose"), "").unwrap();
        assert!(!has(&directory.path().to_string_lossy(), "docker-compose"));
        assert!(has("/usr/bin", "env"));
    }
}
