//! The log: how its lines look, and the thread that writes them to stderr.
//!
//! Lines go through a bounded queue to that thread: a terminal that was stopped, a full disk or a pipe that nobody reads
//! delays it and nobody else. What does not fit into the queue is lost and counted. Lines about steps of players and
//! relays are left out when they are too many, because strangers who come and go must not fill a disk; these are counted
//! apart.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::panic;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::config::LogLevel;
use crate::limits::token_bucket::TokenBucket;
use crate::operation::clock;
use crate::operation::metrics::{Counter, Metrics};
use crate::operation::{os, threads};
use crate::time::Timestamp;
use crossbeam_channel::{Receiver, Sender, bounded};
use env_logger::{Builder, Target};
use log::Level;
use parking_lot::Mutex;

/// The target of the log lines about steps in players' and relays' lives. Strangers can cause any number of them.
pub const STEP: &str = "noray::step";

/// How many lines may wait to be written; they have about a hundred bytes each.
const MAX_WAITING: usize = 4096;

/// How often at most the log says that lines are missing.
const MISSING_INTERVAL: Duration = Duration::from_secs(60);

/// How many steps of players and relays are written in a second on average. Three are a player who joins and leaves.
const STEPS_PER_SECOND: u64 = 30;

/// How many seconds' worth may be written at once: 18,000 lines, as when thousands of players come back together.
const STEP_BURST: Duration = Duration::from_secs(600);

/// How long the end of the process waits for the lines before it.
const PATIENCE_AT_END: Duration = Duration::from_secs(1);

/// The name of the thread that writes.
const WRITER: &str = "log";

/// What stands in front of a line's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A terminal or a file: the time and the level.
    Plain,
    /// The journal, which knows the time: the priority as sd-daemon(3) writes it.
    Journal,
}

impl LogFormat {
    /// The journal's if `JOURNAL_STREAM` in the environment names the device and inode of stderr (systemd.exec(5)).
    pub fn of_stderr() -> Self {
        let stream = os::variable("JOURNAL_STREAM");
        let is_journal = std::fs::metadata("/proc/self/fd/2")
            .is_ok_and(|stderr| stream == Some(format!("{}:{}", stderr.dev(), stderr.ino())));
        if is_journal { Self::Journal } else { Self::Plain }
    }
}

/// What waits to be written.
enum Queued {
    Line(Vec<u8>),
    /// Everything before it has been written.
    Mark(Sender<()>),
}

/// The way to the thread that writes.
#[derive(Clone)]
pub struct Log {
    queue: Sender<Queued>,
    metrics: Arc<Metrics>,
}

/// Starts to log, on stderr, also what panics say.
///
/// # Errors
/// If the system gives no thread.
pub fn start(format: LogFormat, level: LogLevel, metrics: &Arc<Metrics>) -> io::Result<Log> {
    let (queue, entries) = bounded(MAX_WAITING);
    let log = Log { queue, metrics: Arc::clone(metrics) };
    let counted = Arc::clone(metrics);
    threads::spawn_vital(WRITER, move || write_all(&entries, &counted))?;

    let mut builder = Builder::new();
    // Which of them are written is for `set_level` to say, which can change.
    builder.filter_module("noray", log::LevelFilter::Trace);
    builder.target(Target::Pipe(Box::new(log.clone())));
    let steps = Steps::start(Arc::clone(metrics));
    builder.format(move |out, record| {
        if record.target() == STEP && steps.are_too_many() {
            return Ok(());
        }
        match format {
            LogFormat::Plain => {
                writeln!(out, "{} {:<5} {}", out.timestamp(), record.level(), record.args())
            }
            LogFormat::Journal => writeln!(out, "<{}>{}", priority(record.level()), record.args()),
        }
    });
    builder.init();
    set_level(level);
    let (after_panic, write_to_stderr) = (log.clone(), panic::take_hook());
    threads::on_panic(move |panic| {
        if thread::current().name() == Some(WRITER) {
            // Nobody else writes what is in the queue.
            write_to_stderr(panic);
        } else {
            log::error!("{}", panic.to_string().replace('\n', " "));
            // It may be the last line.
            after_panic.finish();
        }
    });
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
        Self { start: clock::now(), budget: Mutex::default(), metrics }
    }

    /// Whether one more is to be left out. With a level above `info` none is.
    fn are_too_many(&self) -> bool {
        if log::max_level() > log::LevelFilter::Info {
            return false;
        }
        let now = Timestamp::START + clock::now().saturating_duration_since(self.start);
        let mut budget = self.budget.lock();
        if budget.has_tokens(STEP_BURST, now) {
            budget.charge(1, STEPS_PER_SECOND, now);
            return false;
        }
        self.metrics.log_lines_left_out.add(1);
        true
    }
}

/// The body of the thread that writes.
fn write_all(entries: &Receiver<Queued>, metrics: &Metrics) {
    let mut stderr = io::stderr();
    let (mut lost, mut left_out) = (Missing::default(), Missing::default());
    for entry in entries {
        match entry {
            // There is no other place to report a failure, such as a full disk.
            Queued::Line(line) => {
                if stderr.write_all(&line).is_err() {
                    metrics.log_lines_lost.add(1);
                }
            }
            Queued::Mark(reached) => drop(reached.try_send(())),
        }
        if !entries.is_empty() {
            continue;
        }
        if let Some(count) = lost.take_news(&metrics.log_lines_lost) {
            log::warn!(
                "{count} log lines are lost: they were too many, whoever reads them was too slow, or they could not \
                 be written"
            );
        }
        if let Some(count) = left_out.take_news(&metrics.log_lines_left_out) {
            log::info!(
                "{count} lines about players and relays are left out so far: there are more than {STEPS_PER_SECOND} a second; \
                 NORAY_LOGLEVEL=debug writes all"
            );
        }
    }
}

/// What the log has said about lines that are missing in it.
#[derive(Default)]
struct Missing {
    told: u64,
    told_at: Option<Instant>,
}

impl Missing {
    /// How many are missing since the start, if there are more than the log has said and a minute is over.
    fn take_news(&mut self, missing: &Counter) -> Option<u64> {
        let count = missing.value();
        let is_due =
            self.told_at.is_none_or(|at| clock::now().duration_since(at) >= MISSING_INTERVAL);
        if count == self.told || !is_due {
            return None;
        }
        *self = Self { told: count, told_at: Some(clock::now()) };
        Some(count)
    }
}

impl Write for Log {
    /// Takes one whole line, as the logger hands it over, and never waits.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Queued::Line(line.to_vec())).is_err() {
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
        if self.queue.send_timeout(Queued::Mark(reached), PATIENCE_AT_END).is_ok() {
            // A reader that has not read by now will not read it any more.
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
pub fn complain(format: LogFormat, line: &str) {
    match format {
        LogFormat::Plain => eprintln!("{line}"),
        LogFormat::Journal => eprintln!("<{}>{line}", priority(Level::Error)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_are_too_many_are_left_out_and_not_counted_as_lost() {
        let metrics = Arc::new(Metrics::default());
        let steps = Steps::start(Arc::clone(&metrics));
        let most = STEPS_PER_SECOND * STEP_BURST.as_secs();
        let left_out = (0..2 * most).filter(|_| steps.are_too_many()).count() as u64;
        // Some seconds may pass meanwhile.
        assert!((most / 2..=most).contains(&left_out), "{left_out}");
        assert_eq!(metrics.log_lines_left_out.value(), left_out);
        assert_eq!(metrics.log_lines_lost.value(), 0);
    }

    #[test]
    fn the_log_says_at_most_once_a_minute_how_many_lines_are_missing() {
        let (missing, mut told) = (Counter::default(), Missing::default());
        assert_eq!(told.take_news(&missing), None);
        missing.add(3);
        assert_eq!(told.take_news(&missing), Some(3));
        missing.add(1);
        assert_eq!(told.take_news(&missing), None, "the minute is not over");
    }
}
