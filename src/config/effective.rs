//! The configuration in effect: the values of all sources, the origin of each, and the mistakes in them.

use std::fmt;

use crate::config::origin::{Assignment, Mistake, Origin};
use crate::config::{Config, KEYS, Key, file};

/// The texts that can set keys.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The configuration file's name and content.
    pub file: Option<(String, Vec<u8>)>,
    /// The environment's variables.
    pub environment: Vec<(String, String)>,
    /// `KEY=value` of each `--set`.
    pub command_line: Vec<String>,
}

impl Sources {
    /// All assignments, and a mistake for every text that is none. A later assignment wins over an earlier one.
    fn assignments(&self) -> (Vec<Assignment>, Vec<Mistake>) {
        let (mut assignments, mut mistakes) = (Vec::new(), Vec::new());
        if let Some((name, content)) = &self.file {
            file::read(name, content, &mut assignments, &mut mistakes);
        }
        for (key, value) in &self.environment {
            if key.starts_with("NORAY_") && !is_set_by_orchestrator(key) {
                let (key, value) = (key.clone(), value.clone());
                assignments.push(Assignment { origin: Origin::Environment, key, value });
            }
        }
        for text in &self.command_line {
            let origin = Origin::CommandLine;
            match file::split(text) {
                Ok((key, value)) => {
                    let (key, value) = (key.to_owned(), value.to_owned());
                    assignments.push(Assignment { origin, key, value });
                }
                Err(what) => mistakes.push(Mistake { origin, key: format!("--set {text}"), what }),
            }
        }
        (assignments, mistakes)
    }
}

/// A checked configuration, with the origin of each value.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The values.
    pub config: Config,
    origins: Vec<Origin>,
}

impl Effective {
    /// Reads all sources. The command line wins over the environment, the environment over the file, and the file over
    /// the defaults. An empty value sets nothing; on the command line it sets the default.
    ///
    /// # Errors
    /// Every mistake in all sources.
    pub fn read(sources: &Sources) -> Result<Self, Vec<Mistake>> {
        let (assignments, mut mistakes) = sources.assignments();
        let origins = vec![Origin::Default; KEYS.len()];
        let mut effective = Self { config: Config::default(), origins };
        for assignment in assignments {
            mistakes.extend(effective.apply(assignment).err());
        }
        for (keys, what) in effective.config.contradictions() {
            // If a key has a mistake, its right value is not known. So it contradicts nothing.
            if mistakes.iter().all(|mistake| !keys.contains(&mistake.key.as_str())) {
                let [key, ..] = keys;
                let index = position(key).expect("a known key");
                let origin = effective.origins[index].clone();
                mistakes.push(Mistake { origin, key: key.to_owned(), what });
            }
        }
        if mistakes.is_empty() { Ok(effective) } else { Err(mistakes) }
    }

    fn apply(&mut self, assignment: Assignment) -> Result<(), Mistake> {
        let Assignment { origin, key, value } = assignment;
        let Some(index) = position(&key) else {
            let what = format!("unknown key, did you mean {}?", nearest(&key));
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

    /// How many keys are set by a source.
    pub fn set_values(&self) -> usize {
        self.origins.iter().filter(|origin| **origin != Origin::Default).count()
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

/// Whether a container orchestrator sets this variable for a service with the name noray. Such variables hold the
/// service's addresses and set no key.
fn is_set_by_orchestrator(variable: &str) -> bool {
    variable == "NORAY_PORT"
        || variable.starts_with("NORAY_PORT_")
        || variable.starts_with("NORAY_SERVICE_")
}

/// The key's index in [`KEYS`].
fn position(name: &str) -> Option<usize> {
    KEYS.iter().position(|key| key.name == name)
}

/// The known key that is most similar to `name`.
fn nearest(name: &str) -> &'static str {
    let distance = |key: &&Key| strsim::damerau_levenshtein(&name.to_ascii_uppercase(), key.name);
    KEYS.iter().min_by_key(distance).expect("there are keys").name
}
