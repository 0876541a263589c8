//! The wall clock jumps by years in the middle of a game.
//!
//! `libfaketime` tells the process another time of day, read anew from a file at each look; the monotonic clock, which
//! nobody can set, stays true.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::game::{Noray, Pair};
use crate::harness::ignore;
use crate::support::process::empty_folder;
use crate::support::{PATIENCE, now};

const JUMPS: [i64; 3] = [10, -15, 25];

/// Where Debian's package has the library, on any architecture.
fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut candidates = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1"));
    candidates.find(|library| library.exists()).unwrap_or_else(|| {
        ignore("there is no libfaketime.so.1 (Debian's package faketime)");
    })
}

/// The file that says how far the process's clock is off.
struct Offset(PathBuf);

impl Offset {
    fn new() -> Self {
        let offset = Self(empty_folder().join("offset"));
        offset.set(0);
        offset
    }

    fn set(&self, years: i64) {
        // Whoever looks sees the old or the new file, never half of it.
        let next = self.0.with_extension("next");
        fs::write(&next, format!("{years:+}y\n")).unwrap();
        fs::rename(&next, &self.0).unwrap();
    }

    fn script(&self, library: &std::path::Path) -> String {
        format!(
            "export LD_PRELOAD={} FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 DONT_FAKE_MONOTONIC=1 \
             FAKETIME_DONT_FAKE_MONOTONIC=1",
            library.display(),
            self.0.display()
        )
    }
}

/// The year in front of the last line.
fn year(log: &str) -> i64 {
    let line = log.lines().last().expect("a line");
    line.split('-').next().and_then(|year| year.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

pub(crate) fn a_clock_that_jumps_by_years_changes_nothing() {
    let library = library();
    let offset = Offset::new();
    let mut noray = Noray::start(
        &offset.script(&library),
        &["NORAY_UDP_RELAY_TIMEOUT=5s", "NORAY_UDP_RELAY_CLEANUP_INTERVAL=1s"],
    );
    let mut pair = Pair::join(&noray.process);
    let mut idle = noray.process.join();
    let mut half = noray.process.join();
    half.line.send_bytes(b"echo half");
    let begin = now();
    let today = year(&noray.log());

    for years in JUMPS {
        offset.set(years);
        // Days of leap years may lack at the turn of the year.
        let seen = year(&noray.log());
        assert!((seen - today - years).abs() <= 1, "{seen} instead of {today} {years:+}");
        println!("the log is in {seen}");
        pair.play();
        pair.settle();
        idle.line.settle();
        noray.process.join();
        assert_eq!(noray.metric("noray_relay_expired"), 0);
        assert_eq!(noray.metric("noray_connections_closed_total{reason=\"half-line\"}"), 0);
    }
    assert!(now() - begin < Duration::from_secs(5), "the jumps came too slowly to tell anything");

    half.line.stream().set_read_timeout(Some(2 * PATIENCE)).unwrap();
    assert_eq!(half.line.receive().unwrap(), "error half-line end every line within 10 s");
    let took = now() - begin;
    assert!((9..13).contains(&took.as_secs()), "{took:?}");
    noray.wait_for("noray_relay_expired", 1);
    idle.line.settle();
}
