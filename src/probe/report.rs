//! What was found at each hop, and what it means for a game: as text for a terminal and as JSON.

use std::fmt::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use crate::terminal::{NO_BREAK, Screen, wrap};

/// Where the text behind the marks and names begins.
const INDENT: usize = 22;

/// A command as part of a remedy: it stays on one line, to be copied.
pub(super) fn command(text: &str) -> String {
    text.replace(' ', &NO_BREAK.to_string())
}

/// A time in milliseconds, rounded as text and JSON show it: to tenths below 10, to whole ones above.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Millis(pub(super) f64);

impl From<Duration> for Millis {
    fn from(time: Duration) -> Self {
        let millis = time.as_secs_f64() * 1000.0;
        let tenths = (millis * 10.0).round() / 10.0;
        Self(if tenths < 10.0 { tenths } else { millis.round() })
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(millis) = self;
        let decimals = if *millis < 10.0 { 1 } else { 0 };
        write!(f, "{millis:.decimals$}{NO_BREAK}ms")
    }
}

/// A part of the way that a game takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hop {
    Name,
    Connection,
    Ids,
    Registrar,
    Addresses,
    RelayPorts,
    Relay,
    Range,
    Router,
}

/// All hops in the order in which they are tried: the name in text and JSON, and what a failure means for a game.
const HOPS: [(Hop, &str, &str); 9] = [
    (Hop::Name, "name", "players cannot find the server by this name"),
    (Hop::Connection, "connection", "players cannot connect to the server"),
    (Hop::Ids, "ids", "players get no ids from what answers there"),
    (Hop::Registrar, "registrar", "players connect, but cannot register their address (UDP)"),
    (Hop::Addresses, "addresses", "players are not told each other's addresses"),
    (Hop::RelayPorts, "relay ports", "players get no relay"),
    (Hop::Relay, "relay", NO_RELAY),
    (Hop::Range, "port range", NO_RELAY),
    (Hop::Router, "your router", "this never fails"),
];

const NO_RELAY: &str = "the relay carries nothing (only players who can punch through would meet)";

/// How a hop went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// As a game needs it.
    Ok,
    /// As a game needs it, with something worth knowing.
    Note,
    /// Only some players would have what they need.
    Warn,
    /// A game would not work.
    Fail,
}

impl Mark {
    /// As it is shown, and the parameters of its colour's ANSI escape.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Ok => ("ok", "32"),
            Self::Note => ("note", "36"),
            Self::Warn => ("warn", "33"),
            Self::Fail => ("FAIL", "1;31"),
        }
    }
}

/// What was found at one hop.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) hop: Hop,
    pub(super) mark: Mark,
    /// In words.
    pub(super) seen: String,
    /// What helps, a sentence or two each; mostly empty if nothing failed.
    pub(super) remedies: Vec<String>,
    /// What a failure means for a game: the end of a sentence.
    pub(super) meaning: &'static str,
    /// How long the hop took.
    pub(super) took: Duration,
    /// The same for programs: an object.
    pub(super) facts: Value,
}

impl Finding {
    /// A hop that went well.
    pub(super) fn ok(hop: Hop, seen: impl Into<String>) -> Self {
        Self {
            hop,
            mark: Mark::Ok,
            seen: seen.into(),
            remedies: Vec::new(),
            meaning: HOPS[hop as usize].2,
            took: Duration::ZERO,
            facts: json!({}),
        }
    }

    /// A hop that failed, and what helps.
    pub(super) fn fail(hop: Hop, seen: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { mark: Mark::Fail, ..Self::ok(hop, seen) }.and_remedy(remedy)
    }

    /// The same with one more remedy.
    pub(super) fn and_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedies.push(remedy.into());
        self
    }

    /// The same with another mark.
    pub(super) fn marked(self, mark: Mark) -> Self {
        Self { mark, ..self }
    }

    /// The same with something worth knowing, and what helps.
    pub(super) fn note(self, remedy: impl Into<String>) -> Self {
        let mark = if self.mark == Mark::Ok { Mark::Note } else { self.mark };
        self.marked(mark).and_remedy(remedy)
    }

    /// The same with facts for programs.
    pub(super) fn with_facts(self, facts: Value) -> Self {
        Self { facts, ..self }
    }

    /// How long it took, where that says something about the way to the server.
    fn time(&self) -> String {
        let says_nothing = matches!(self.hop, Hop::Relay | Hop::Range | Hop::Router);
        if says_nothing || self.mark == Mark::Fail {
            return String::new();
        }
        format!(" ({})", Millis::from(self.took))
    }

    fn json(&self) -> Value {
        json!({
            "hop": HOPS[self.hop as usize].1,
            "mark": self.mark.words().0,
            "seen": self.seen.replace(NO_BREAK, " "),
            "remedies": self.remedies.iter().map(|text| text.replace(NO_BREAK, " ")).collect::<Vec<_>>(),
            "milliseconds": Millis::from(self.took).0,
            "facts": self.facts,
        })
    }
}

/// What was found at all hops that were tried, in their order.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// The server.
    pub(super) target: String,
    pub(super) findings: Vec<Finding>,
}

impl Report {
    /// Whether a game would work for everybody.
    pub(super) fn is_good(&self) -> bool {
        self.verdict().0 == Mark::Ok
    }

    /// What was seen where it failed first.
    pub(super) fn first_failure(&self) -> Option<&str> {
        let failed = self.findings.iter().find(|finding| finding.mark == Mark::Fail)?;
        Some(&failed.seen)
    }

    /// Whether a game would work: for everybody, for some (a warning) or not.
    fn verdict(&self) -> (Mark, String) {
        let is_partly = self.findings.iter().any(|finding| finding.mark == Mark::Warn);
        let failed = self.findings.iter().find(|finding| finding.mark == Mark::Fail);
        match failed {
            // If other relay ports answer, it does not matter that the first two are silent.
            Some(finding) if !(is_partly && finding.hop == Hop::Relay) => {
                (Mark::Fail, format!("A game would NOT work: {}.", finding.meaning))
            }
            _ if is_partly => (
                Mark::Warn,
                "A game would work for some players only: a part of the relay ports is silent."
                    .to_owned(),
            ),
            _ => (Mark::Ok, "A game would work.".to_owned()),
        }
    }

    fn not_tried(&self) -> Vec<&'static str> {
        let is_tried = |hop: Hop| self.findings.iter().any(|finding| finding.hop == hop);
        HOPS.iter().filter(|(hop, ..)| !is_tried(*hop)).map(|(_, name, _)| *name).collect()
    }

    /// One object, on several lines.
    pub(super) fn json(&self) -> String {
        let report = json!({
            "target": self.target,
            "works": self.is_good(),
            "verdict": self.verdict().1,
            "hops": self.findings.iter().map(Finding::json).collect::<Vec<_>>(),
            "not_tried": self.not_tried(),
        });
        format!("{report:#}\n")
    }
}

impl Screen {
    /// The lines of one hop.
    pub(super) fn finding(self, finding: &Finding) -> String {
        let (mark, colour) = finding.mark.words();
        let mark = self.paint(colour, &format!("{mark:<4}"));
        let mut text = format!("  {mark}  {:<12}  ", HOPS[finding.hop as usize].1);
        wrap(&mut text, &format!("{}{}", finding.seen, finding.time()), INDENT);
        for remedy in &finding.remedies {
            let _ = write!(text, "{:INDENT$}-> ", "");
            wrap(&mut text, remedy, INDENT + 3);
        }
        text
    }

    /// What stands behind the hops' lines: what was not tried, and the verdict.
    pub(super) fn ending(self, report: &Report) -> String {
        let mut text = String::new();
        let not_tried = report.not_tried();
        if !not_tried.is_empty() {
            text.push_str("  --    ");
            wrap(&mut text, &format!("not tried: {}", not_tried.join(", ")), 8);
        }
        let (mark, words) = report.verdict();
        let mut verdict = String::new();
        wrap(&mut verdict, &words, 0);
        let bold = format!("1;{}", mark.words().1);
        let _ = writeln!(text, "\n{}", self.paint(&bold, verdict.trim_end()));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::WIDTH;

    const PLAIN: Screen = Screen { has_colours: false };
    const COLOURED: Screen = Screen { has_colours: true };

    #[test]
    fn verdicts() {
        let cases = [
            (vec![(Hop::Relay, Mark::Ok), (Hop::Router, Mark::Note)], Mark::Ok, "would work."),
            (
                vec![(Hop::Relay, Mark::Ok), (Hop::Range, Mark::Warn)],
                Mark::Warn,
                "some players only",
            ),
            (vec![(Hop::Relay, Mark::Fail), (Hop::Range, Mark::Warn)], Mark::Warn, "some players"),
            (
                vec![(Hop::Relay, Mark::Fail), (Hop::Range, Mark::Fail)],
                Mark::Fail,
                "carries nothing",
            ),
            (vec![(Hop::Relay, Mark::Ok), (Hop::Range, Mark::Fail)], Mark::Fail, "carries nothing"),
            (vec![(Hop::Name, Mark::Fail)], Mark::Fail, "NOT work: players cannot find the server"),
        ];
        for (marks, mark, words) in cases {
            let found =
                |(hop, mark): &(Hop, Mark)| Finding { mark: *mark, ..Finding::ok(*hop, "seen") };
            let findings = marks.iter().map(found).collect();
            let report = Report { target: "a".to_owned(), findings };
            let (verdict, text) = report.verdict();
            assert_eq!(verdict, mark, "{marks:?}");
            assert!(text.contains(words), "{text}");
            assert_eq!(report.is_good(), mark == Mark::Ok);
            let json: Value = serde_json::from_str(&report.json()).unwrap();
            assert_eq!(json["works"], mark == Mark::Ok);
            assert_eq!(json["verdict"], text);
            let shown = PLAIN.ending(&report).replace('\n', " ");
            assert!(shown.contains(&text), "{shown}");
        }
    }

    #[test]
    fn lines_are_aligned_and_at_most_80_columns() {
        let finding = Finding::fail(Hop::Registrar, "word ".repeat(40), "help ".repeat(40));
        let text = PLAIN.finding(&finding);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.len() <= WIDTH && line.trim_end() == *line), "{text}");
        assert!(lines[0].starts_with("  FAIL  registrar     word word"), "{text}");
        assert!(lines[1].starts_with(&format!("{:INDENT$}word", "")), "{text}");
        assert!(text.contains(&format!("\n{:INDENT$}-> help", "")), "{text}");
    }

    #[test]
    fn every_hop_stands_at_its_index_and_has_a_name_that_fits() {
        for (index, (hop, name, _)) in HOPS.into_iter().enumerate() {
            assert_eq!(hop as usize, index);
            assert!(name.len() <= 12);
        }
    }

    #[test]
    fn times_are_alike_in_text_and_json() {
        let cases = [
            (0, "0.0"),
            (40, "0.0"),
            (612, "0.6"),
            (9_949, "9.9"),
            (9_951, "10"),
            (12_345, "12"),
            (1_234_567, "1235"),
        ];
        for (micros, shown) in cases {
            let took = Duration::from_micros(micros);
            let finding = Finding { took, ..Finding::ok(Hop::Name, "x") };
            let text = PLAIN.finding(&finding);
            assert!(text.ends_with(&format!("x ({shown} ms)\n")), "{text}");
            let json = finding.json()["milliseconds"].as_f64().unwrap();
            assert_eq!(shown.parse(), Ok(json), "{micros}");
        }
    }

    #[test]
    fn colours_are_only_for_terminals() {
        let finding = Finding::ok(Hop::Name, "x");
        let coloured = COLOURED.finding(&finding);
        assert!(coloured.contains("\x1b[32mok  \x1b[0m"));
        let colourless = coloured.replace("\x1b[32m", "").replace("\x1b[0m", "");
        assert_eq!(colourless, PLAIN.finding(&finding));
    }
}
