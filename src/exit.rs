//! How the program ends: exit statuses, as in sysexits(3), and what it prints before.

use std::io::{self, Write};
use std::process::ExitCode;

use log::Level;
use noray::config::Mistakes;
use noray::operation::logging::{self, LogFormat};

/// Something that the others do not name.
pub(crate) const FAILURE: u8 = 1;
/// Wrong command line.
pub(crate) const USAGE: u8 = 64;
/// A needed port could not be bound.
pub(crate) const UNAVAILABLE: u8 = 69;
/// Wrong configuration.
pub(crate) const CONFIG: u8 = 78;

/// Writes to stdout. The exit status says whether that worked.
pub(crate) fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Writes mistakes to stderr, a line each, and returns the exit status.
pub(crate) fn fail(status: u8, format: LogFormat, text: &str) -> ExitCode {
    for line in text.trim_end().lines() {
        logging::complain(format, Level::Error, line);
    }
    ExitCode::from(status)
}

/// Writes to stderr what is doubtful in a configuration, a line each.
pub(crate) fn warn(format: LogFormat, warnings: &Mistakes) {
    for warning in warnings.lines() {
        logging::complain(format, Level::Warn, &format!("warning: {warning}"));
    }
}
