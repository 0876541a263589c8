//! The configuration in effect: the values of all sources, the origin of each, and what is wrong or doubtful about
//! them.

use std::fmt;

use crate::config::origin::{Assignment, Mistake, Mistakes, Origin, Statements};
use crate::config::{Config, KEYS, file, names};
use crate::label::counted;

/// The texts that can set keys.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The configuration file's name and content.
    pub file: Option<(String, Vec<u8>)>,
    /// The environment's variables.
    pub environment: Vec<(String, String)>,
    /// `KEY=value` of each `--set`.
    pub command_line: Vec<String>,
    /// Reads a file that a key names, or says why it cannot be read.
    pub read_file: fn(&str) -> Result<Vec<u8>, String>,
}

impl Default for Sources {
    /// They set nothing, and no file can be read.
    fn default() -> Self {
        let read_file = |_: &str| Err("there are no files".to_owned());
        Self { file: None, environment: Vec::new(), command_line: Vec::new(), read_file }
    }
}

/// The key that names a file.
const OID_BLOCKED: &str = "NORAY_OID_BLOCKED";

impl Sources {
    fn statements(&self) -> Statements {
        let mut statements = Statements::default();
        if let Some((name, content)) = &self.file {
            file::read(name, content, &mut statements);
        }
        for (key, value) in &self.environment {
            if names::has_prefix(key) && !is_no_key(key) {
                read_variable(key, value, &mut statements);
            }
        }
        for text in &self.command_line {
            let origin = Origin::CommandLine;
            let (key, read) = match file::split(text) {
                Ok((key, value)) => (key.to_owned(), file::unquote(value)),
                Err(what) => (format!("--set {text}"), Err(what)),
            };
            match read {
                Ok(value) => statements.assignments.push(Assignment { origin, key, value }),
                Err(what) => statements.mistakes.add(|| Mistake { origin, key, what }),
            }
        }
        statements
    }
}

/// Adds a variable of the environment. `docker --env-file` hands quotes and spaces over as they stand in the file.
fn read_variable(key: &str, value: &str, statements: &mut Statements) {
    let (origin, key) = (Origin::Environment, key.to_owned());
    if names::position(&key).is_none() {
        // What starts a server has variables of its own, such as NORAY_BIN.
        let what = format!("the variable is ignored: {}", names::unknown(&key));
        statements.warnings.add(|| Mistake { origin, key, what });
        return;
    }
    match file::unquote(value) {
        Ok(value) => statements.assignments.push(Assignment { origin, key, value }),
        Err(what) => statements.mistakes.add(|| Mistake { origin, key, what }),
    }
}

/// A checked configuration, with the origin of each value.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The values.
    pub config: Config,
    /// What is doubtful, or sets nothing though somebody may think so.
    pub warnings: Mistakes,
    origins: Vec<Origin>,
}

impl Effective {
    /// Reads all sources. The command line wins over the environment, the environment over the file, and the file over
    /// the defaults. An empty value sets nothing; on the command line it sets the default.
    ///
    /// # Errors
    /// The mistakes in all sources.
    pub fn read(sources: &Sources) -> Result<Self, Mistakes> {
        let Statements { assignments, mut mistakes, warnings } = sources.statements();
        let origins = vec![Origin::Default; KEYS.len()];
        let mut effective = Self { config: Config::default(), warnings, origins };
        for assignment in assignments {
            if let Err(mistake) = effective.apply(assignment) {
                mistakes.add(|| mistake);
            }
        }
        if let Err(what) = effective.config.read_blocked_words(sources.read_file) {
            let (origin, key) = (effective.origin(OID_BLOCKED).clone(), OID_BLOCKED.to_owned());
            mistakes.add(|| Mistake { origin, key, what });
        }
        for (keys, what) in effective.config.contradictions() {
            // If a key has a mistake, its right value is not known. So it contradicts nothing.
            if mistakes.iter().all(|mistake| !keys.contains(&mistake.key.as_str())) {
                mistakes.add(|| effective.contradiction(keys, what));
            }
        }
        for (key, what) in effective.config.doubts() {
            let (origin, key) = (effective.origin(key).clone(), key.to_owned());
            effective.warnings.add(|| Mistake { origin, key, what });
        }
        if mistakes.is_empty() { Ok(effective) } else { Err(mistakes) }
    }

    /// Told where the last of the two keys was set, with the place of the other.
    fn contradiction(&self, keys: [&'static str; 2], what: String) -> Mistake {
        let [one, other] = keys;
        let is_other_last = self.origin(other) > self.origin(one);
        let (key, first) = if is_other_last { (other, one) } else { (one, other) };
        let what =
            if one == other { what } else { format!("{what} ({first}: {})", self.origin(first)) };
        Mistake { origin: self.origin(key).clone(), key: key.to_owned(), what }
    }

    fn origin(&self, key: &str) -> &Origin {
        &self.origins[names::position(key).expect("a known key")]
    }

    fn apply(&mut self, assignment: Assignment) -> Result<(), Mistake> {
        let Assignment { origin, key, value } = assignment;
        let Some(index) = names::position(&key) else {
            let what = names::unknown(&key);
            return Err(Mistake { origin, key, what });
        };
        let value = match (value.as_str(), &origin) {
            ("", Origin::CommandLine) => KEYS[index].default,
            ("", _) => return Ok(()),
            (value, _) => value,
        };
        match (KEYS[index].set)(&mut self.config, value) {
            Ok(()) => {
                self.origins[index] = origin;
                Ok(())
            }
            Err(what) => Err(Mistake { origin, key, what }),
        }
    }

    /// How much of it is set by a source, in words.
    pub fn summary(&self) -> String {
        let set = self.origins.iter().filter(|origin| **origin != Origin::Default).count();
        if set == 0 {
            return "all settings at default".to_owned();
        }
        format!("{} set, see --check-config", counted(set, "setting"))
    }
}

impl fmt::Display for Effective {
    /// Writes a configuration file, with the origin of each value in a comment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, origin) in KEYS.iter().zip(&self.origins) {
            writeln!(f, "{}={} # {origin}", key.name, file::quote(&(key.show)(&self.config)))?;
        }
        Ok(())
    }
}

/// Whether this variable is no attempt to set a key. A container orchestrator sets some for a service with the name noray,
/// and noray itself sets one at a handover.
fn is_no_key(variable: &str) -> bool {
    variable == "NORAY_HANDOVER"
        || variable == "NORAY_PORT"
        || variable.starts_with("NORAY_PORT_")
        || variable.starts_with("NORAY_SERVICE_")
}
