//! Where the configuration comes from: a file, the environment and the command line, read at start and at every reload.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::config::{Effective, Sources};
use crate::operation::{config_file, os};

/// The file that is read if no other is named, and if it exists.
const DEFAULT_FILE: &str = "noray.conf";

/// The sources of the configuration. They can be read again.
#[derive(Debug)]
pub struct ConfigSource {
    /// The file, which must exist; if `None`, `./noray.conf` is read if it exists.
    pub file: Option<PathBuf>,
    /// `KEY=value` of each `--set`.
    pub set: Vec<String>,
    /// The file's name and content, to be used once in place of the file itself.
    pub given: Option<(String, String)>,
    /// The file's name and content when it was read last.
    pub last: Option<(String, String)>,
}

impl ConfigSource {
    /// The file, if one is named, the environment, and the settings of the command line.
    pub fn new(file: Option<PathBuf>, set: Vec<String>) -> Self {
        Self { file, set, given: None, last: None }
    }

    /// Reads the effective configuration.
    ///
    /// # Errors
    /// The first mistakes, a line each, and the number of the others.
    pub fn read(&mut self) -> Result<Effective, String> {
        let environment = std::env::vars_os()
            .map(|(key, value)| (key.to_string_lossy().into(), value.to_string_lossy().into()))
            .collect();
        let file = self.read_file()?;
        let sources = Sources {
            file,
            environment,
            command_line: self.set.clone(),
            read_file: read_named_file,
        };
        Effective::read(&sources)
            .map_err(|mistakes| mistakes.lines().collect::<Vec<_>>().join("\n"))
    }

    /// Once the default file has been read, it must exist at every later reading.
    fn read_file(&mut self) -> Result<Option<(String, Vec<u8>)>, String> {
        if let Some((name, content)) = self.given.take() {
            self.file = Some(PathBuf::from(&name));
            self.last = Some((name.clone(), content.clone()));
            return Ok(Some((name, content.into_bytes())));
        }
        let read = self.read_path()?;
        let text = |content: &[u8]| String::from_utf8_lossy(content).into_owned();
        self.last = read.as_ref().map(|(name, content)| (name.clone(), text(content)));
        Ok(read)
    }

    fn read_path(&mut self) -> Result<Option<(String, Vec<u8>)>, String> {
        let path = self.file.clone().unwrap_or(DEFAULT_FILE.into());
        match config_file::read(&path) {
            Ok(content) => {
                let name = path.display().to_string();
                self.file = Some(path);
                Ok(Some((name, content)))
            }
            Err(error) if self.file.is_none() && error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let whose = if error.kind() == ErrorKind::PermissionDenied {
                    remedy()
                } else {
                    String::new()
                };
                Err(format!("{}: cannot be read: {error}{whose}", path.display()))
            }
        }
    }
}

/// Reads a file that a key of the configuration names.
fn read_named_file(path: &str) -> Result<Vec<u8>, String> {
    config_file::read(Path::new(path)).map_err(|error| {
        let is_denied = error.kind() == ErrorKind::PermissionDenied;
        format!("{error}{}", if is_denied { remedy() } else { String::new() })
    })
}

/// Whom the file, and the folders above it, must let read.
fn remedy() -> String {
    format!("; noray runs as {}: let that user read it, for instance with `chmod a+r`", os::user())
}
