//! Tries no port: how those that answered and those that did not divide a range.

use std::collections::BTreeMap;

use noray::config::units::PortList;

/// Of so many stretches at most the ends are shown; ports that alternate more than that are listed one by one.
const MAX_STRETCHES: usize = 4;

/// How many ports of a list are shown.
const MAX_LISTED: usize = 12;

/// What is said about ports of which some answered and some did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Division {
    /// For instance `49170-50012 answer, 50040-51190 do not`.
    pub(super) seen: String,
    /// What it looks like.
    pub(super) remedy: String,
}

/// How `tried` ports, each with whether it answered, divide `range`.
pub(super) fn divide(tried: &BTreeMap<u16, bool>, range: &PortList) -> Division {
    let ports: Vec<(u16, bool)> = tried.iter().map(|(port, answers)| (*port, *answers)).collect();
    let stretches: Vec<&[(u16, bool)]> = ports.chunk_by(|a, b| a.1 == b.1).collect();
    if stretches.len() <= MAX_STRETCHES {
        let shown: Vec<String> = stretches.iter().map(|stretch| show(stretch)).collect();
        let remedy = format!(
            "The firewall is open for a part of the relay ports only. Open all of {range}/udp, in the \
             server's firewall and in the provider's."
        );
        return Division { seen: shown.join(", "), remedy };
    }
    let list = |wanted| list(ports.iter().filter(|(_, answers)| *answers == wanted).map(|p| p.0));
    let remedy = format!(
        "Single ports between others are silent. Do other programs have them (the warning at the \
         server's start names them), or do the firewalls list ports one by one? All of {range}/udp \
         must be open. A line that loses much looks the same: probe again."
    );
    Division {
        seen: format!("these answer: {}; these do not: {}", list(true), list(false)),
        remedy,
    }
}

fn show(stretch: &[(u16, bool)]) -> String {
    let (Some((first, answers)), Some((last, _))) = (stretch.first(), stretch.last()) else {
        return String::new();
    };
    let ports = if first == last { first.to_string() } else { format!("{first}-{last}") };
    let verb = match (answers, first == last) {
        (true, false) => "answer",
        (true, true) => "answers",
        (false, false) => "do not",
        (false, true) => "does not",
    };
    format!("{ports} {verb}")
}

fn list(ports: impl Iterator<Item = u16>) -> String {
    let ports: Vec<u16> = ports.collect();
    let shown: Vec<String> = ports.iter().take(MAX_LISTED).map(ToString::to_string).collect();
    let more = ports.len() - shown.len();
    let end = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{end}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(tried: &[(u16, bool)]) -> String {
        divide(&tried.iter().copied().collect(), &(100..=199).collect()).seen
    }

    #[test]
    fn stretches_are_shown_by_their_ends() {
        let (yes, no) = (true, false);
        let cases: [(&[(u16, bool)], &str); 4] = [
            (&[(100, yes), (120, yes), (150, no), (190, no)], "100-120 answer, 150-190 do not"),
            (&[(100, no), (150, yes), (190, yes)], "100 does not, 150-190 answer"),
            (
                &[(1, yes), (2, no), (3, yes), (4, no), (5, yes)],
                "these answer: 1, 3, 5; these do not: 2, 4",
            ),
            (&[], ""),
        ];
        for (tried, text) in cases {
            assert_eq!(seen(tried), text);
        }
    }

    #[test]
    fn long_lists_are_cut() {
        let tried: Vec<(u16, bool)> = (100..160).map(|port| (port, port % 2 == 0)).collect();
        assert!(
            seen(&tried).contains(", 122 and 18 more; these do not: 101, "),
            "{}",
            seen(&tried)
        );
    }

    #[test]
    fn the_remedy_names_the_range() {
        let division = divide(&[(100, true), (101, false)].into(), &(100..=199).collect());
        assert!(division.remedy.contains("100-199/udp"), "{}", division.remedy);
    }
}
