//! The lines of a Dockerfile, joined into instructions.

use std::ops::Range;

/// An instruction, with where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// The keyword in capitals. That of `ONBUILD` is `ONBUILD`: it runs in another stage or build.
    pub(crate) keyword: String,
    /// `--flag` and `--flag=value` in front.
    pub(crate) flags: Vec<String>,
    /// The rest, split at blanks outside of quotes, with the quotes kept.
    pub(crate) words: Vec<String>,
    /// The rest as one line.
    pub(crate) rest: String,
    /// The bytes of the text, without the line's end and without here-documents.
    pub(crate) range: Range<usize>,
}

impl Instruction {
    /// The words of the JSON form.
    pub(crate) fn json(&self) -> Option<Vec<String>> {
        if !self.rest.starts_with('[') {
            return None;
        }
        serde_json::from_str(&self.rest).ok()
    }

    /// What `ONBUILD` has others run.
    pub(crate) fn trigger(&self, escape: char) -> Self {
        instruction(&self.rest, self.range.clone(), escape)
    }
}

/// The escape character and the instructions of a text.
pub(crate) fn instructions(text: &str) -> (char, Vec<Instruction>) {
    let escape = escape_directive(text);
    let mut instructions = Vec::new();
    let mut lines = Lines { text, position: 0 };
    while let Some(first) = lines.next() {
        if is_skipped(&text[first.clone()]) {
            continue;
        }
        let start = first.start + indent(&text[first.clone()]);
        let mut end = first.end;
        let mut joined = String::new();
        let mut line = first;
        loop {
            let (content, continues) = strip_continuation(&text[line.clone()], escape);
            joined.push_str(content);
            end = end.max(line.end);
            if !continues {
                break;
            }
            // Comments and blank lines within an instruction do not end it.
            match lines.by_ref().find(|next| !is_skipped(&text[next.clone()])) {
                Some(next) => line = next,
                None => break,
            }
        }
        let instruction = instruction(joined.trim(), start..end, escape);
        let takes_heredocs = |keyword: &str| matches!(keyword, "RUN" | "COPY" | "ADD");
        let runs_later = instruction.keyword == "ONBUILD"
            && instruction.words.first().is_some_and(|word| takes_heredocs(&word.to_ascii_uppercase()));
        if takes_heredocs(&instruction.keyword) || runs_later {
            for heredoc in instruction.words.iter().filter_map(|word| heredoc(word)) {
                lines.skip_heredoc(&heredoc);
            }
        }
        instructions.push(instruction);
    }
    (escape, instructions)
}

struct Lines<'a> {
    text: &'a str,
    position: usize,
}

impl Iterator for Lines<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let start = self.position;
        let rest = self.text.get(start..).filter(|rest| !rest.is_empty())?;
        let end = start + rest.find('\n').unwrap_or(rest.len());
        self.position = end + 1;
        let line = &self.text[start..end];
        Some(start..start + line.strip_suffix('\r').unwrap_or(line).len())
    }
}

impl Lines<'_> {
    /// Moves behind the line that ends a here-document. One without an end takes the rest of the file, as a shell has it.
    fn skip_heredoc(&mut self, heredoc: &Heredoc) {
        while let Some(line) = self.next() {
            let line = &self.text[line];
            let line = if heredoc.strips_tabs { line.trim_start_matches('\t') } else { line };
            if line == heredoc.name {
                return;
            }
        }
    }
}

/// `# escape=` among the directives, which are comments before anything else.
fn escape_directive(text: &str) -> char {
    for line in text.trim_start_matches('\u{feff}').lines() {
        let Some(directive) = line.trim().strip_prefix('#') else { break };
        let Some((name, value)) = directive.split_once('=') else { break };
        match name.trim().to_ascii_lowercase().as_str() {
            "escape" if value.trim() == "`" => return '`',
            "escape" => return '\\',
            "syntax" | "check" => {}
            _ => break,
        }
    }
    '\\'
}

fn is_skipped(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The line without a final escape character, and whether there was one. Two of them are one, not a continuation.
fn strip_continuation(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(content) if !content.ends_with(escape) => (content, true),
        _ => (line, false),
    }
}

fn instruction(line: &str, range: Range<usize>, escape: char) -> Instruction {
    let (keyword, mut rest) = cut_word(line);
    let mut flags = Vec::new();
    while rest.starts_with("--") {
        let (flag, left) = cut_word(rest);
        if flag == "--" {
            break;
        }
        flags.push(flag.to_owned());
        rest = left;
    }
    Instruction {
        keyword: keyword.to_ascii_uppercase(),
        flags,
        words: words(rest, escape),
        rest: rest.to_owned(),
        range,
    }
}

fn cut_word(line: &str) -> (&str, &str) {
    match line.find(char::is_whitespace) {
        Some(end) => (&line[..end], line[end..].trim_start()),
        None => (line, ""),
    }
}

/// Splits at blanks outside of quotes; quotes and escapes stay.
fn words(line: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character.is_whitespace() && quote.is_none() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        word.push(character);
        if character == escape && quote != Some('\'') {
            word.extend(characters.next());
        } else if Some(character) == quote {
            quote = None;
        } else if quote.is_none() && matches!(character, '"' | '\'') {
            quote = Some(character);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

struct Heredoc {
    name: String,
    strips_tabs: bool,
}

/// `<<NAME`, `<<-NAME`, `3<<"NAME"`: a word that begins a here-document.
fn heredoc(word: &str) -> Option<Heredoc> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (strips_tabs, name) = match rest.strip_prefix('-') {
        Some(name) => (true, name),
        None => (false, rest),
    };
    let name = name.trim_matches(['"', '\'']);
    let fits = !name.is_empty() && !name.contains(['<', '"', '\'']);
    fits.then(|| Heredoc { name: name.to_owned(), strips_tabs })
}
