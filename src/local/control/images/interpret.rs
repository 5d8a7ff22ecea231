//! Dockerfiles that only say how processes start in an image that is there: they need no builder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::dockerfile::{Instruction, instructions};
use super::{Image, expand};

/// Where programs are looked for if neither image nor Dockerfile says so.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A Dockerfile of `FROM` and settings.
#[derive(Debug)]
pub(super) struct Settings {
    /// The image that they are added to.
    pub(super) base: String,
    escape: char,
    arguments: BTreeMap<String, String>,
    instructions: Vec<Instruction>,
}

/// Reads a Dockerfile that needs no builder.
///
/// # Errors
///
/// The line that needs one.
pub(super) fn read(text: &str) -> Result<Settings, String> {
    let (escape, found) = instructions(text);
    let mut arguments = BTreeMap::new();
    let mut base = None;
    let mut rest = Vec::new();
    for instruction in found {
        match (instruction.keyword.as_str(), &base) {
            ("ARG", None) => {
                argument(&instruction, escape, &mut arguments).ok_or_else(|| needs(&instruction))?;
            }
            ("FROM", None) => {
                base = Some(from(&instruction, escape, &arguments).ok_or_else(|| needs(&instruction))?);
            }
            ("ENV" | "WORKDIR" | "USER" | "ENTRYPOINT" | "CMD" | "LABEL" | "EXPOSE" | "ARG", Some(_))
                if instruction.flags.is_empty() =>
            {
                rest.push(instruction);
            }
            _ => return Err(needs(&instruction)),
        }
    }
    let base = base.ok_or("the Dockerfile has no FROM")?;
    Ok(Settings { base, escape, arguments, instructions: rest })
}

impl Settings {
    /// The image with the settings.
    ///
    /// # Errors
    ///
    /// The line that needs a builder after all.
    pub(super) fn apply(&self, mut image: Image) -> Result<Image, String> {
        let mut arguments = BTreeMap::new();
        for instruction in &self.instructions {
            let mut variables = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
            variables.extend(arguments.clone());
            variables.extend(image.env.clone());
            self.set(instruction, &variables, &mut arguments, &mut image)
                .ok_or_else(|| needs(instruction))?;
        }
        Ok(image)
    }

    fn set(
        &self,
        instruction: &Instruction,
        variables: &BTreeMap<String, String>,
        arguments: &mut BTreeMap<String, String>,
        image: &mut Image,
    ) -> Option<()> {
        let one = || {
            let text = expand::words(&instruction.rest, self.escape, variables)?.join(" ");
            (!text.is_empty()).then_some(text)
        };
        match instruction.keyword.as_str() {
            "ENV" => image.env.extend(environment(&instruction.rest, self.escape, variables)?),
            "WORKDIR" => {
                let before = image.work_dir.clone().unwrap_or_else(|| PathBuf::from("/"));
                image.work_dir = Some(clean(&before.join(one()?)));
            }
            "USER" => image.user = one()?,
            "ENTRYPOINT" => image.entrypoint = instruction.argv(),
            "ARG" => {
                let mut scope = variables.clone();
                argument(instruction, self.escape, &mut scope)?;
                for (name, _) in names(&instruction.rest) {
                    // one without a value takes that from before FROM
                    let value = scope.get(&name).or_else(|| self.arguments.get(&name)).cloned();
                    arguments.extend(value.map(|value| (name, value)));
                }
            }
            // a sandbox runs its toolbox, not its image's command; the others are for people
            _ => {}
        }
        Some(())
    }
}

fn needs(instruction: &Instruction) -> String {
    let Instruction { keyword, rest, line, .. } = instruction;
    let short: String = rest.chars().take(60).collect();
    format!("line {line} of the Dockerfile, `{keyword} {short}`, needs a builder")
}

/// `FROM [--platform=linux/amd64] image [AS name]`.
fn from(instruction: &Instruction, escape: char, arguments: &BTreeMap<String, String>) -> Option<String> {
    instruction.flags.iter().all(|flag| flag == "--platform=linux/amd64").then_some(())?;
    let words = expand::words(&instruction.rest, escape, arguments)?;
    match words.as_slice() {
        [image] => Some(image.clone()),
        [image, word, _] if word.eq_ignore_ascii_case("as") => Some(image.clone()),
        _ => None,
    }
}

/// `ARG name[=value] …`; a value sees those before it.
fn argument(instruction: &Instruction, escape: char, variables: &mut BTreeMap<String, String>) -> Option<()> {
    for (name, value) in names(&instruction.rest) {
        if let Some(value) = value {
            let value = expand::words(&value, escape, variables)?.join(" ");
            variables.insert(name, value);
        }
    }
    Some(())
}

/// The names, each with its value as it is written.
fn names(rest: &str) -> Vec<(String, Option<String>)> {
    // blanks within quotes are a matter for a builder: `expand` refuses the halves
    let pair = |word: &str| match word.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (word.to_owned(), None),
    };
    rest.split_whitespace().map(pair).collect()
}

/// `ENV key=value …`, or the old form `ENV key value`.
fn environment(
    rest: &str,
    escape: char,
    variables: &BTreeMap<String, String>,
) -> Option<BTreeMap<String, String>> {
    let (first, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    if !first.contains('=') {
        let value = expand::words(value, escape, variables)?.join(" ");
        return (!value.is_empty()).then(|| BTreeMap::from([(first.to_owned(), value)]));
    }
    let pairs = expand::words(rest, escape, variables)?;
    let pair = |word: &String| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    pairs.iter().map(pair).collect()
}

/// A path without `.` and `..`.
fn clean(path: &Path) -> PathBuf {
    use std::path::Component;
    path.components().fold(PathBuf::from("/"), |mut clean, component| {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(part) => clean.push(part),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
        clean
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::spec::RootFs;

    fn apply(text: &str) -> Result<Image, String> {
        read(text)?.apply(Image::plain(RootFs::Host))
    }

    #[test]
    fn settings_are_added_to_the_base() {
        let image = apply(
            "ARG V=3.12\nFROM --platform=linux/amd64 python:${V} AS main\nARG V\nARG D=/srv\nENV A=1 B=\"b $A c\"\n\
             ENV PATH=/opt/bin:$PATH OLD=$A\nENV old form $V\nWORKDIR $D\nWORKDIR app/../lib\nUSER 7:8\n\
             ENTRYPOINT [\"a\", \"b\"]\nCMD run\nLABEL x=y\nEXPOSE 80\n",
        )
        .unwrap();
        let env: Vec<_> = image.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        // variables have the values from before their own line, as with Docker
        assert_eq!(env, ["A=1", "B=b  c", "OLD=1", &format!("PATH=/opt/bin:{PATH}"), "old=form 3.12"]);
        assert_eq!(image.work_dir.as_deref(), Some(Path::new("/srv/lib")));
        assert_eq!((image.user.as_str(), image.entrypoint), ("7:8", vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(read("ARG V=1\nFROM a:$V\n").unwrap().base, "a:1");
    }

    #[test]
    fn what_needs_a_builder_is_named_with_its_line() {
        for (text, line) in [
            ("FROM a\nRUN make\n", 2),
            ("FROM a\n\nCOPY x /y\n", 3),
            ("FROM a\nFROM b\n", 2),
            ("FROM --platform=linux/arm64 a\n", 1),
            ("FROM a\nENV A=${B:?x}\n", 2),
            ("FROM a\nHEALTHCHECK CMD x\n", 2),
            ("FROM a\nARG A=\"b c\"\n", 2),
            ("WORKDIR /x\nFROM a\n", 1),
        ] {
            let error = apply(text).unwrap_err();
            assert!(error.starts_with(&format!("line {line} of the Dockerfile")), "{error}");
        }
        assert_eq!(apply("# nothing\n").unwrap_err(), "the Dockerfile has no FROM");
    }
}
