//! Where something was written, and what is wrong with it.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A line and a column of the file, both from 1.
    Text {
        /// Line.
        line: u32,
        /// Column, in characters.
        column: u32,
    },
    /// A place in another file, which this one includes.
    Included {
        /// The file.
        file: Arc<str>,
        /// Line.
        line: u32,
        /// Column, in characters.
        column: u32,
    },
    /// A path in a model that came without a file, for example `services.default.image`.
    Model(Arc<str>),
}

/// What is wrong with a value. It becomes an [`Error`] where the name of the file is known.
#[derive(Debug)]
pub(crate) struct Problem {
    place: Place,
    message: String,
    hint: Option<String>,
}

/// The result of reading a part of a file.
pub(crate) type Read<T> = Result<T, Problem>;

impl Problem {
    /// A problem at `place`.
    pub(crate) fn at(place: &Place, message: impl Into<String>) -> Self {
        Self { place: place.clone(), message: message.into(), hint: None }
    }

    /// Adds what the user can do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Moves the problem to another file than the one that is read.
    pub(crate) fn of_file(mut self, file: &Arc<str>) -> Self {
        self.place = self.place.of_file(file);
        self
    }

    /// The error for the user, with the name of the file in front.
    pub(crate) fn into_error(self, file: &str) -> Error {
        let message = format!("{}: {}", self.place.within(file), self.message);
        let error = Error::new(ErrorKind::InvalidConfig, message);
        match self.hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

impl Place {
    /// A line and a column of the file, both from 1.
    pub(crate) fn text(line: usize, column: usize) -> Self {
        // Half the size of what parsers give: a tree has one per value.
        let bounded = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self::Text { line: bounded(line), column: bounded(column) }
    }

    /// The same line and column in another file than the one that is read.
    pub(crate) fn of_file(&self, file: &Arc<str>) -> Self {
        match self {
            Self::Text { line, column } => {
                Self::Included { file: Arc::clone(file), line: *line, column: *column }
            }
            other => other.clone(),
        }
    }

    /// `file:line:column`, as editors and terminals link it, or the path within a model.
    pub(crate) fn within(&self, file: &str) -> Located<'_> {
        Located { file: file.to_owned(), place: self }
    }
}

/// A place together with its file, for display.
#[derive(Debug)]
pub(crate) struct Located<'a> {
    file: String,
    place: &'a Place,
}

impl fmt::Display for Located<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Text { line, column } => write!(f, "{}:{line}:{column}", self.file),
            Place::Included { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Place::Model(path) if path.is_empty() => f.write_str(&self.file),
            Place::Model(path) => write!(f, "{}: {path}", self.file),
        }
    }
}
