//! Dockerfiles: their instructions, what they read from the context, and build arguments and targets written into them.
//!
//! The platform builds a text and a context, and has no fields for arguments and targets, so
//! [`Dockerfile::specialize`] writes both into the text.

mod entrypoint;

use std::collections::{BTreeMap, BTreeSet};

use super::dockerfile_lines::{Instruction, instructions};
use super::interpolate::Template;
use super::pattern::Pattern;
use super::problem::Place;
use crate::error::{Error, ErrorKind, Result};

/// A parsed Dockerfile.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    text: String,
    escape: char,
    instructions: Vec<Instruction>,
}

/// What a Dockerfile reads from its context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContextUse {
    /// Nothing: the context need not be sent.
    Nothing,
    /// These paths and glob patterns, relative to the context.
    Some(BTreeSet<String>),
    /// It cannot be told, or is everything.
    All,
}

impl Dockerfile {
    /// Parses a Dockerfile. Anything parses; what is no instruction is left to the builder to refuse.
    pub fn parse(text: impl Into<String>) -> Self {
        let text = text.into();
        let (escape, instructions) = instructions(&text);
        Self { text, escape, instructions }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What `COPY`, `ADD` and `RUN --mount` read from the context, also by `ONBUILD` of a stage that another one is built
    /// from. Variables are known from `ARG`, `ENV` and `args`. What an image of a registry has in `ONBUILD` is not known.
    pub fn context_use(&self, args: &BTreeMap<String, String>) -> ContextUse {
        let mut paths = BTreeSet::new();
        let mut variables = Variables::default();
        let triggered = self.with_triggers(args);
        for instruction in &triggered {
            variables.follow(instruction, args);
            let sources = match instruction.keyword.as_str() {
                "COPY" | "ADD" => copied(instruction),
                "RUN" => mounted(instruction),
                _ => continue,
            };
            for source in sources {
                let Some(source) = variables.expand(&source) else { return ContextUse::All };
                if is_remote(&source) {
                    continue;
                }
                match within_context(&source).as_str() {
                    "" => return ContextUse::All,
                    path => paths.insert(path.to_owned()),
                };
            }
        }
        if paths.is_empty() { ContextUse::Nothing } else { ContextUse::Some(paths) }
    }

    /// Whether anything may read this file of the context, directly or as a part of something: also what cannot be told.
    pub fn may_read(&self, path: &str) -> bool {
        match self.context_use(&BTreeMap::new()) {
            ContextUse::Nothing => false,
            ContextUse::All => true,
            ContextUse::Some(sources) => sources
                .iter()
                .any(|source| Pattern::parse(source).is_none_or(|pattern| pattern.matches_within(path))),
        }
    }

    /// The instructions, with those of `ONBUILD` behind each `FROM` that runs them, and without those that nothing runs.
    fn with_triggers(&self, args: &BTreeMap<String, String>) -> Vec<Instruction> {
        let mut all = Vec::new();
        let mut stages: Vec<(String, Vec<Instruction>)> = Vec::new();
        let mut variables = Variables::default();
        for instruction in &self.instructions {
            match instruction.keyword.as_str() {
                "ONBUILD" => {
                    if let Some((_, triggers)) = stages.last_mut() {
                        triggers.push(instruction.trigger(self.escape));
                    }
                }
                "FROM" => {
                    all.push(instruction.clone());
                    let base = instruction.words.first().and_then(|word| variables.expand_global(word));
                    let is_base =
                        |name: &str| base.as_ref().is_none_or(|base| base.eq_ignore_ascii_case(name));
                    let run = stages.iter().filter(|(name, _)| !name.is_empty() && is_base(name));
                    // where the base cannot be told it may be any of them
                    all.extend(run.flat_map(|(_, triggers)| triggers.iter().cloned()));
                    let name = match instruction.words.as_slice() {
                        [_, keyword, name] if keyword.eq_ignore_ascii_case("as") => name.clone(),
                        _ => String::new(),
                    };
                    stages.push((name, Vec::new()));
                }
                _ => all.push(instruction.clone()),
            }
            variables.follow(instruction, args);
        }
        all
    }

    /// The text with one file more, copied last. `None` where nothing else needs a builder, or an instruction is open at
    /// the end and would take the line for its own.
    pub fn copying(&self, source: &str, destination: &str) -> Option<String> {
        let keywords = self.instructions.iter().map(|instruction| instruction.keyword.as_str());
        if !keywords.clone().any(|keyword| matches!(keyword, "RUN" | "COPY" | "ADD")) {
            return None;
        }
        self.followed_by(&format!("COPY {source} {destination}"))
    }

    /// The text with one line more. `None` where an instruction is open at the end and would take the line for its own.
    fn followed_by(&self, line: &str) -> Option<String> {
        let separator = if self.text.ends_with('\n') { "" } else { "\n" };
        let longer = Self::parse(format!("{}{separator}{line}\n", self.text));
        let last = longer.instructions.last()?;
        let is_whole = longer.instructions.len() == self.instructions.len() + 1;
        (is_whole && longer.text[last.range.clone()] == *line).then_some(longer.text)
    }

    /// The text with the values of build arguments written into `ARG`, and without the stages after `target`.
    ///
    /// # Errors
    /// `InvalidConfig` where there is no such stage, or a value cannot be written into a Dockerfile.
    pub fn specialize(&self, args: &BTreeMap<String, String>, target: Option<&str>) -> Result<String> {
        let end = match target {
            Some(target) => self.end_of_stage(target)?,
            None => self.text.len(),
        };
        let mut out = String::new();
        let mut written = 0;
        for instruction in self.instructions.iter().filter(|instruction| instruction.range.start < end) {
            if instruction.keyword != "ARG" {
                continue;
            }
            let mut changed = false;
            let mut words = Vec::new();
            for word in &instruction.words {
                let name = word.split('=').next().unwrap_or_default();
                match args.get(name) {
                    Some(value) => {
                        changed = true;
                        words.push(format!("{name}={}", self.quote(name, value)?));
                    }
                    None => words.push(word.clone()),
                }
            }
            if changed {
                out.push_str(&self.text[written..instruction.range.start]);
                out.push_str("ARG ");
                out.push_str(&words.join(" "));
                written = instruction.range.end;
            }
        }
        out.push_str(&self.text[written..end]);
        Ok(out)
    }

    /// The build arguments that no `ARG` takes, so that they have no effect.
    pub fn unused<'a>(&self, args: &'a BTreeMap<String, String>) -> Vec<&'a str> {
        let taken = |name: &str| {
            let takes = |word: &String| word.split('=').next() == Some(name);
            self.instructions.iter().any(|i| i.keyword == "ARG" && i.words.iter().any(takes))
        };
        args.keys().map(String::as_str).filter(|name| !taken(name)).collect()
    }

    /// This file without the stages after `target`.
    ///
    /// # Errors
    /// `InvalidConfig` where there is no such stage.
    pub fn until(self, target: Option<&str>) -> Result<Self> {
        match target {
            Some(target) => Ok(Self::parse(&self.text[..self.end_of_stage(target)?])),
            None => Ok(self),
        }
    }

    /// Where the stage ends: a stage's name, or its number from 0.
    fn end_of_stage(&self, target: &str) -> Result<usize> {
        let stages: Vec<&Instruction> = self.instructions.iter().filter(|i| i.keyword == "FROM").collect();
        let is_target = |stage: &&Instruction| match stage.words.as_slice() {
            [.., keyword, name] => keyword.eq_ignore_ascii_case("as") && name.eq_ignore_ascii_case(target),
            _ => false,
        };
        let position = stages.iter().position(is_target);
        let number = target.parse::<usize>().ok().filter(|number| *number < stages.len());
        let Some(index) = position.or(number) else {
            let message = format!("the Dockerfile has no stage `{target}`");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        };
        Ok(stages.get(index + 1).map_or(self.text.len(), |next| next.range.start))
    }

    fn quote(&self, name: &str, value: &str) -> Result<String> {
        if value.contains(['\n', '\r', '\0']) {
            let message = format!("the build argument `{name}` spans lines, which a Dockerfile cannot hold");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        let mut quoted = String::from("\"");
        for character in value.chars() {
            if matches!(character, '"' | '$') || character == self.escape {
                quoted.push(self.escape);
            }
            quoted.push(character);
        }
        quoted.push('"');
        Ok(quoted)
    }
}

/// Sources of `COPY` and `ADD`: all words but flags and the last; none with `--from`, and no here-documents.
fn copied(instruction: &Instruction) -> Vec<String> {
    if instruction.flags.iter().any(|flag| flag.starts_with("--from=")) {
        return Vec::new();
    }
    let sources = |words: &[String]| words[..words.len().saturating_sub(1)].to_vec();
    if let Some(words) = instruction.json() {
        return sources(&words);
    }
    let sources = sources(&instruction.words);
    sources.iter().filter(|word| !word.starts_with("<<")).map(|word| word.replace(['"', '\''], "")).collect()
}

/// Sources of bind mounts from the context. `bind` is the default type, and the whole context the default source.
fn mounted(instruction: &Instruction) -> Vec<String> {
    let mut sources = Vec::new();
    for mount in instruction.flags.iter().filter_map(|flag| flag.strip_prefix("--mount=")) {
        let options: BTreeMap<&str, &str> =
            mount.split(',').filter_map(|option| option.split_once('=')).collect();
        let binds = options.get("type").is_none_or(|kind| *kind == "bind");
        if binds && !options.contains_key("from") {
            let source = options.get("source").or_else(|| options.get("src"));
            sources.push(source.copied().unwrap_or(".").to_owned());
        }
    }
    sources
}

fn is_remote(source: &str) -> bool {
    ["http://", "https://", "ftp://", "git://", "ssh://", "git@"]
        .iter()
        .any(|scheme| source.starts_with(scheme))
}

/// The path relative to the context. The builder takes an absolute one from the context's root and cannot climb above.
fn within_context(source: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in source.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    parts.join("/")
}

/// The variables in scope: `ARG` before the first `FROM` reaches a stage only where it is declared again.
#[derive(Debug, Default)]
struct Variables {
    global: BTreeMap<String, String>,
    stage: BTreeMap<String, String>,
    in_stage: bool,
}

impl Variables {
    fn follow(&mut self, instruction: &Instruction, args: &BTreeMap<String, String>) {
        match instruction.keyword.as_str() {
            "FROM" => {
                self.in_stage = true;
                self.stage.clear();
            }
            "ARG" => {
                for word in &instruction.words {
                    let (name, default) = match word.split_once('=') {
                        Some((name, default)) => (name, Some(default.replace(['"', '\''], ""))),
                        None => (word.as_str(), None),
                    };
                    let default = default.and_then(|default| self.expand(&default));
                    let value =
                        args.get(name).cloned().or(default).or_else(|| self.global.get(name).cloned());
                    let scope = if self.in_stage { &mut self.stage } else { &mut self.global };
                    if let Some(value) = value {
                        scope.insert(name.to_owned(), value);
                    }
                }
            }
            "ENV" => {
                for word in &instruction.words {
                    if let Some((name, value)) = word.split_once('=') {
                        match self.expand(&value.replace(['"', '\''], "")) {
                            Some(value) => self.stage.insert(name.to_owned(), value),
                            None => self.stage.remove(name),
                        };
                    } else if let [name, value] = instruction.words.as_slice() {
                        self.stage.insert(name.clone(), value.clone());
                        break;
                    }
                }
            }
            _ => {}
        }
    }

    /// The text with variables put in; nothing where one is not known.
    fn expand(&self, text: &str) -> Option<String> {
        Self::expand_from(&self.stage, text)
    }

    /// The same for the image of a `FROM`, which sees what is declared before the first one.
    fn expand_global(&self, text: &str) -> Option<String> {
        Self::expand_from(&self.global, text)
    }

    fn expand_from(known: &BTreeMap<String, String>, text: &str) -> Option<String> {
        if !text.contains('$') {
            return Some(text.to_owned());
        }
        let place = Place::Model("".into());
        let mut unknown = false;
        let lookup = |name: &str| known.get(name).cloned();
        let expanded =
            Template::parse(text, &place).ok()?.render(&lookup, &mut |_| unknown = true, &place).ok()?;
        (!unknown && !text.contains('\\')).then_some(expanded)
    }
}

#[cfg(test)]
mod tests;
