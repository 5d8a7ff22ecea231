//! What an image that is built starts by itself.

use std::collections::BTreeMap;

use super::{Dockerfile, Variables};
use crate::config::dockerfile_lines::Instruction;

impl Dockerfile {
    /// The `ENTRYPOINT` of the last stage, or of the stages that it is built from, as the program and its arguments. Nothing
    /// where there is none, where it was taken away again, or where it is that of an image of a registry. `args` are the
    /// values of build arguments, which may choose the stage.
    pub fn entrypoint(&self, args: &BTreeMap<String, String>) -> Option<Vec<String>> {
        let mut stages: Vec<Stage> = Vec::new();
        let mut variables = Variables::default();
        for instruction in &self.instructions {
            match (instruction.keyword.as_str(), stages.last_mut()) {
                ("FROM", _) => {
                    let base = instruction.words.first().and_then(|word| variables.expand_global(word));
                    let is_base = |stage: &&Stage| {
                        base.as_ref().is_some_and(|base| base.eq_ignore_ascii_case(&stage.name))
                    };
                    let mut stage = stages.iter().rev().find(is_base).cloned().unwrap_or_default();
                    stage.name = match instruction.words.as_slice() {
                        [_, keyword, name] if keyword.eq_ignore_ascii_case("as") => name.clone(),
                        _ => String::new(),
                    };
                    stages.push(stage);
                }
                ("SHELL", Some(stage)) => stage.shell = instruction.json(),
                ("ENTRYPOINT", Some(stage)) => stage.entrypoint = argv(instruction, stage.shell.as_ref()),
                _ => {}
            }
            variables.follow(instruction, args);
        }
        stages.pop().map(|stage| stage.entrypoint).filter(|argv| !argv.is_empty())
    }

    /// The text with this as its last `ENTRYPOINT`. Nothing where it has no other, or where an instruction is open at the
    /// end and would take the line for its own.
    pub fn starting(&self, argv: &[&str]) -> Option<String> {
        if !self.instructions.iter().any(|instruction| instruction.keyword == "ENTRYPOINT") {
            return None;
        }
        self.followed_by(&format!("ENTRYPOINT {}", serde_json::json!(argv)))
    }
}

/// What is known of a stage.
#[derive(Clone, Debug, Default)]
struct Stage {
    name: String,
    entrypoint: Vec<String>,
    shell: Option<Vec<String>>,
}

/// The program and its arguments: those of the JSON form, or the shell with the line.
fn argv(instruction: &Instruction, shell: Option<&Vec<String>>) -> Vec<String> {
    if let Some(words) = instruction.json() {
        return words;
    }
    if instruction.rest.is_empty() {
        return Vec::new();
    }
    let mut argv = shell.cloned().unwrap_or_else(|| ["/bin/sh", "-c"].map(str::to_owned).to_vec());
    argv.push(instruction.rest.clone());
    argv
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entrypoint(text: &str) -> Option<String> {
        Dockerfile::parse(text).entrypoint(&BTreeMap::new()).map(|argv| argv.join("|"))
    }

    #[test]
    fn an_entrypoint_is_that_of_the_last_stage_and_of_those_below_it() {
        assert_eq!(entrypoint("FROM a\nENTRYPOINT [\"x\", \"a b\"]\n").as_deref(), Some("x|a b"));
        assert_eq!(entrypoint("FROM a\nENTRYPOINT x $A\n").as_deref(), Some("/bin/sh|-c|x $A"));
        assert_eq!(
            entrypoint("FROM a\nSHELL [\"bash\", \"-lc\"]\nENTRYPOINT x\n").as_deref(),
            Some("bash|-lc|x")
        );
        assert_eq!(
            entrypoint("FROM a AS b\nENTRYPOINT [\"x\"]\nFROM b AS c\nRUN true\n").as_deref(),
            Some("x")
        );
        assert_eq!(entrypoint("ARG S=b\nFROM a AS b\nENTRYPOINT [\"x\"]\nFROM $S\n").as_deref(), Some("x"));
        assert_eq!(entrypoint("FROM a AS b\nENTRYPOINT [\"x\"]\nFROM c\nCOPY --from=b /x /\n"), None);
        assert_eq!(entrypoint("FROM a\nENTRYPOINT [\"x\"]\nENTRYPOINT []\n"), None);
        assert_eq!(entrypoint("FROM a\nCMD [\"x\"]\n"), None);
    }

    #[test]
    fn a_build_argument_chooses_the_stage() {
        let text = "ARG V=a\nFROM x AS a\nENTRYPOINT [\"/a\"]\nFROM x AS b\nENTRYPOINT [\"/b\"]\nFROM ${V}\n";
        let with = |value: &str| {
            Dockerfile::parse(text).entrypoint(&BTreeMap::from([("V".to_owned(), value.to_owned())]))
        };
        assert_eq!(entrypoint(text).as_deref(), Some("/a"));
        assert_eq!(with("b").unwrap(), ["/b"]);
        assert_eq!(with("python:3.12"), None);
    }

    #[test]
    fn another_entrypoint_is_the_last_line() {
        let idle = ["sleep", "infinity"];
        let starting = |text: &str| Dockerfile::parse(text).starting(&idle);
        assert_eq!(
            starting("FROM a\nENTRYPOINT [\"x\"]").unwrap(),
            "FROM a\nENTRYPOINT [\"x\"]\nENTRYPOINT [\"sleep\",\"infinity\"]\n"
        );
        assert_eq!(starting("FROM a\n"), None);
        assert_eq!(starting("FROM a\nENTRYPOINT [\"x\"]\nRUN true \\\n"), None);
    }
}
