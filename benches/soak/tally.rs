//! What the players did, and what must have become of it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::levels::Levels;

/// A number that all add to.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
pub(crate) struct Tally {
    /// Players who joined or only connected.
    pub(crate) sessions: Count,
    pub(crate) punched: Count,
    /// Datagrams that arrived through a relay, and were right.
    pub(crate) relayed: Count,
    pub(crate) moved: Count,
    pub(crate) resumed: Count,
    /// Sent to relay ports, by whomever.
    pub(crate) sent: Count,
    /// Of them, by those who are nobody's partner.
    pub(crate) strays: Count,
    /// Of them, in floods, and what of these did not arrive.
    pub(crate) floods: Count,
    pub(crate) lost_in_floods: Count,
    /// Of them, beyond what an address gets that was not heard.
    pub(crate) lost_unheard: Count,
    pub(crate) misbehaved: Count,
    pub(crate) loitered: Count,
}

impl Tally {
    /// Holds what the server counted against what was done: how many datagrams were dropped, and how many did not fit
    /// into a socket's buffer. What both explain is all that did not arrive.
    pub(crate) fn check(&self, levels: &Levels) -> [u64; 2] {
        let dropped =
            |reason: &str| levels.metric(&format!("noray_relay_drop_count{{reason=\"{reason}\"}}"));
        let overflows = levels.metric("noray_machine_udp_overflows_total");
        let is_explained = |explained: u64, counted: u64, what: &str| {
            let range = counted..=counted + overflows;
            assert!(
                range.contains(&explained),
                "{what}: did {explained}, the server counts {range:?}"
            );
        };
        let strays = dropped("no-pair") + dropped("wrong-ip");
        is_explained(self.strays.value(), strays, "strays");
        is_explained(self.lost_in_floods.value(), dropped("pair-bandwidth"), "floods");
        is_explained(self.lost_unheard.value(), dropped("receiver-unheard"), "unheard");
        let all: u64 = levels.metrics_that_start("noray_relay_drop_count{").sum();
        let explained = strays + dropped("pair-bandwidth") + dropped("receiver-unheard");
        assert_eq!(all, explained, "drops for other reasons");
        let forwarded = levels.metric("noray_relay_datagrams_total");
        is_explained(self.sent.value(), forwarded + all, "all that was sent");
        [explained, overflows]
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = [
            ("joined or only connected", &self.sessions),
            ("punched through", &self.punched),
            ("moved to another socket", &self.moved),
            ("came back after a broken connection", &self.resumed),
            ("datagrams sent to relays", &self.sent),
            ("relayed datagrams checked", &self.relayed),
            ("strays", &self.strays),
            ("floods", &self.floods),
            ("lost in floods", &self.lost_in_floods),
            ("lost for want of an answer", &self.lost_unheard),
            ("misbehaved", &self.misbehaved),
            ("loitered", &self.loitered),
        ];
        lines.iter().try_for_each(|(what, count)| writeln!(f, "{:>10} {what}", count.value()))
    }
}
