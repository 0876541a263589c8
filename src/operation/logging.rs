//! The log: how its lines look, and the thread that writes them to stderr.
//!
//! Lines go through a bounded queue to that thread. So a stopped terminal, a full disk or a pipe that nobody reads delays
//! only that thread. A line that does not fit into the queue is lost and counted. Lines about steps of players and relays
//! are left out if there are too many, because strangers who come and go must not fill a disk. They are counted apart. That
//! thread also keeps warnings and errors for the status, so that no other thread waits for a reader of them.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::panic;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::config::LogLevel;
use crate::limits::token_bucket::{RateLimit, TokenBucket};
use crate::operation::clock;
use crate::operation::metrics::{Counter, Metrics};
use crate::operation::warning_limiter::WarningLimiter;
use crate::operation::warnings::Warnings;
use crate::operation::{os, threads};
use crate::time::RunningTime;
use crossbeam_channel::{Receiver, Sender, bounded};
use env_logger::{Builder, Target};
use log::Level;
use parking_lot::Mutex;

/// The target of the log lines about steps in players' and relays' lives. Strangers can cause any number of them.
pub(crate) const STEP: &str = "noray::step";

/// How many lines may wait to be written. A line has about a hundred bytes.
const MAX_WAITING: usize = 4096;

/// How many lines about steps are written. A player who joins and leaves makes three. 18,000 may come at once, as when
/// thousands of players come back together.
const STEPS: RateLimit = RateLimit { per_second: 30, burst: Duration::from_secs(600) };

/// How long the process waits at its end for lines to be written.
const PATIENCE_AT_END: Duration = Duration::from_secs(1);

/// The name of the writing thread.
const WRITER: &str = "log";

/// What is written before a line's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A terminal or a file: the time and the level.
    Plain,
    /// The journal, which knows the time: the priority as sd-daemon(3) writes it. It shows that only as a colour, so
    /// warnings and errors have the word too.
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
    /// The text of a line before, to be kept.
    Warning(Level, String),
    /// The sender gets word when every line before this is written.
    Mark(Sender<()>),
}

/// The queue to the writing thread.
#[derive(Clone)]
pub struct Log {
    queue: Sender<Queued>,
    metrics: Arc<Metrics>,
    warnings: Arc<Warnings>,
}

/// Starts the log on stderr. Panics are logged too.
///
/// # Errors
/// If the system gives no thread.
pub fn start(format: LogFormat, level: LogLevel, metrics: &Arc<Metrics>) -> io::Result<Log> {
    let (queue, entries) = bounded(MAX_WAITING);
    let log = Log { queue, metrics: Arc::clone(metrics), warnings: Arc::default() };
    let (counted, warnings) = (Arc::clone(metrics), log.warnings());
    threads::spawn_vital(WRITER, move || write_all(&entries, &counted, &warnings))?;

    let mut builder = Builder::new();
    // `set_level` decides which of these are written.
    builder.filter_module("noray", log::LevelFilter::Trace);
    builder.target(Target::Pipe(Box::new(log.clone())));
    let steps = StepLimit::new(Arc::clone(metrics));
    let warned = log.clone();
    builder.format(move |out, record| {
        if record.target() == STEP && !steps.try_acquire() {
            return Ok(());
        }
        if record.level() <= Level::Warn {
            warned.pass_warning(record.level(), record.args().to_string());
        }
        match format {
            LogFormat::Plain => {
                writeln!(out, "{} {:<5} {}", out.timestamp(), record.level(), record.args())
            }
            LogFormat::Journal => {
                let level = record.level();
                writeln!(out, "<{}>{}{}", priority(level), urgency(level), record.args())
            }
        }
    });
    builder.init();
    set_level(level);
    let (after_panic, write_to_stderr) = (log.clone(), panic::take_hook());
    threads::on_panic(move |panic| {
        if thread::current().name() == Some(WRITER) {
            // No thread writes what is in the queue any more.
            write_to_stderr(panic);
        } else {
            log::error!("{}", panic.to_string().replace('\n', " "));
            // The process may end now, so wait until the line is written.
            after_panic.finish();
        }
    });
    Ok(log)
}

/// The rate limit of lines about steps. Only the event loop writes them, so it never waits for this lock.
struct StepLimit {
    written: Mutex<(RunningTime, TokenBucket)>,
    metrics: Arc<Metrics>,
}

impl StepLimit {
    fn new(metrics: Arc<Metrics>) -> Self {
        let time = RunningTime::new(clock::now());
        Self { written: Mutex::new((time, TokenBucket::default())), metrics }
    }

    /// Whether one more line may be written; if not, it is counted. At levels below `info` every line may.
    fn try_acquire(&self) -> bool {
        if log::max_level() > log::LevelFilter::Info {
            return true;
        }
        let (time, bucket) = &mut *self.written.lock();
        let is_allowed = bucket.try_acquire(STEPS, time.advance(clock::now(), Duration::MAX));
        if !is_allowed {
            self.metrics.log_lines_left_out.add(1);
        }
        is_allowed
    }
}

/// The body of the writing thread.
fn write_all(entries: &Receiver<Queued>, metrics: &Metrics, warnings: &Warnings) {
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
            Queued::Warning(level, text) => warnings.keep(level, &text, clock::now()),
            Queued::Mark(reached) => drop(reached.try_send(())),
        }
        if !entries.is_empty() {
            continue;
        }
        if let Some(count) = lost.take_news(&metrics.log_lines_lost) {
            log::warn!(
                "{count} log lines are lost: there were too many, their reader was too slow, or they could not be \
                 written; check that the disk is not full, and that NORAY_LOGLEVEL is info"
            );
        }
        if let Some(count) = left_out.take_news(&metrics.log_lines_left_out) {
            log::info!(
                "{count} lines about players and relays are left out so far: there are more than {} a second; \
                 NORAY_LOGLEVEL=debug writes all",
                STEPS.per_second
            );
        }
    }
}

/// What the log has said about lines that are missing in it.
#[derive(Default)]
struct Missing {
    told: u64,
    warnings: WarningLimiter,
}

impl Missing {
    /// How many are missing since the start, if there are more than the log has said and a minute is over.
    fn take_news(&mut self, missing: &Counter) -> Option<u64> {
        let count = missing.value();
        if count == self.told || !self.warnings.try_acquire(clock::now()) {
            return None;
        }
        self.told = count;
        Some(count)
    }
}

impl Write for Log {
    /// Puts a whole line, as the logger passes it, into the queue without waiting.
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
    /// The warnings and errors that the log had.
    pub fn warnings(&self) -> Arc<Warnings> {
        Arc::clone(&self.warnings)
    }

    /// Passes a warning to the writing thread, which keeps it. Its line is what counts as lost if there is no room.
    fn pass_warning(&self, level: Level, text: String) {
        let _ = self.queue.try_send(Queued::Warning(level, text));
    }

    /// Waits until all lines before this are written, for a second or two at most.
    pub fn finish(&self) {
        self.finish_within(PATIENCE_AT_END);
    }

    /// The same, for twice `patience` at most. If that is not enough, nobody reads the lines.
    pub(crate) fn finish_within(&self, patience: Duration) {
        let (reached, is_reached) = bounded(1);
        if self.queue.send_timeout(Queued::Mark(reached), patience).is_ok() {
            let _ = is_reached.recv_timeout(patience);
        }
    }
}

/// Changes which lines are written.
pub(crate) fn set_level(level: LogLevel) {
    log::set_max_level(level.filter());
}

/// Writes one line to stderr. The log has not started yet.
#[expect(clippy::print_stderr, reason = "there is no logger yet")]
pub fn complain(format: LogFormat, level: Level, line: &str) {
    match format {
        LogFormat::Plain => eprintln!("{line}"),
        LogFormat::Journal => eprintln!("<{}>{line}", priority(level)),
    }
}

/// The word in front of what the operator must read.
fn urgency(level: Level) -> &'static str {
    match level {
        Level::Error => "ERROR ",
        Level::Warn => "WARN ",
        Level::Info | Level::Debug | Level::Trace => "",
    }
}

/// The number that syslog(3) gives this level.
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
        let steps = StepLimit::new(Arc::clone(&metrics));
        let most = STEPS.per_second * STEPS.burst.as_secs();
        let left_out = (0..2 * most).filter(|_| !steps.try_acquire()).count() as u64;
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
