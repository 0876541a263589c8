//! Decides no level: how log lines look where they go.

use std::io::Write;
use std::os::unix::fs::MetadataExt;

use env_logger::Builder;
use log::Level;
use noray::config::LogLevel;

/// Where the lines go, and so what stands in front of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// A terminal or a file: the time and the level.
    Plain,
    /// The journal, which knows the time: the priority as sd-daemon(3) writes it.
    Journal,
}

impl Style {
    /// The journal's if `stream`, which is the value of `JOURNAL_STREAM`, names the device and inode of stderr
    /// (systemd.exec(5)).
    pub(crate) fn of_stderr(stream: Option<&str>) -> Self {
        let is_journal = std::fs::metadata("/proc/self/fd/2")
            .is_ok_and(|stderr| stream == Some(&format!("{}:{}", stderr.dev(), stderr.ino())));
        if is_journal { Self::Journal } else { Self::Plain }
    }
}

/// Starts to log, on stderr.
pub(crate) fn start(style: Style, level: LogLevel) {
    let mut builder = Builder::new();
    // Which of them are written is for `set_level` to say, which can change.
    builder.filter_module("noray", log::LevelFilter::Trace);
    match style {
        Style::Plain => builder.format(|out, record| {
            writeln!(out, "{} {:<5} {}", out.timestamp(), record.level(), record.args())
        }),
        Style::Journal => builder
            .format(|out, record| writeln!(out, "<{}>{}", priority(record.level()), record.args())),
    };
    builder.init();
    set_level(level);
}

/// Changes which lines are written.
pub(crate) fn set_level(level: LogLevel) {
    log::set_max_level(level.filter());
}

/// Writes one line of an error to stderr before the log has started.
#[expect(clippy::print_stderr, reason = "there is no logger yet")]
pub(crate) fn complain(style: Style, line: &str) {
    match style {
        Style::Plain => eprintln!("{line}"),
        Style::Journal => eprintln!("<{}>{line}", priority(Level::Error)),
    }
}

/// syslog(3)'s number.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}
