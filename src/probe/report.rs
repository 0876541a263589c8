//! Probes nothing: what was seen, as text for a terminal and as JSON, and the verdict.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

/// How wide the text may be, in columns: what every terminal has.
const WIDTH: usize = 80;

/// Where the text behind the marks and names begins.
const INDENT: usize = 22;

/// A space at which [`wrap`] does not break.
const NO_BREAK: char = '\u{a0}';

/// A command as part of a remedy: it stays on one line, to be copied.
pub(super) fn command(text: &str) -> String {
    text.replace(' ', &NO_BREAK.to_string())
}

/// A part of the way that a game takes, in the order in which it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hop {
    /// The server's name becomes addresses.
    Name,
    /// TCP to the port for players.
    Connection,
    /// `register-host`, for a host and a client.
    Ids,
    /// Both register their external addresses.
    Registrar,
    /// `connect`: both are told the other's address.
    Addresses,
    /// `connect-relay`: both are told a port.
    RelayPorts,
    /// Datagrams there and back through these two ports.
    Relay,
    /// A sample of the other relay ports.
    Range,
    /// What the caller's own router does.
    Router,
}

impl Hop {
    /// All of them, in order.
    pub(crate) const ALL: [Self; 9] = [
        Self::Name,
        Self::Connection,
        Self::Ids,
        Self::Registrar,
        Self::Addresses,
        Self::RelayPorts,
        Self::Relay,
        Self::Range,
        Self::Router,
    ];

    /// As it is shown, and stands in the JSON.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Connection => "connection",
            Self::Ids => "ids",
            Self::Registrar => "registrar",
            Self::Addresses => "addresses",
            Self::RelayPorts => "relay ports",
            Self::Relay => "relay",
            Self::Range => "port range",
            Self::Router => "your router",
        }
    }

    /// What it means for a game that this hop failed.
    const fn without(self) -> &'static str {
        match self {
            Self::Name => "players cannot find the server by this name",
            Self::Connection => "players cannot connect to the server",
            Self::Ids => "players get no ids from what answers there",
            Self::Registrar => "players connect, but cannot register their address (UDP)",
            Self::Addresses => "players are not told each other's addresses",
            Self::RelayPorts => "players get no relay",
            Self::Relay | Self::Range => {
                "the relay carries nothing (only players who can punch through would meet)"
            }
            Self::Router => "this never fails",
        }
    }
}

/// How a hop went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
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
    const fn text(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }

    /// An ANSI escape for the colour.
    const fn colour(self) -> &'static str {
        match self {
            Self::Ok => "\x1b[32m",
            Self::Note => "\x1b[36m",
            Self::Warn => "\x1b[33m",
            Self::Fail => "\x1b[1;31m",
        }
    }
}

/// Whether marks have colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// For files and pipes.
    Plain,
    /// For terminals.
    Coloured,
}

/// One hop, tried.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Which one.
    pub(crate) hop: Hop,
    /// How it went.
    pub(crate) mark: Mark,
    /// What was seen.
    pub(crate) seen: String,
    /// What helps, a sentence or two each; mostly empty if nothing failed.
    pub(crate) remedies: Vec<String>,
    /// What a failure means for a game: the end of a sentence.
    pub(crate) meaning: &'static str,
    /// How long it took.
    pub(crate) took: Duration,
    /// The same for programs: an object.
    pub(crate) facts: Value,
}

impl Step {
    /// A hop that went well.
    pub(crate) fn ok(hop: Hop, seen: impl Into<String>) -> Self {
        Self {
            hop,
            mark: Mark::Ok,
            seen: seen.into(),
            remedies: Vec::new(),
            meaning: hop.without(),
            took: Duration::ZERO,
            facts: json!({}),
        }
    }

    /// A hop that did not, and what helps.
    pub(crate) fn fail(hop: Hop, seen: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { mark: Mark::Fail, ..Self::ok(hop, seen) }.and_remedy(remedy)
    }

    /// The same, with another meaning for a game than that the whole hop fails.
    pub(crate) fn meaning(self, meaning: &'static str) -> Self {
        Self { meaning, ..self }
    }

    /// The same with a mark.
    pub(crate) fn marked(self, mark: Mark) -> Self {
        Self { mark, ..self }
    }

    /// The same with one more remedy.
    pub(crate) fn and_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedies.push(remedy.into());
        self
    }

    /// The same with facts for programs.
    pub(crate) fn with_facts(self, facts: Value) -> Self {
        Self { facts, ..self }
    }

    /// For a terminal: some whole lines of at most 80 columns, but for words that are longer.
    pub(crate) fn text(&self, style: Style) -> String {
        let mark = match style {
            Style::Plain => format!("{:<4}", self.mark.text()),
            Style::Coloured => format!("{}{:<4}\x1b[0m", self.mark.colour(), self.mark.text()),
        };
        let name = self.hop.name();
        let mut text = format!("  {mark}  {name:<12}  ");
        wrap(&mut text, &format!("{}{}", self.seen, self.time()), INDENT);
        for remedy in &self.remedies {
            let _ = write!(text, "{:INDENT$}-> ", "");
            wrap(&mut text, remedy, INDENT + 3);
        }
        text
    }

    /// How long it took, where that says something of the way to the server.
    fn time(&self) -> String {
        let says_nothing = matches!(self.hop, Hop::Relay | Hop::Range | Hop::Router);
        if says_nothing || self.mark == Mark::Fail {
            return String::new();
        }
        let millis = self.took.as_secs_f64() * 1000.0;
        if millis < 9.95 {
            format!(" ({millis:.1}{NO_BREAK}ms)")
        } else if millis < 999.5 {
            format!(" ({millis:.0}{NO_BREAK}ms)")
        } else {
            format!(" ({:.1}{NO_BREAK}s)", millis / 1000.0)
        }
    }

    fn json(&self) -> Value {
        json!({
            "hop": self.hop.name(),
            "mark": self.mark.text(),
            "seen": self.seen,
            "remedies": self.remedies.iter().map(|text| text.replace(NO_BREAK, " ")).collect::<Vec<_>>(),
            "milliseconds": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            "facts": self.facts,
        })
    }
}

/// Whether a game would work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// For everybody.
    Works,
    /// For some players.
    Partly,
    /// It would fail at this hop, with this meaning.
    FailsAt(Hop, &'static str),
}

/// All hops that were tried.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    target: String,
    steps: Vec<Step>,
}

impl Report {
    /// What was seen at `target`, in order; at least one hop.
    pub(crate) fn new(target: String, steps: Vec<Step>) -> Self {
        Self { target, steps }
    }
    /// Whether a game would work.
    pub(crate) fn verdict(&self) -> Verdict {
        let is_partly = self.steps.iter().any(|step| step.mark == Mark::Warn);
        let failed = self.steps.iter().find(|step| step.mark == Mark::Fail);
        match failed {
            // The two ports of the first pair were silent, but others are not.
            Some(step) if is_partly && step.hop == Hop::Relay => Verdict::Partly,
            Some(step) => Verdict::FailsAt(step.hop, step.meaning),
            None if is_partly => Verdict::Partly,
            None => Verdict::Works,
        }
    }

    /// Whether a game would work for everybody.
    pub(crate) fn is_good(&self) -> bool {
        self.verdict() == Verdict::Works
    }

    fn verdict_text(&self) -> String {
        match self.verdict() {
            Verdict::Works => "A game would work.".to_owned(),
            Verdict::Partly => {
                "A game would work for some players only: a part of the relay ports is silent."
                    .to_owned()
            }
            Verdict::FailsAt(_, meaning) => format!("A game would NOT work: {meaning}."),
        }
    }

    fn not_tried(&self) -> Vec<&'static str> {
        let tried = |hop: &Hop| self.steps.iter().any(|step| step.hop == *hop);
        Hop::ALL.iter().filter(|hop| !tried(hop)).map(|hop| hop.name()).collect()
    }

    /// What stands behind the hops' lines: what was not tried, and the verdict.
    pub(crate) fn ending(&self, style: Style) -> String {
        let mut text = String::new();
        let not_tried = self.not_tried();
        if !not_tried.is_empty() {
            text.push_str("  --    ");
            wrap(&mut text, &format!("not tried: {}", not_tried.join(", ")), 8);
        }
        let (colour, end) = match (style, self.verdict()) {
            (Style::Plain, _) => ("", ""),
            (Style::Coloured, Verdict::Works) => ("\x1b[1;32m", "\x1b[0m"),
            (Style::Coloured, Verdict::Partly) => ("\x1b[1;33m", "\x1b[0m"),
            (Style::Coloured, Verdict::FailsAt(..)) => ("\x1b[1;31m", "\x1b[0m"),
        };
        let mut verdict = String::new();
        wrap(&mut verdict, &self.verdict_text(), 0);
        let _ = writeln!(text, "\n{colour}{}{end}", verdict.trim_end());
        text
    }

    /// One object, on several lines.
    pub(crate) fn json(&self) -> String {
        let steps: Vec<Value> = self.steps.iter().map(Step::json).collect();
        let report = json!({
            "target": self.target,
            "works": self.is_good(),
            "verdict": self.verdict_text(),
            "hops": steps,
            "not_tried": self.not_tried(),
        });
        format!("{report:#}\n")
    }
}

/// Appends `words` behind `indent` columns that are there already, in lines that end before [`WIDTH`].
fn wrap(text: &mut String, words: &str, indent: usize) {
    let mut column = indent;
    for (index, word) in words.split_ascii_whitespace().enumerate() {
        let length = word.chars().count();
        if index > 0 && column + 1 + length > WIDTH {
            let _ = write!(text, "\n{:indent$}", "");
            column = indent;
        } else if index > 0 {
            text.push(' ');
            column += 1;
        }
        text.extend(word.chars().map(|c| if c == NO_BREAK { ' ' } else { c }));
        column += length;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(marks: &[(Hop, Mark)]) -> Report {
        let steps = marks.iter().map(|(hop, mark)| Step::ok(*hop, "seen").marked(*mark));
        Report::new("a".to_owned(), steps.collect())
    }

    #[test]
    fn verdicts() {
        let fails_at = |hop: Hop| Verdict::FailsAt(hop, hop.without());
        let cases: [(&[(Hop, Mark)], Verdict); 6] = [
            (&[(Hop::Relay, Mark::Ok), (Hop::Router, Mark::Note)], Verdict::Works),
            (&[(Hop::Relay, Mark::Ok), (Hop::Range, Mark::Warn)], Verdict::Partly),
            (&[(Hop::Relay, Mark::Fail), (Hop::Range, Mark::Warn)], Verdict::Partly),
            (&[(Hop::Relay, Mark::Fail), (Hop::Range, Mark::Fail)], fails_at(Hop::Relay)),
            (&[(Hop::Relay, Mark::Ok), (Hop::Range, Mark::Fail)], fails_at(Hop::Range)),
            (&[(Hop::Name, Mark::Fail)], fails_at(Hop::Name)),
        ];
        for (marks, verdict) in cases {
            let report = report(marks);
            assert_eq!(report.verdict(), verdict, "{marks:?}");
            assert_eq!(report.is_good(), verdict == Verdict::Works);
            let json: Value = serde_json::from_str(&report.json()).unwrap();
            assert_eq!(json["works"], verdict == Verdict::Works);
            let shown = report.ending(Style::Plain).replace('\n', " ");
            assert!(shown.contains(json["verdict"].as_str().unwrap()), "{shown}");
        }
    }

    #[test]
    fn lines_are_aligned_and_at_most_80_columns() {
        let step = Step::fail(Hop::Registrar, "word ".repeat(40), "help ".repeat(40));
        let text = step.text(Style::Plain);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.len() <= WIDTH && line.trim_end() == *line), "{text}");
        assert!(lines[0].starts_with("  FAIL  registrar     word word"), "{text}");
        assert!(lines[1].starts_with(&format!("{:INDENT$}word", "")), "{text}");
        assert!(text.contains(&format!("\n{:INDENT$}-> help", "")), "{text}");
    }

    #[test]
    fn every_hop_has_a_name_that_fits() {
        for hop in Hop::ALL {
            assert!(hop.name().len() <= 12);
            assert!(Step::ok(hop, "x").text(Style::Plain).starts_with("  ok    "));
        }
    }

    #[test]
    fn colours_are_only_for_terminals() {
        let step = Step::ok(Hop::Name, "x");
        assert!(!step.text(Style::Plain).contains('\x1b'));
        assert!(step.text(Style::Coloured).contains("\x1b[32mok  \x1b[0m"));
        let colourless = step.text(Style::Coloured).replace("\x1b[32m", "").replace("\x1b[0m", "");
        assert_eq!(colourless, step.text(Style::Plain));
    }
}
