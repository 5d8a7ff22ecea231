//! The lines of a Dockerfile, joined into instructions, as far as it takes to tell whether a builder is needed.

/// An instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    /// In capitals.
    pub(super) keyword: String,
    /// `--flag=value` in front.
    pub(super) flags: Vec<String>,
    /// All the rest as one line.
    pub(super) rest: String,
    /// Where it begins, counted from 1.
    pub(super) line: usize,
}

impl Instruction {
    /// The words of the JSON form.
    pub(super) fn json(&self) -> Option<Vec<String>> {
        serde_json::from_str(&self.rest).ok()
    }

    /// An argv: the JSON form, or a command for the shell.
    pub(super) fn argv(&self) -> Vec<String> {
        self.json().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned(), self.rest.clone()])
    }
}

/// The escape character and the instructions of a text. Here-documents are not looked for: the instructions that have
/// them need a builder anyway.
pub(super) fn instructions(text: &str) -> (char, Vec<Instruction>) {
    let escape = escape(text);
    let mut instructions = Vec::new();
    let mut joined: Option<(usize, String)> = None;
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let trimmed = line.trim();
        // comments and blank lines within an instruction do not end it
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let end = line.trim_end();
        let (start, mut all) = joined.take().unwrap_or((index + 1, String::new()));
        if let Some(begun) = end.strip_suffix(escape) {
            all.push_str(begun);
            joined = Some((start, all));
        } else {
            all.push_str(end);
            instructions.push(instruction(all.trim(), start));
        }
    }
    // a continuation at the end continues nothing
    instructions.extend(joined.map(|(start, all)| instruction(all.trim(), start)));
    (escape, instructions)
}

fn instruction(text: &str, line: usize) -> Instruction {
    let (keyword, mut rest) = cut(text);
    let mut flags = Vec::new();
    while rest.starts_with("--") {
        let (flag, after) = cut(rest);
        flags.push(flag.to_owned());
        rest = after;
    }
    Instruction { keyword: keyword.to_ascii_uppercase(), flags, rest: rest.to_owned(), line }
}

fn cut(text: &str) -> (&str, &str) {
    text.split_once(char::is_whitespace).map_or((text, ""), |(word, rest)| (word, rest.trim_start()))
}

/// `# escape=` among the directives, which are comments before anything else.
fn escape(text: &str) -> char {
    let directives =
        text.trim_start_matches('\u{feff}').lines().map_while(|line| line.trim().strip_prefix('#'));
    let pairs = directives.map_while(|directive| directive.split_once('='));
    let found = pairs.map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    found.filter(|(name, _)| name == "escape").find_map(|(_, value)| value.chars().next()).unwrap_or('\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_and_comments_skipped() {
        let (escape, found) = instructions(
            "# syntax=x\n\nfrom --platform=linux/amd64 a\nENV A=1 \\\n# no\n\n  B=2\ncmd [\"x\"]",
        );
        assert_eq!(escape, '\\');
        let lines: Vec<_> =
            found.iter().map(|one| (one.keyword.as_str(), one.rest.as_str(), one.line)).collect();
        assert_eq!(lines, [("FROM", "a", 3), ("ENV", "A=1   B=2", 4), ("CMD", "[\"x\"]", 8)]);
        assert_eq!(found[0].flags, ["--platform=linux/amd64"]);
        assert_eq!(found[2].json(), Some(vec!["x".to_owned()]));
    }

    #[test]
    fn the_escape_character_can_be_chosen() {
        let (escape, found) = instructions("# escape=`\nFROM a`\n b\\\n");
        assert_eq!((escape, found[0].rest.as_str()), ('`', "a b\\"));
    }
}
