//! Follows a player's address as it is seen at one relay port.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::relay::{DropReason, Latching, OwnAddresses};
use crate::time::Timestamp;

/// How long the address in place must have been silent before another port of the same IP takes its place.
pub const SILENCE_BEFORE_LATCHING: Duration = Duration::from_secs(2);

/// For how long a displaced address may take its place back at once.
pub const TAKE_BACK_WINDOW: Duration = Duration::from_secs(30);

/// For how long after the introduction any IP may latch under [`Latching::Any`].
pub const ANY_IP_WINDOW: Duration = Duration::from_secs(10);

/// How closely a candidate must follow the last datagram of the address in place to count as the same player
/// behind a router that changed its mapping. Games send several times a second.
pub const SEAM: Duration = Duration::from_millis(500);

/// How many datagrams such a candidate must have sent before it latches: a stream goes on, a neighbour tries.
pub const SEAMLESS_ATTEMPTS: u32 = 8;

/// The address to which a player is sent, learned from its datagrams at one port.
///
/// Many routers, and nearly all of mobile networks, map each destination to another external port (RFC 4787:
/// address- and port-dependent mapping), so the address that the registrar saw is only a first guess. Answers go
/// where the player was last heard: *latching*, restricted to the registered IP (RFC 7362, section 5).
///
/// The address in place is *unheard* since the introduction or the last
/// registration, *live*, or *silent* for [`SILENCE_BEFORE_LATCHING`]. What a datagram from elsewhere does
/// depends on that and on its source:
///
/// | in place | displaced source | other port of the same IP | another IP |
/// |---|---|---|---|
/// | *unheard* | - | takes the place | dropped (`wrong-ip`), or takes the place under [`Latching::Any`] |
/// | *live* | takes its place back | dropped (`wrong-port`), noted as a candidate | dropped (`wrong-ip`) |
/// | *silent* | takes its place back | takes the place | dropped (`wrong-ip`) |
///
/// Whoever takes the place is live, and whoever loses it is displaced. A displaced address may return, because a
/// player that paused can lose its place to a neighbour behind the same router. There is one exception: a change
/// without a seam, where the candidate began within [`SEAM`] of the old address's last datagram, went on with
/// [`SEAMLESS_ATTEMPTS`], and nobody else had been turned away lately. Then the player itself has a new mapping, and
/// whoever inherits the port of the old one is somebody else.
///
/// Memory is allocated at the introduction and when an address loses its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latch {
    current: SocketAddr,
    heard: Option<Timestamp>,
    /// What only a change of address needs, out of the way of all other datagrams.
    past: Box<Past>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Past {
    /// Always the player's, also while [`Latching::Any`] lets it send from another.
    registered_ip: IpAddr,
    introduced: Timestamp,
    /// Addresses that may take their place back. At most 16: each change of place takes a silence of
    /// [`SILENCE_BEFORE_LATCHING`], and the right ends after [`TAKE_BACK_WINDOW`].
    displaced: Vec<Displaced>,
    /// The last source that was turned away because the address in place was live.
    candidate: Option<Candidate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Displaced {
    address: SocketAddr,
    since: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Candidate {
    address: SocketAddr,
    first_heard: Timestamp,
    last_heard: Timestamp,
    attempts: u32,
    /// Whether nobody else was turned away in the [`TAKE_BACK_WINDOW`] before, nor this one earlier.
    is_alone: bool,
}

/// How lately the address in place was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// Never, since the introduction or the last registration.
    Unheard,
    /// Within [`SILENCE_BEFORE_LATCHING`].
    Live,
    /// Longer ago.
    Silent,
}

/// Whose a source may be that is not the address in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// An address that lost its place within [`TAKE_BACK_WINDOW`].
    Displaced,
    /// The player's IP with another port.
    SameIp,
    /// Any other.
    OtherIp,
}

impl Latch {
    /// Starts at the registered address, not yet heard.
    pub fn new(registered: SocketAddr, introduced: Timestamp) -> Self {
        let past = Past {
            registered_ip: registered.ip(),
            introduced,
            displaced: Vec::new(),
            candidate: None,
        };
        Self { current: registered, heard: None, past: Box::new(past) }
    }

    /// Where the player is reached.
    pub fn address(&self) -> SocketAddr {
        self.current
    }

    /// When [`Self::address`] was last heard at the port, if ever.
    pub fn heard(&self) -> Option<Timestamp> {
        self.heard
    }

    /// The player registered another address: it takes the place, not yet heard.
    pub fn reset(&mut self, registered: SocketAddr) {
        *self = Self::new(registered, self.past.introduced);
    }

    /// Learns from a datagram's source: it is the player, perhaps at a new address, or it is turned away.
    ///
    /// # Errors
    /// The reason to drop the datagram.
    pub fn accept(
        &mut self,
        source: SocketAddr,
        latching: Latching,
        own: &OwnAddresses,
        now: Timestamp,
    ) -> Result<(), DropReason> {
        if source == self.current {
            self.heard = Some(now);
            return Ok(());
        }
        self.accept_other(source, latching, own, now)
    }

    #[cold]
    fn accept_other(
        &mut self,
        source: SocketAddr,
        latching: Latching,
        own: &OwnAddresses,
        now: Timestamp,
    ) -> Result<(), DropReason> {
        if !own.allows(source) {
            return Err(DropReason::InvalidSource);
        }
        match (self.claim(source, now), self.presence(now)) {
            (Claim::Displaced, _) => self.past.displaced.clear(),
            (Claim::SameIp, Presence::Unheard | Presence::Silent) if latching != Latching::Off => {
                self.displace_current(source, now);
            }
            (Claim::OtherIp, Presence::Unheard)
                if latching == Latching::Any && self.is_in_any_ip_window(now) =>
            {
                self.displace_current(source, now);
            }
            (Claim::SameIp, _) => {
                self.note_candidate(source, now);
                return Err(DropReason::WrongPort);
            }
            (Claim::OtherIp, _) => return Err(DropReason::WrongIp),
        }
        self.current = source;
        self.heard = Some(now);
        Ok(())
    }

    fn presence(&self, now: Timestamp) -> Presence {
        match self.heard {
            None => Presence::Unheard,
            Some(heard) if now.since(heard) < SILENCE_BEFORE_LATCHING => Presence::Live,
            Some(_) => Presence::Silent,
        }
    }

    fn claim(&self, source: SocketAddr, now: Timestamp) -> Claim {
        if self.past.displaced.iter().any(|d| d.address == source && d.may_return(now)) {
            Claim::Displaced
        } else if [self.current.ip(), self.past.registered_ip].contains(&source.ip()) {
            Claim::SameIp
        } else {
            Claim::OtherIp
        }
    }

    fn is_in_any_ip_window(&self, now: Timestamp) -> bool {
        now.since(self.past.introduced) <= ANY_IP_WINDOW
    }

    /// `source` takes the place; the address that had it may return, unless the change had no seam.
    fn displace_current(&mut self, source: SocketAddr, now: Timestamp) {
        self.past.displaced.retain(|displaced| displaced.may_return(now));
        if !self.is_seamless(source) {
            self.past.displaced.push(Displaced { address: self.current, since: now });
        }
    }

    fn is_seamless(&self, source: SocketAddr) -> bool {
        let (Some(candidate), Some(heard)) = (self.past.candidate, self.heard) else {
            return false;
        };
        candidate.address == source
            && candidate.is_alone
            && candidate.attempts >= SEAMLESS_ATTEMPTS
            && candidate.first_heard >= heard
            && candidate.first_heard.since(heard) <= SEAM
    }

    fn note_candidate(&mut self, source: SocketAddr, now: Timestamp) {
        let goes_on = |candidate: &Candidate| {
            let is_after_last = self.heard.is_none_or(|heard| candidate.first_heard >= heard);
            candidate.address == source && is_after_last
        };
        self.past.candidate = Some(match self.past.candidate {
            Some(candidate) if goes_on(&candidate) => Candidate {
                last_heard: now,
                attempts: candidate.attempts.saturating_add(1),
                ..candidate
            },
            earlier => Candidate {
                address: source,
                first_heard: now,
                last_heard: now,
                attempts: 1,
                is_alone: earlier.is_none_or(|c| now.since(c.last_heard) > TAKE_BACK_WINDOW),
            },
        });
    }
}

impl Displaced {
    fn may_return(&self, now: Timestamp) -> bool {
        now.since(self.since) <= TAKE_BACK_WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTERED: &str = "198.51.100.1:1000";
    const OTHER: &str = "198.51.100.1:2000";
    const THIRD: &str = "198.51.100.1:3000";
    const FOREIGN: &str = "203.0.113.9:1000";

    use DropReason::{InvalidSource, WrongIp, WrongPort};

    /// Milliseconds, source, and what comes of it.
    type Heard<'a> = (u64, &'a str, Result<(), DropReason>);

    /// Plays `steps` against a latch introduced at 0; returns the last address.
    fn play(latching: Latching, steps: &[Heard<'_>]) -> String {
        let mut latch = Latch::new(REGISTERED.parse().unwrap(), Timestamp::START);
        for (index, (millis, source, expected)) in steps.iter().enumerate() {
            let now = Timestamp::START + Duration::from_millis(*millis);
            let source = source.parse().unwrap();
            let result = latch.accept(source, latching, &OwnAddresses::default(), now);
            assert_eq!(result, *expected, "step {index}: {source} at {millis} ms");
            let is_in_place = latch.address() == source;
            assert_eq!(is_in_place, expected.is_ok(), "who is accepted is in place");
        }
        latch.address().to_string()
    }

    fn same_ip(steps: &[Heard<'_>]) -> String {
        play(Latching::SameIp, steps)
    }

    #[test]
    fn the_first_port_heard_latches_at_once() {
        assert_eq!(same_ip(&[(0, OTHER, Ok(()))]), OTHER);
    }

    #[test]
    fn a_live_address_keeps_its_place_and_a_silent_one_loses_it() {
        let steps = [
            (0, REGISTERED, Ok(())),
            (1999, OTHER, Err(WrongPort)),
            (2000, OTHER, Ok(())),
            (3999, THIRD, Err(WrongPort)),
            (4000, THIRD, Ok(())),
        ];
        assert_eq!(same_ip(&steps), THIRD);
    }

    #[test]
    fn a_player_that_paused_takes_its_place_back_and_the_neighbour_has_no_right_to_return() {
        let steps = [
            (0, REGISTERED, Ok(())),
            (2500, OTHER, Ok(())),
            (32_500, REGISTERED, Ok(())),
            (32_600, OTHER, Err(WrongPort)),
            (34_499, OTHER, Err(WrongPort)),
            (34_500, OTHER, Ok(())),
        ];
        same_ip(&steps);
    }

    #[test]
    fn the_right_to_return_ends() {
        let steps = [
            (0, REGISTERED, Ok(())),
            (2500, OTHER, Ok(())),
            (32_000, OTHER, Ok(())),
            (32_501, REGISTERED, Err(WrongPort)),
        ];
        same_ip(&steps);
    }

    #[test]
    fn a_neighbour_that_changes_ports_does_not_wear_the_right_down() {
        let steps = [
            (0, REGISTERED, Ok(())),
            (2500, OTHER, Ok(())),
            (4600, THIRD, Ok(())),
            (5000, REGISTERED, Ok(())),
        ];
        same_ip(&steps);
    }

    #[test]
    fn a_player_that_paused_twice_still_takes_its_place_back() {
        let steps = [
            (0, REGISTERED, Ok(())),
            (2500, OTHER, Ok(())),
            (5000, THIRD, Ok(())),
            (5100, OTHER, Ok(())),
            (5200, THIRD, Err(WrongPort)),
        ];
        same_ip(&steps);
    }

    #[test]
    fn a_neighbour_that_tries_all_the_time_is_no_new_mapping() {
        let steps = [
            (0, REGISTERED, Ok(())),
            (100, OTHER, Err(WrongPort)),
            (200, REGISTERED, Ok(())),
            (300, OTHER, Err(WrongPort)),
            (2300, OTHER, Ok(())),
            (2400, REGISTERED, Ok(())),
        ];
        same_ip(&steps);
    }

    #[test]
    fn a_neighbour_that_tries_from_ever_new_ports_is_no_new_mapping() {
        let steps = [
            (0, REGISTERED, Ok(())),
            (100, OTHER, Err(WrongPort)),
            (200, REGISTERED, Ok(())),
            (300, THIRD, Err(WrongPort)),
            (2300, THIRD, Ok(())),
            (2400, REGISTERED, Ok(())),
        ];
        same_ip(&steps);
    }

    /// A player whose router changed its mapping at 0 sends on from `OTHER` every `gap` milliseconds, and latches.
    fn moved_stream(gap: u64) -> Vec<Heard<'static>> {
        let attempts = (1..).map(|n| n * gap).take_while(|millis| *millis < 2000);
        let refused = attempts.map(|millis| (millis, OTHER, Err(WrongPort)));
        [(0, REGISTERED, Ok(()))]
            .into_iter()
            .chain(refused)
            .chain([(2000, OTHER, Ok(()))])
            .collect()
    }

    #[test]
    fn behind_a_new_mapping_the_heir_of_the_old_port_is_a_stranger() {
        let mut steps = moved_stream(100);
        steps.extend([(2050, REGISTERED, Err(WrongPort)), (3000, OTHER, Ok(()))]);
        steps.push((4000, REGISTERED, Err(WrongPort)));
        same_ip(&steps);
    }

    #[test]
    fn few_tries_are_no_stream() {
        let mut steps = moved_stream(400);
        steps.extend([(2050, REGISTERED, Ok(())), (2100, OTHER, Err(WrongPort))]);
        same_ip(&steps);
    }

    #[test]
    fn the_registered_address_wins_over_a_neighbour_that_was_faster() {
        let steps = [(0, OTHER, Ok(())), (100, REGISTERED, Ok(())), (200, OTHER, Err(WrongPort))];
        same_ip(&steps);
    }

    #[test]
    fn another_ip_never_latches_unless_all_may() {
        let steps = [(0, FOREIGN, Err(WrongIp)), (9000, FOREIGN, Err(WrongIp))];
        same_ip(&steps);
        play(Latching::Off, &steps);
    }

    #[test]
    fn under_any_the_first_heard_in_time_latches_from_any_ip() {
        play(Latching::Any, &[(10_000, FOREIGN, Ok(())), (10_100, REGISTERED, Ok(()))]);
        play(Latching::Any, &[(10_001, FOREIGN, Err(WrongIp))]);
        play(Latching::Any, &[(0, REGISTERED, Ok(())), (3000, FOREIGN, Err(WrongIp))]);
        play(Latching::Any, &[(0, FOREIGN, Ok(())), (2000, "203.0.113.9:7", Ok(()))]);
        let home_again = [(0, FOREIGN, Ok(())), (1, OTHER, Err(WrongPort)), (2000, OTHER, Ok(()))];
        play(Latching::Any, &home_again);
    }

    #[test]
    fn off_knows_only_the_registered_address() {
        let steps =
            [(0, OTHER, Err(WrongPort)), (5000, OTHER, Err(WrongPort)), (5001, REGISTERED, Ok(()))];
        play(Latching::Off, &steps);
    }

    #[test]
    fn impossible_sources_never_latch() {
        let steps =
            [(0, "198.51.100.1:0", Err(InvalidSource)), (1, "224.0.0.1:5", Err(InvalidSource))];
        same_ip(&steps);
        play(Latching::Any, &steps);
    }

    #[test]
    fn a_new_registration_starts_anew() {
        let mut latch = Latch::new(REGISTERED.parse().unwrap(), Timestamp::START);
        let own = OwnAddresses::default();
        latch
            .accept(REGISTERED.parse().unwrap(), Latching::SameIp, &own, Timestamp::START)
            .unwrap();
        latch.reset(FOREIGN.parse().unwrap());
        assert_eq!((latch.address().to_string().as_str(), latch.heard()), (FOREIGN, None));
        let old =
            latch.accept(REGISTERED.parse().unwrap(), Latching::SameIp, &own, Timestamp::START);
        assert_eq!(old, Err(WrongIp));
    }
}
