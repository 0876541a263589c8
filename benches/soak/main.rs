//! Players who join, punch, relay, misbehave and leave at random, for as long as one likes: `cargo bench --bench soak`
//! for three minutes, `cargo bench --bench soak -- 60` for sixty.
//!
//! Every datagram that arrives is checked, every one that does not is accounted for, and whenever all players have left,
//! the server must be where it was: its threads, files, relays and tables. It panics otherwise.

#![expect(clippy::disallowed_methods, reason = "a bench takes the time")]

mod game;
mod levels;
mod loiter;
mod mischief;
#[path = "../support/mod.rs"]
mod support;
mod tally;

use std::time::{Duration, Instant};

use fastrand::Rng;
use levels::Levels;
use support::{prepare_machine, start_noray};
use tally::Tally;

/// How many do something at the same time.
const WORKERS: u64 = 32;

/// After how long all leave, so that what they left behind can be seen. Those who loiter are sent away half a minute
/// later, so a round takes a minute and a half.
const ROUND: Duration = Duration::from_secs(60);

/// How many sessions a run of three minutes must have at the least; a shorter one as many in proportion.
const MIN_SESSIONS: u64 = 100_000;

/// Relays end soon, so that many fit into a run. The rate lets a game pass and stops a flood.
const SETTINGS: [&str; 7] = [
    "NORAY_UDP_RELAY_TIMEOUT=2s",
    "NORAY_UDP_RELAY_CLEANUP_INTERVAL=1s",
    "NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC=1mb",
    "NORAY_UDP_RELAY_MAX_PER_IP=4096",
    "NORAY_UDP_RELAY_PORTS=49152-57343",
    "NORAY_RESUME_WINDOW=1s",
    "NORAY_LOGLEVEL=debug",
];

fn main() {
    let minutes: u64 = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(3);
    prepare_machine();
    let (noray, _) = start_noray(&SETTINGS);
    let tally = Tally::default();
    let fresh = Levels::at_rest(&noray);
    let columns = ["min", "sessions", "relayed", "dropped", "overflowed"];
    println!("{} {}", columns.map(|column| format!("{column:>10}")).concat(), Levels::HEADING);
    println!("{:>50} {fresh}", "0");
    let start = Instant::now();
    let mut after_first = None;
    for round in 0..(2 * minutes).div_ceil(3) {
        play(round, &tally);
        let levels = Levels::back_at(&noray, &fresh);
        let [dropped, overflows] = tally.check(&levels);
        let minutes = start.elapsed().as_secs_f64() / 60.0;
        let (sessions, relayed) = (tally.sessions.value(), tally.relayed.value());
        println!("{minutes:>10.1}{sessions:>10}{relayed:>10}{dropped:>10}{overflows:>10} {levels}");
        levels.is_back_at(&fresh).expect("everybody has left");
        levels.must_have_grown_no_more_than(after_first.get_or_insert(levels.clone()), round);
    }
    let sessions = tally.sessions.value();
    println!("\n{sessions} sessions, by what they did:\n{tally}");
    assert!(sessions >= MIN_SESSIONS * minutes.min(3) / 3, "too few: {sessions}");
}

/// All play for a while, and leave.
fn play(round: u64, tally: &Tally) {
    let end = Instant::now() + ROUND;
    let loiterers = loiter::Place::open();
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let loiterers = loiterers.clone();
            scope.spawn(move || {
                let mut random = Rng::with_seed(round * WORKERS + worker);
                while Instant::now() < end {
                    match random.u8(..10) {
                        0..7 => game::play(&mut random, tally),
                        _ => mischief::act(&mut random, &loiterers, tally),
                    }
                }
            });
        }
    });
    loiterers.wait_until_all_are_sent_away();
}
