//! How fast a world is, on one core: 200 players, without strangers.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::world::net::Line;
use crate::world::plan::{Family, Plan, PlayerPlan, Role, Site, Way};
use crate::world::router::RouterKind;
use crate::world::{Outcome, play};

/// How many games there are, and how many play each.
const GAMES: u16 = 50;
const PLAYERS: u16 = 4;

/// How long they play, in simulated seconds.
const PLAY_S: u16 = 60;

/// Prints how much faster than real time the world is, for several games.
pub(crate) fn measure() {
    println!("200 players in {GAMES} games of {PLAYERS}, all by relay:");
    for (name, rate, playing) in [
        ("60 datagrams a second to each", 60, GAMES),
        ("30 datagrams a second to each", 30, GAMES),
        ("20 datagrams a second to each", 20, GAMES),
        ("30 datagrams a second, half of them in lobbies", 30, GAMES / 2),
    ] {
        let plan = games(rate, playing);
        let start = processor_seconds();
        let outcome = play(&plan);
        assert_eq!(outcome.violation, None);
        tell(name, &outcome, processor_seconds() - start);
    }
}

/// What this process has used of a processor: others on the machine matter less then.
fn processor_seconds() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("every system tells");
    (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6
}

fn tell(name: &str, outcome: &Outcome, seconds: f64) {
    let simulated = f64::from(PLAY_S);
    let forwarded = outcome.coverage.forwarded as f64;
    println!(
        "  {name}: {:.0} times real time, {:.0} relayed datagrams and {:.0} events a second",
        simulated / seconds,
        forwarded / seconds,
        outcome.events as f64 / seconds,
    );
}

/// The first `playing` games play, and the players of the others wait for them to begin.
fn games(rate: u16, playing: u16) -> Plan {
    let config = vec!["NORAY_UDP_RELAY_PORTS=50000-50499".to_owned()];
    let seconds = u32::from(PLAY_S) + 10;
    let (sites, players, strangers, acts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut plan = Plan { seed: 1, config, seconds, sites, players, strangers, acts };
    for number in 0..GAMES * PLAYERS {
        let game = number / PLAYERS;
        let is_host = number % PLAYERS == 0 || game >= playing;
        let role = if is_host { Role::Host } else { Role::Client(game * PLAYERS) };
        let kind = if number % 2 == 0 { RouterKind::Home } else { RouterKind::Symmetric };
        let line = Line { delay_ms: 20, jitter_ms: 10, loss: 5, duplicates: 5, late: 10 };
        plan.sites.push(Site { id: number, kind, ipv4: 1, ipv6: None, timeout_s: 60, line });
        plan.players.push(PlayerPlan {
            id: number,
            site: number,
            family: Family::V4,
            start_ms: u32::from(number) * 5,
            role,
            way: Way::Relay,
            rate,
            size: 100,
            play_s: if is_host { PLAY_S + 5 } else { PLAY_S },
            hangs_up: false,
            in_pieces: false,
            writes_freely: false,
            breaks: None,
        });
    }
    plan
}
