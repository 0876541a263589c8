//! The origin of a configuration value, and mistakes with their place.

use std::fmt::{self, Write};
use std::ops::Deref;

/// Where a value was set. Greater ones win over smaller ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Origin {
    /// It was not set.
    #[default]
    Default,
    /// A line of the configuration file.
    File {
        /// The file's name, as given.
        name: String,
        /// The line's number, from 1.
        line: usize,
    },
    /// The process's environment.
    Environment,
    /// `--set` on the command line.
    CommandLine,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Environment => f.write_str("environment"),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

/// A mistake or a doubtful text in the configuration, shown as `place: KEY: what`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where it is.
    pub origin: Origin,
    /// The key, or the text that was found in its place.
    pub key: String,
    /// What is wrong or doubtful, and where useful what would be right.
    pub what: String,
}

impl fmt::Display for Mistake {
    /// One line: control characters are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}: {}: {}", self.origin, self.key, self.what);
        text.chars().try_for_each(|c| match c {
            c if c.is_control() => write!(f, "{}", c.escape_default()),
            c => f.write_char(c),
        })
    }
}

/// How many mistakes are kept. A file that is no configuration has one on each line.
pub const MAX_MISTAKES: usize = 50;

/// The first [`MAX_MISTAKES`] mistakes, as a slice, and the number of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes {
    first: Vec<Mistake>,
    others: usize,
}

impl Mistakes {
    /// Adds a mistake. One that is only counted is not made.
    pub(super) fn add(&mut self, make: impl FnOnce() -> Mistake) {
        if self.first.len() < MAX_MISTAKES {
            self.first.push(make());
        } else {
            self.others += 1;
        }
    }

    /// A line for each of the first, and one with the number of the others if there are any.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let rest = (self.others > 0).then(|| format!("and {} more", self.others));
        self.first.iter().map(ToString::to_string).chain(rest)
    }
}

impl Deref for Mistakes {
    type Target = [Mistake];

    fn deref(&self) -> &Self::Target {
        &self.first
    }
}

/// What the sources say, in ascending order of precedence.
#[derive(Debug, Default)]
pub(super) struct Statements {
    pub(super) assignments: Vec<Assignment>,
    /// Texts that are no assignments, and keep the server from starting.
    pub(super) mistakes: Mistakes,
    /// Texts that set nothing, though somebody may think so.
    pub(super) warnings: Mistakes,
}

/// One `KEY=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    pub(super) origin: Origin,
    pub(super) key: String,
    pub(super) value: String,
}
