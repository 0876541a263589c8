//! The warnings and errors that the log had, as far as they are kept for the status.

use std::time::{Duration, Instant};

use log::Level;
use parking_lot::Mutex;

use crate::operation::status::Warning;

/// How many of the first are kept. Those of the start are among them: what the machine lacks.
const FIRST: usize = 20;

/// How many of the newest are kept besides.
const NEWEST: usize = 20;

/// Characters that are kept of one.
const MAX_TEXT: usize = 1000;

/// The first and the newest warnings. The log's thread writes them, and requests read them.
#[derive(Debug, Default)]
pub struct Warnings(Mutex<Vec<Kept>>);

#[derive(Debug)]
struct Kept {
    level: Level,
    text: String,
    last: Instant,
    times: u64,
}

impl Warnings {
    /// Keeps one. If it is kept already, it only counts once more.
    pub(crate) fn keep(&self, level: Level, text: &str, now: Instant) {
        let text: String = text.chars().take(MAX_TEXT).collect();
        let mut kept = self.0.lock();
        if let Some(same) = kept.iter_mut().find(|kept| kept.text == text && kept.level == level) {
            same.times += 1;
            same.last = now;
            return;
        }
        if kept.len() == FIRST + NEWEST {
            kept.remove(FIRST);
        }
        kept.push(Kept { level, text, last: now, times: 1 });
    }

    /// Keeps what another process has kept.
    pub(crate) fn restore(&self, list: &[Warning], now: Instant) {
        let kept = |warning: &Warning| {
            let ago = Duration::from_secs(warning.seconds_ago);
            Some(Kept {
                level: warning.level.parse().ok()?,
                text: warning.text.clone(),
                last: now.checked_sub(ago).unwrap_or(now),
                times: warning.times,
            })
        };
        self.0.lock().extend(list.iter().filter_map(kept));
    }

    /// All that are kept, in the order in which they first came.
    pub(crate) fn list(&self, now: Instant) -> Vec<Warning> {
        let kept = self.0.lock();
        let shown = |kept: &Kept| Warning {
            level: kept.level.as_str().to_lowercase(),
            text: kept.text.clone(),
            times: kept.times,
            seconds_ago: now.saturating_duration_since(kept.last).as_secs(),
        };
        kept.iter().map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_newest_are_kept() {
        let (warnings, start) = (Warnings::default(), crate::operation::clock::now());
        for number in 0..100 {
            let now = start + Duration::from_secs(number);
            warnings.keep(Level::Warn, &format!("number {number}"), now);
        }
        let list = warnings.list(start + Duration::from_secs(100));
        let numbers: Vec<String> = list.iter().map(|warning| warning.text.clone()).collect();
        let kept = (0..20).chain(80..100).map(|number| format!("number {number}"));
        assert_eq!(numbers, kept.collect::<Vec<_>>());
        assert_eq!(list[20].seconds_ago, 20);

        let another = Warnings::default();
        another.restore(&list, start + Duration::from_secs(200));
        assert_eq!(another.list(start + Duration::from_secs(200)), list);
    }

    #[test]
    fn a_repeated_one_is_counted() {
        let (warnings, now) = (Warnings::default(), crate::operation::clock::now());
        for _ in 0..3 {
            warnings.keep(Level::Error, "again", now);
        }
        let list = warnings.list(now);
        assert_eq!((list.len(), list[0].times, list[0].level.as_str()), (1, 3, "error"));
    }

    #[test]
    fn a_long_one_is_cut() {
        let (warnings, now) = (Warnings::default(), crate::operation::clock::now());
        warnings.keep(Level::Warn, &"\u{e4}".repeat(2000), now);
        assert_eq!(warnings.list(now)[0].text, "\u{e4}".repeat(1000));
    }
}
