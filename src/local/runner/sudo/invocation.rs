//! The command line of `sudo`.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// What is asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Invocation {
    /// What to do.
    pub(super) action: Action,
    /// `-u`: a name, or `#` and a number.
    pub(super) user: Option<String>,
    /// `-g`.
    pub(super) group: Option<String>,
    /// `-i` or `-s`.
    pub(super) shell: Option<Shell>,
    /// `-E`.
    pub(super) preserve_all: bool,
    /// `--preserve-env=list`.
    pub(super) preserve: Vec<String>,
    /// `-H`.
    pub(super) set_home: bool,
    /// `-b`.
    pub(super) background: bool,
    /// `-D`.
    pub(super) directory: Option<PathBuf>,
    /// `VAR=value` before the command.
    pub(super) variables: Vec<(String, OsString)>,
    /// The command and its arguments.
    pub(super) command: Vec<OsString>,
}

/// What to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Action {
    /// Run the command.
    #[default]
    Run,
    /// `-l`.
    List,
    /// `-v`, `-k` or `-K` without a command: about passwords, of which there are none.
    Nothing,
    /// `-V`.
    Version,
    /// `-h`.
    Help,
}

/// Which shell runs the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shell {
    /// `-i`: the target's, as for a login.
    Login,
    /// `-s`: the caller's.
    Plain,
}

impl Invocation {
    /// Reads the arguments after the program's name.
    pub(super) fn parse(arguments: Vec<OsString>) -> Result<Self, String> {
        let mut invocation = Self::default();
        let mut rest = VecDeque::from(arguments);
        while let Some(argument) = rest.pop_front() {
            let bytes = argument.as_bytes();
            if bytes == b"--" {
                break;
            } else if let Some(long) = bytes.strip_prefix(b"--") {
                invocation.long(&String::from_utf8_lossy(long), &mut rest)?;
            } else if bytes.len() > 1 && bytes[0] == b'-' {
                invocation.short(&bytes[1..], &mut rest)?;
            } else {
                rest.push_front(argument);
                break;
            }
        }
        while let Some((name, value)) = rest.front().and_then(|argument| assignment(argument)) {
            invocation.variables.push((name, value));
            rest.pop_front();
        }
        invocation.command = rest.into();
        if invocation.action == Action::Nothing && !invocation.command.is_empty() {
            invocation.action = Action::Run;
        }
        Ok(invocation)
    }

    /// A group of one-letter options; the last one's value may follow within the word.
    fn short(&mut self, letters: &[u8], rest: &mut VecDeque<OsString>) -> Result<(), String> {
        for (position, &letter) in letters.iter().enumerate() {
            let letter = char::from(letter);
            if "ugDpC".contains(letter) {
                let inline = &letters[position + 1..];
                let value = if inline.is_empty() {
                    rest.pop_front().ok_or_else(|| format!("option requires an argument -- '{letter}'"))?
                } else {
                    OsString::from_vec(inline.to_vec())
                };
                self.value(letter, value);
                return Ok(());
            }
            self.flag(letter).ok_or_else(|| format!("option -{letter} is not supported"))?;
        }
        Ok(())
    }

    fn long(&mut self, option: &str, rest: &mut VecDeque<OsString>) -> Result<(), String> {
        let (name, inline) =
            option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        if name == "preserve-env" {
            match inline {
                None => self.preserve_all = true,
                Some(list) => self.preserve.extend(list.split(',').map(str::to_owned)),
            }
            return Ok(());
        }
        let letter = match name {
            "user" => 'u',
            "group" => 'g',
            "chdir" => 'D',
            "prompt" => 'p',
            "close-from" => 'C',
            "login" => 'i',
            "shell" => 's',
            "set-home" => 'H',
            "background" => 'b',
            "non-interactive" => 'n',
            "stdin" => 'S',
            "askpass" => 'A',
            "bell" => 'B',
            "validate" => 'v',
            "reset-timestamp" => 'k',
            "remove-timestamp" => 'K',
            "no-update" => 'N',
            "list" => 'l',
            "version" => 'V',
            "help" => 'h',
            _ => return Err(format!("option --{name} is not supported")),
        };
        if "ugDpC".contains(letter) {
            let value = inline.map(OsString::from).or_else(|| rest.pop_front());
            self.value(letter, value.ok_or_else(|| format!("option '--{name}' requires an argument"))?);
        } else {
            self.flag(letter).ok_or_else(|| format!("option --{name} is not supported"))?;
        }
        Ok(())
    }

    fn value(&mut self, letter: char, value: OsString) {
        let text = || value.to_string_lossy().into_owned();
        match letter {
            'u' => self.user = Some(text()),
            'g' => self.group = Some(text()),
            'D' => self.directory = Some(value.into()),
            // there is no prompt, and descriptors are closed in any case
            _ => {}
        }
    }

    fn flag(&mut self, letter: char) -> Option<()> {
        match letter {
            'i' => self.shell = Some(Shell::Login),
            's' => self.shell = Some(Shell::Plain),
            'E' => self.preserve_all = true,
            'H' => self.set_home = true,
            'b' => self.background = true,
            'l' => self.action = Action::List,
            'V' => self.action = Action::Version,
            'h' => self.action = Action::Help,
            'v' | 'k' | 'K' => self.action = Action::Nothing,
            // about passwords, of which there are none
            'n' | 'S' | 'A' | 'B' | 'N' => {}
            _ => return None,
        }
        Some(())
    }
}

/// `NAME=value`.
fn assignment(argument: &OsStr) -> Option<(String, OsString)> {
    let bytes = argument.as_bytes();
    let at = bytes.iter().position(|&byte| byte == b'=')?;
    let name = std::str::from_utf8(&bytes[..at]).ok()?;
    let first = name.bytes().next()?;
    let is_name = (first.is_ascii_alphabetic() || first == b'_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then(|| (name.to_owned(), OsString::from_vec(bytes[at + 1..].to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Invocation {
        Invocation::parse(line.split_whitespace().map(OsString::from).collect()).unwrap()
    }

    #[test]
    fn options_end_where_the_command_begins() {
        let invocation = parse("-nu daytona -H -- ls -u x");
        assert_eq!(invocation.user.as_deref(), Some("daytona"));
        assert!(invocation.set_home);
        assert_eq!(invocation.command, ["ls", "-u", "x"]);
        assert_eq!(parse("ls -n").command, ["ls", "-n"]);
    }

    #[test]
    fn values_may_be_part_of_the_word() {
        assert_eq!(parse("-u#1000 id").user.as_deref(), Some("#1000"));
        assert_eq!(parse("--user=www-data id").user.as_deref(), Some("www-data"));
        assert_eq!(parse("--user www-data id").command, ["id"]);
    }

    #[test]
    fn variables_come_before_the_command() {
        let invocation = parse("-E A=1 B_2= env C=3");
        assert!(invocation.preserve_all);
        assert_eq!(invocation.variables, [("A".into(), "1".into()), ("B_2".into(), "".into())]);
        assert_eq!(invocation.command, ["env", "C=3"]);
        assert_eq!(parse("--preserve-env=X,Y env").preserve, ["X", "Y"]);
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        assert!(Invocation::parse(vec!["-e".into(), "file".into()]).is_err());
        assert!(Invocation::parse(vec!["--chroot=/x".into()]).is_err());
        assert!(Invocation::parse(vec!["-u".into()]).is_err());
    }

    #[test]
    fn forgetting_a_password_is_nothing_to_do() {
        assert_eq!(parse("-k").action, Action::Nothing);
        assert_eq!(parse("-k id").action, Action::Run);
        assert_eq!(parse("-l").action, Action::List);
    }
}
