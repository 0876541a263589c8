//! Decides no level: how log lines look and where they go.
//!
//! Lines go through a bounded queue to a thread that writes them: a terminal that was stopped, a full disk or a pipe
//! that nobody reads delays that thread and nobody else. What does not fit is lost and counted, and so are steps of
//! players and relays that are too many: strangers who come and go must not fill a disk.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::panic;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::config::LogLevel;
use crate::limits::token_bucket::TokenBucket;
use crate::operation::metrics::Metrics;
use crate::time::Timestamp;
use crossbeam_channel::{Receiver, Sender, bounded};
use env_logger::{Builder, Target};
use log::Level;
use parking_lot::Mutex;

/// The target of the log lines about steps in players' and relays' lives, of which strangers can cause any number.
pub const STEP: &str = "noray::step";

/// How many lines may wait to be written; they have about a hundred bytes each.
const MAX_WAITING: usize = 4096;

/// How often at most it is said that lines are lost.
const LOSS_INTERVAL: Duration = Duration::from_secs(60);

/// How many steps of players and relays are written in a second on average. Three are a player who joins and leaves.
const STEPS_PER_SECOND: u64 = 30;

/// For how long they may be saved up: 18,000, as when thousands of players come back at once.
const STEP_BURST: Duration = Duration::from_secs(600);

/// How long the end of the process waits for the lines before it.
const PATIENCE_AT_END: Duration = Duration::from_secs(1);

/// Where the lines go, and so what stands in front of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A terminal or a file: the time and the level.
    Plain,
    /// The journal, which knows the time: the priority as sd-daemon(3) writes it.
    Journal,
}

impl Style {
    /// The journal's if `stream`, which is the value of `JOURNAL_STREAM`, names the device and inode of stderr
    /// (systemd.exec(5)).
    pub fn of_stderr(stream: Option<&str>) -> Self {
        let is_journal = std::fs::metadata("/proc/self/fd/2")
            .is_ok_and(|stderr| stream == Some(&format!("{}:{}", stderr.dev(), stderr.ino())));
        if is_journal { Self::Journal } else { Self::Plain }
    }
}

/// What waits to be written.
enum Entry {
    Line(Vec<u8>),
    /// Everything before it has been written.
    Mark(Sender<()>),
}

/// The way to the thread that writes.
#[derive(Clone)]
pub struct Log {
    queue: Sender<Entry>,
    metrics: Arc<Metrics>,
}

/// Starts to log, on stderr, also what panics say.
///
/// # Errors
/// If the thread that writes cannot be had.
pub fn start(style: Style, level: LogLevel, metrics: &Arc<Metrics>) -> io::Result<Log> {
    let (queue, entries) = bounded(MAX_WAITING);
    let log = Log { queue, metrics: Arc::clone(metrics) };
    let counted = Arc::clone(metrics);
    thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&entries, &counted))?;

    let mut builder = Builder::new();
    // Which of them are written is for `set_level` to say, which can change.
    builder.filter_module("noray", log::LevelFilter::Trace);
    builder.target(Target::Pipe(Box::new(log.clone())));
    let steps = Steps::start(Arc::clone(metrics));
    builder.format(move |out, record| {
        if record.target() == STEP && steps.are_too_many() {
            return Ok(());
        }
        match style {
            Style::Plain => {
                writeln!(out, "{} {:<5} {}", out.timestamp(), record.level(), record.args())
            }
            Style::Journal => writeln!(out, "<{}>{}", priority(record.level()), record.args()),
        }
    });
    builder.init();
    set_level(level);
    let after_panic = log.clone();
    panic::set_hook(Box::new(move |panic| {
        log::error!("{}", panic.to_string().replace('\n', " "));
        // It may be the last line.
        after_panic.finish();
    }));
    Ok(log)
}

/// How many steps have been written lately.
struct Steps {
    start: Instant,
    budget: Mutex<TokenBucket>,
    metrics: Arc<Metrics>,
}

impl Steps {
    fn start(metrics: Arc<Metrics>) -> Self {
        Self { start: now(), budget: Mutex::default(), metrics }
    }

    /// Whether one more is to be left out. Who asks for more than `info` gets all of them.
    fn are_too_many(&self) -> bool {
        if log::max_level() > log::LevelFilter::Info {
            return false;
        }
        let now = Timestamp::START + now().saturating_duration_since(self.start);
        let mut budget = self.budget.lock();
        if budget.has_tokens(STEP_BURST, now) {
            budget.charge(1, STEPS_PER_SECOND, now);
            return false;
        }
        self.metrics.log_lines_lost.add(1);
        true
    }
}

#[expect(clippy::disallowed_methods, reason = "the log has no turn whose time it could use")]
fn now() -> Instant {
    Instant::now()
}

fn write_all(entries: &Receiver<Entry>, metrics: &Metrics) {
    let mut stderr = io::stderr();
    let (mut told, mut told_at) = (0, None);
    for entry in entries {
        match entry {
            // There is no other place where a failure could be told, as of a full disk.
            Entry::Line(line) => {
                if stderr.write_all(&line).is_err() {
                    metrics.log_lines_lost.add(1);
                }
            }
            Entry::Mark(reached) => drop(reached.try_send(())),
        }
        let lost = metrics.log_lines_lost.value();
        let is_due = told_at.is_none_or(|at: Instant| at.elapsed() >= LOSS_INTERVAL);
        if lost != told && is_due && entries.is_empty() {
            (told, told_at) = (lost, Some(now()));
            log::warn!(
                "{lost} log lines are lost: they were too many, whoever reads them was too slow, or they could not \
                 be written"
            );
        }
    }
}

impl Write for Log {
    /// Takes one whole line, as the logger hands it over, and never waits.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Entry::Line(line.to_vec())).is_err() {
            self.metrics.log_lines_lost.add(1);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Waits until what was logged is written, for at most a second.
    pub fn finish(&self) {
        let (reached, is_reached) = bounded(1);
        if self.queue.send_timeout(Entry::Mark(reached), PATIENCE_AT_END).is_ok() {
            // Who is not reading by now will not read it any more.
            let _ = is_reached.recv_timeout(PATIENCE_AT_END);
        }
    }
}

/// Changes which lines are written.
pub fn set_level(level: LogLevel) {
    log::set_max_level(level.filter());
}

/// Writes one line of an error to stderr before the log has started.
#[expect(clippy::print_stderr, reason = "there is no logger yet")]
pub fn complain(style: Style, line: &str) {
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
