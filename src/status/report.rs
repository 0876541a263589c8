//! What a server says about itself, as text for a terminal.

use std::fmt::Write;
use std::net::SocketAddr;

use noray::operation::status::Status;

use super::words::{bytes, date, grouped, long_time, rate, short_time};
use crate::terminal::{Screen, copyable, printable, wrap};

/// Where the text behind the names begins.
const INDENT: usize = 16;

const BOLD: &str = "1";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "1;31";

/// Two readings of the status of one server.
#[derive(Debug)]
pub(super) struct Readings {
    /// The earlier one, if there is one.
    pub(super) before: Option<Status>,
    pub(super) now: Status,
}

impl Readings {
    /// The earlier one and the seconds since then, by the server's clock; `None` if the server was started in between.
    fn interval(&self) -> Option<(&Status, f64)> {
        let before = self.before.as_ref()?;
        let seconds = self.now.uptime_seconds - before.uptime_seconds;
        (seconds > 0.0).then_some((before, seconds))
    }

    /// How fast a counter has grown, for each second.
    fn per_second(&self, counter: impl Fn(&Status) -> u64) -> Option<f64> {
        let (before, seconds) = self.interval()?;
        Some(counter(&self.now).saturating_sub(counter(before)) as f64 / seconds)
    }

    fn rate(&self, counter: impl Fn(&Status) -> u64) -> String {
        self.per_second(counter).map_or("?".to_owned(), rate)
    }
}

fn dropped(status: &Status, reason: &str) -> u64 {
    let found = status.dropped.iter().find(|dropped| dropped.reason == reason);
    found.map_or(0, |dropped| dropped.datagrams)
}

fn reached(status: &Status, bound: &str) -> u64 {
    let found = status.bounds_reached.iter().find(|reached| reached.bound == bound);
    found.map_or(0, |reached| reached.times)
}

impl Screen {
    /// Everything that the server at `address` says.
    pub(super) fn status(self, address: SocketAddr, readings: &Readings) -> String {
        let mut text = self.head(address, &readings.now);
        text.push_str(&figures(readings));
        text.push_str(&self.drops(readings));
        text.push_str(&self.bounds(readings));
        text.push_str(&self.warnings(&readings.now));
        text
    }

    /// That the server does not answer any more.
    pub(super) fn silence(self, address: SocketAddr, seconds: u64, why: &str) -> String {
        let mut text = String::new();
        let since = long_time(seconds);
        wrap(&mut text, &format!("noray at {address} has not answered for {since}: {why}"), 0);
        self.paint(RED, text.trim_end()) + "\n"
    }

    /// The text in the place of what the screen showed before; in a file, behind it.
    pub(super) fn again(self, text: &str) -> String {
        if self.has_colours {
            // From the corner on, each line is overwritten to its end; then all below it goes.
            format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
        } else {
            format!("{text}\n")
        }
    }

    fn head(self, address: SocketAddr, status: &Status) -> String {
        let state = match &status.not_ready {
            None => self.paint(GREEN, "ready"),
            Some(why) => self.paint(RED, &format!("NOT READY: {}", printable(why))),
        };
        let started = status.started.map(|started| format!(", since {}", date(started)));
        format!(
            "noray {} at {address}: {state}\nup {}{}\n\n",
            printable(&status.version),
            long_time(status.uptime_seconds as u64),
            started.unwrap_or_default()
        )
    }

    fn drops(self, readings: &Readings) -> String {
        if readings.now.dropped.is_empty() {
            return String::new();
        }
        let mut text = format!("\n{}\n", self.paint(BOLD, "Dropped"));
        for dropped_now in &readings.now.dropped {
            let reason = printable(&dropped_now.reason);
            let rate = readings.rate(|status| dropped(status, &dropped_now.reason));
            let count = grouped(dropped_now.datagrams);
            let _ = writeln!(text, "  {reason}: {count} datagrams, {rate} a second");
            text.push_str("      ");
            wrap(&mut text, &printable(&dropped_now.meaning), 6);
            if let Some(remedy) = &dropped_now.remedy {
                text.push_str("      -> ");
                wrap(&mut text, &printable(remedy), 9);
            }
        }
        text
    }

    fn bounds(self, readings: &Readings) -> String {
        if readings.now.bounds_reached.is_empty() {
            return String::new();
        }
        let mut text = format!("\n{}\n", self.paint(BOLD, "Limits reached"));
        for reached_now in &readings.now.bounds_reached {
            let bound = printable(&reached_now.bound);
            let rate = readings.rate(|status| reached(status, &reached_now.bound));
            let times = grouped(reached_now.times);
            let _ = writeln!(text, "  {bound}: refused {times} times, {rate} a second");
            text.push_str("      ");
            wrap(&mut text, &printable(&reached_now.meaning), 6);
        }
        text
    }

    fn warnings(self, status: &Status) -> String {
        if status.warnings.is_empty() && !status.has_reload_failed {
            return String::new();
        }
        let mut text = format!("\n{}\n", self.paint(YELLOW, "Warnings"));
        if status.has_reload_failed {
            text.push_str("  ");
            wrap(&mut text, "The last reload failed; the configuration before it is in force.", 2);
        }
        for warning in &status.warnings {
            let urgency = if warning.level == "error" { "ERROR, " } else { "" };
            let ago = long_time(warning.seconds_ago);
            let times = match warning.times {
                0 | 1 => String::new(),
                times => format!(", {} times", grouped(times)),
            };
            let _ = writeln!(text, "  {urgency}{ago} ago{times}");
            text.push_str("      ");
            wrap(&mut text, &copyable(&printable(&warning.text)), 6);
        }
        text
    }
}

/// The lines that are always there.
fn figures(readings: &Readings) -> String {
    let now = &readings.now;
    let (players, ports, registrar) = (&now.players, &now.relay_ports, &now.registrar);
    let mut ports_in_words =
        format!("{} in use, {} reserved, {} free", ports.in_use, ports.reserved, ports.free);
    if ports.unbindable > 0 {
        let _ = write!(ports_in_words, ", {} could not be bound", ports.unbindable);
    }
    let speed = readings.per_second(|status| status.relayed.bytes);
    let lines = [
        (
            "players",
            format!(
                "{} connected of {} possible, {} registered, {} away",
                players.connected, players.max_connected, players.registered, players.away
            ),
        ),
        (
            "registrar",
            format!(
                "{} addresses set, {} repeated, {} datagrams refused",
                grouped(registrar.set),
                grouped(registrar.repeated),
                grouped(registrar.refused)
            ),
        ),
        ("pairs", now.pairs.to_string()),
        ("relay ports", ports_in_words),
        (
            "relayed",
            format!(
                "{} datagrams a second, {} a second; in all {} datagrams, {}",
                readings.rate(|status| status.relayed.datagrams),
                speed.map_or("?".to_owned(), bytes),
                grouped(now.relayed.datagrams),
                bytes(now.relayed.bytes as f64)
            ),
        ),
        ("path", path(readings)),
        (
            "dropped",
            format!(
                "{} datagrams a second",
                readings.rate(|status| status.dropped.iter().map(|drop| drop.datagrams).sum())
            ),
        ),
        ("loop", loop_turns(readings)),
    ];
    let mut text = String::new();
    for (name, words) in lines {
        let _ = write!(text, "  {name:<12}  ");
        wrap(&mut text, &words, INDENT);
    }
    text
}

/// Who relays.
fn path(readings: &Readings) -> String {
    let kernel = &readings.now.kernel_path;
    if !kernel.is_open {
        return "all through noray's sockets".to_owned();
    }
    format!(
        "the kernel relays {} of the pairs itself: {} datagrams a second, in all {}",
        grouped(kernel.pairs),
        readings.rate(|status| status.kernel_path.datagrams),
        grouped(kernel.datagrams)
    )
}

/// How long the event loop's turns took since the reading before.
fn loop_turns(readings: &Readings) -> String {
    let Some((before, _)) = readings.interval() else { return "?".to_owned() };
    let before = &before.loop_turns;
    let now = &readings.now.loop_turns;
    let mut turns = 0;
    let mut longest = None;
    for (index, count) in now.counts.iter().enumerate() {
        let earlier = before.counts.get(index).map_or(0, |count| count.turns);
        let new = count.turns.saturating_sub(earlier);
        turns += new;
        if new > 0 {
            longest = Some(count.up_to_seconds);
        }
    }
    let mean = short_time((now.seconds - before.seconds).max(0.0) / turns as f64);
    match longest {
        None => "no turn in the last second".to_owned(),
        Some(Some(bound)) => {
            format!("a turn takes {mean} on average, {} at most", short_time(bound))
        }
        Some(None) => format!("a turn takes {mean} on average, the longest more than a second"),
    }
}

#[cfg(test)]
mod tests {
    use noray::operation::status::{
        BoundReached, Dropped, KernelPath, LoopTurns, Players, Relayed, TurnCount, Warning,
    };

    use super::*;
    use crate::terminal::WIDTH;

    const PLAIN: Screen = Screen { has_colours: false };

    fn address() -> SocketAddr {
        "127.0.0.1:8891".parse().unwrap()
    }

    fn dropped(datagrams: u64) -> Dropped {
        Dropped {
            reason: "pair-bandwidth".to_owned(),
            datagrams,
            meaning: "it is over a limit ".repeat(8),
            remedy: Some("raise it".to_owned()),
        }
    }

    fn turns(few: u64, long: u64, seconds: f64) -> LoopTurns {
        let count = |up_to_seconds, turns| TurnCount { up_to_seconds, turns };
        LoopTurns { seconds, counts: vec![count(Some(1e-5), few), count(Some(0.001), long)] }
    }

    fn readings() -> Readings {
        let before = Status {
            version: "1.2.3".to_owned(),
            uptime_seconds: 100.0,
            relayed: Relayed { datagrams: 1000, bytes: 100_000 },
            dropped: vec![dropped(5)],
            loop_turns: turns(100, 0, 0.1),
            ..Status::default()
        };
        let now = Status {
            uptime_seconds: 102.0,
            started: Some(0),
            players: Players { connected: 4, registered: 3, away: 1, max_connected: 4096 },
            relayed: Relayed { datagrams: 3000, bytes: 304_800 },
            kernel_path: KernelPath { is_open: true, pairs: 2, datagrams: 1200 },
            dropped: vec![dropped(25)],
            bounds_reached: vec![BoundReached {
                bound: "commands".to_owned(),
                times: 8,
                meaning: "too many".to_owned(),
            }],
            loop_turns: turns(109, 1, 0.1005),
            warnings: vec![Warning {
                level: "warn".to_owned(),
                text: "look \x1b[2J here: keep the ports free by \
                       `sysctl -w net.ipv4.ip_local_reserved_ports=49152-51200`"
                    .to_owned(),
                times: 3,
                seconds_ago: 65,
            }],
            ..before.clone()
        };
        Readings { before: Some(before), now }
    }

    #[test]
    fn rates_are_those_between_the_readings() {
        let text = PLAIN.status(address(), &readings());
        for words in [
            "noray 1.2.3 at 127.0.0.1:8891: ready\nup 1 min 42 s, since 1970-01-01 00:00 UTC\n",
            "players       4 connected of 4096 possible, 3 registered, 1 away\n",
            "relayed       1,000 datagrams a second, 100 kB a second;",
            "path          the kernel relays 2 of the pairs itself: 600 datagrams a second,\n",
            "pair-bandwidth: 25 datagrams, 10 a second\n",
            "-> raise it\n",
            "commands: refused 8 times, 4.0 a second\n      too many\n",
            "loop          a turn takes 50 us on average, 1 ms at most\n",
            "  1 min 5 s ago, 3 times\n      look \u{fffd}[2J here: ",
            "\n      `sysctl -w net.ipv4.ip_local_reserved_ports=49152-51200`\n",
        ] {
            assert!(text.contains(words), "{words} in\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }

    #[test]
    fn a_restart_between_the_readings_shows_no_rate() {
        let mut readings = readings();
        readings.now.uptime_seconds = 1.0;
        let text = PLAIN.status(address(), &readings);
        assert!(text.contains("relayed       ? datagrams a second"), "{text}");
        assert!(text.contains("loop          ?\n"), "{text}");
    }

    #[test]
    fn a_server_without_the_kernels_path_says_so() {
        let mut readings = readings();
        readings.now.kernel_path = KernelPath::default();
        let text = PLAIN.status(address(), &readings);
        assert!(text.contains("path          all through noray's sockets\n"), "{text}");
    }

    #[test]
    fn what_is_not_ready_and_what_does_not_answer_is_said() {
        let mut readings = readings();
        readings.now.not_ready = Some("no port".to_owned());
        readings.now.has_reload_failed = true;
        let text = PLAIN.status(address(), &readings);
        assert!(text.contains(": NOT READY: no port\n"), "{text}");
        assert!(text.contains("The last reload failed"), "{text}");
        let silence = PLAIN.silence(address(), 61, "why");
        assert_eq!(silence, "noray at 127.0.0.1:8891 has not answered for 1 min 1 s: why\n");
    }

    #[test]
    fn a_terminal_is_overwritten_and_a_file_is_not() {
        let coloured = Screen { has_colours: true };
        assert_eq!(coloured.again("a\nb\n"), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
        assert_eq!(PLAIN.again("a\n"), "a\n\n");
    }
}
