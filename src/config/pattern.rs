//! Paths matched by Docker's rules: Go's `filepath.Match`, with `**` as the Docker builder adds it.

/// A pattern that is known to be well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`: one character of a name.
    One,
    /// `*`: any part of a name.
    Any,
    /// `[…]`.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `**/` or `**` before something: nothing, or whole directories.
    Directories,
    /// `**` at the end, and at the start before a literal: anything.
    Everything,
}

impl Pattern {
    /// Parses a pattern; nothing where a bracket or backslash is out of place.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(character) = rest.next() {
            tokens.push(match character {
                '*' if rest.peek() == Some(&'*') => {
                    rest.next();
                    let slash = rest.next_if_eq(&'/').is_some();
                    let leading = tokens.is_empty() && !slash && is_literal(rest.clone());
                    if rest.peek().is_none() || leading { Token::Everything } else { Token::Directories }
                }
                '*' => Token::Any,
                '?' => Token::One,
                '[' => class(&mut rest)?,
                '\\' => Token::Literal(rest.next()?),
                other => Token::Literal(other),
            });
        }
        Some(Self { tokens })
    }

    /// Whether the whole path matches.
    pub(crate) fn matches(&self, path: &str) -> bool {
        let path: Vec<char> = path.chars().collect();
        // states[i]: the tokens so far can match the first i characters. One pass for each token, so that no pattern
        // takes longer than its length times that of the path.
        let mut states = vec![false; path.len() + 1];
        states[0] = true;
        for token in &self.tokens {
            states = token.advance(&states, &path);
        }
        states[path.len()]
    }

    /// Whether the path or one of the directories that contain it matches.
    pub(crate) fn matches_within(&self, path: &str) -> bool {
        self.matches(path) || path.match_indices('/').any(|(end, _)| self.matches(&path[..end]))
    }
}

/// In such a pattern Docker compares the end of the path and does not care where a name begins.
fn is_literal(mut rest: impl Iterator<Item = char>) -> bool {
    rest.all(|character| !matches!(character, '*' | '?' | '[' | ']' | '\\'))
}

impl Token {
    fn advance(&self, states: &[bool], path: &[char]) -> Vec<bool> {
        let mut next = vec![false; states.len()];
        match self {
            Self::Literal(_) | Self::One | Self::Class { .. } => {
                for (index, character) in path.iter().enumerate() {
                    next[index + 1] = states[index] && self.fits(*character);
                }
            }
            Self::Any => {
                for index in 0..states.len() {
                    next[index] = states[index] || (index > 0 && next[index - 1] && path[index - 1] != '/');
                }
            }
            Self::Everything => {
                let mut reached = false;
                for index in 0..states.len() {
                    reached |= states[index];
                    next[index] = reached;
                }
            }
            Self::Directories => {
                let mut reached = false;
                for index in 0..states.len() {
                    next[index] = states[index] || (reached && path[index - 1] == '/');
                    reached |= states[index];
                }
            }
        }
        next
    }

    fn fits(&self, character: char) -> bool {
        match self {
            Self::Literal(literal) => *literal == character,
            Self::One => character != '/',
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&character)) != *negated
            }
            Self::Any | Self::Directories | Self::Everything => false,
        }
    }
}

/// The inside of `[…]` by Go's rules: not empty, and `-` and `]` only behind a backslash.
fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Token> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if rest.peek() == Some(&']') && !ranges.is_empty() {
            rest.next();
            return Some(Token::Class { negated, ranges });
        }
        let low = class_character(rest)?;
        let high = if rest.next_if_eq(&'-').is_some() { class_character(rest)? } else { low };
        ranges.push((low, high));
    }
}

fn class_character(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match rest.next()? {
        '-' | ']' => None,
        '\\' => rest.next(),
        other => Some(other),
    }
}

/// A path as Go's `filepath.Clean` leaves it: no double slashes, no `.`, `..` resolved as far as it goes.
pub(crate) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            other => parts.push(other),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}
