//! Which shell runs scripts, decided anew for every request, as the daemon does.

use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

/// In this order, if `/etc/shells` names it.
const PREFERRED: [&str; 4] = ["/usr/bin/zsh", "/bin/zsh", "/usr/bin/bash", "/bin/bash"];

/// The shell's name: the first preferred one in `/etc/shells`, else the toolbox's `$SHELL`, else `sh`. Whether it is
/// really installed is not looked at.
pub(super) fn name(env: &[(String, String)]) -> String {
    let Ok(shells) = std::fs::read("/etc/shells") else { return "sh".to_owned() };
    let shell = env.iter().rfind(|(name, _)| name == "SHELL").map(|(_, value)| value.as_str());
    choose(&String::from_utf8_lossy(&shells), shell)
}

fn choose(shells: &str, variable: Option<&str>) -> String {
    let listed = |shell: &&str| shells.lines().any(|line| !line.starts_with('#') && line.contains(*shell));
    let chosen = PREFERRED.iter().copied().find(listed).or(variable.filter(|shell| !shell.is_empty()));
    chosen.unwrap_or("sh").to_owned()
}

/// The file of a program: itself if its name has a slash, else the first executable of that name in `PATH`.
pub(super) fn find(program: &str, env: &[(String, String)]) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(program.into());
    }
    let path = env.iter().rfind(|(name, _)| name == "PATH").map_or("", |(_, value)| value.as_str());
    let candidates = path.split(':').filter(|directory| !directory.is_empty());
    candidates
        .map(|directory| Path::new(directory).join(program))
        .find(|candidate| candidate.is_file() && access(candidate, AccessFlags::X_OK).is_ok())
}

/// `text` as one word of any shell.
pub(super) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::{choose, quote};

    #[test]
    fn the_first_preferred_shell_of_the_list_is_chosen() {
        assert_eq!(choose("# shells\n/bin/sh\n/bin/bash\n/usr/bin/bash\n", None), "/usr/bin/bash");
        assert_eq!(choose("/bin/bash\n/bin/zsh\n", None), "/bin/zsh");
    }

    #[test]
    fn without_one_the_variable_decides_and_then_sh() {
        assert_eq!(choose("/bin/sh\n/bin/ash\n", Some("/bin/ash")), "/bin/ash");
        assert_eq!(choose("#/bin/bash\n", None), "sh");
    }

    #[test]
    fn quotes_survive_quoting() {
        assert_eq!(quote("it's"), r"'it'\''s'");
    }
}
