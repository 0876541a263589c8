//! That the server is no weapon: nobody is sent what nobody there asked for.

use std::collections::{BTreeMap, HashSet};

use super::{Judge, shown};
use crate::world::net::{Addr, Datagram, SECOND, Time};
use crate::world::router::Fast;

/// What a relay may send to an address that was never heard, in a pair's life.
pub(super) const ALLOWANCE: u64 = 64 * 1024;

/// What came from an address that somebody forges, and what was sent there.
#[derive(Default)]
struct Victim {
    received: u64,
    sent: u64,
    pairs: u64,
    /// When a forged datagram from it last came to a pair.
    alive: Option<Time>,
}

#[derive(Default)]
pub(super) struct Weapons {
    victims: BTreeMap<Addr, Victim>,
    /// Addresses from which their owners sent something to the server, by [`Addr::key`].
    owned: HashSet<u64, Fast>,
}

impl Weapons {
    /// A server that starts knows of no pair, and of nobody that was heard.
    pub(super) fn forget_pairs(&mut self) {
        for victim in self.victims.values_mut() {
            *victim = Victim::default();
        }
    }
}

impl Judge {
    /// Somebody forges that source.
    pub fn note_forged(&mut self, from: Addr) {
        self.weapons.victims.entry(from).or_default();
    }

    /// A pair more may send its allowance to that address.
    pub(super) fn allow_to(&mut self, address: Addr) {
        if let Some(victim) = self.weapons.victims.get_mut(&address) {
            victim.pairs += 1;
            if victim.alive.take().is_some() {
                // What was sent in earlier pairs, while it was forged, is no debt of the new one. Pairs that live may send
                // the rest of their allowance.
                victim.received = victim.received.max(victim.sent);
            }
        }
    }

    /// The pair of these players may have ended and begun anew, with its allowances.
    pub(super) fn allow_more(&mut self, players: [usize; 2]) {
        for player in players {
            for address in &self.ids.players[player].addresses {
                if let Some(victim) = self.weapons.victims.get_mut(address) {
                    victim.pairs += 1;
                }
            }
        }
    }

    pub(super) fn came_from(&mut self, datagram: &Datagram, now: Time) {
        if !datagram.is_forged {
            self.weapons.owned.insert(datagram.from.key().into());
        }
        if self.weapons.victims.is_empty() {
            return;
        }
        // A late one to a port of a pair that is over does not count.
        let has_pair = self.has_pair(datagram.to.port);
        if let Some(victim) = self.weapons.victims.get_mut(&datagram.from) {
            victim.received += u64::from(datagram.length);
            if has_pair {
                victim.alive = Some(now);
            }
        }
    }

    pub(super) fn sent_to(&mut self, to: Addr, length: usize, by_relay: bool, now: Time) {
        if self.weapons.owned.contains(&to.key().into()) {
            return;
        }
        let idle = self.promises.idle;
        let Some(victim) = self.weapons.victims.get_mut(&to) else {
            let what = shown(&self.ips, to);
            return self.accuse("nobody is sent anything unasked", now, what);
        };
        victim.sent += length as u64;
        let is_over = victim.sent > victim.received + ALLOWANCE * victim.pairs;
        let alive = victim.alive;
        let (sent, received) = (victim.sent, victim.received);
        let is_late = by_relay
            && alive.is_some_and(|at| now - at > idle + 2 * SECOND + self.outage_within(at, now));
        let what = format!("{sent} bytes to {} for {received}", shown(&self.ips, to));
        if alive.is_none() && is_over {
            self.accuse("an address that is not heard gets 64 KiB more than it sent", now, what);
        } else if is_late {
            self.accuse("a silent address is sent nothing after the idle time", now, what);
        }
    }
}
