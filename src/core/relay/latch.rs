//! The latch: a player's address as it is seen at one relay port.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::relay::{DropReason, Latching, OwnAddresses};
use crate::time::Timestamp;

/// How long the current address must be silent before another port of the same IP may replace it.
pub const SILENCE_BEFORE_LATCHING: Duration = Duration::from_secs(2);

/// How long an address that was replaced may return at once.
pub const TAKE_BACK_WINDOW: Duration = Duration::from_secs(30);

/// How long after the introduction any IP may latch under [`Latching::Any`].
pub const ANY_IP_WINDOW: Duration = Duration::from_secs(10);

/// How soon a candidate must follow the last datagram of the current address to count as a rebinding: the same player
/// behind a router that changed its mapping. Games send several times a second.
pub const REBINDING_GAP: Duration = Duration::from_millis(500);

/// How many datagrams a candidate must have sent before it latches to count as a rebinding. A player's game sends all
/// the time; a neighbour may send only a few datagrams.
pub const REBINDING_DATAGRAMS: u32 = 8;

/// The current address of a player at one relay port, learned from the player's datagrams there.
///
/// Many routers, and nearly all those of mobile networks, map each destination to another external port (RFC 4787:
/// address- and port-dependent mapping). So the address that the registrar saw is only a first guess. The player is
/// sent to the address where it was last heard. This is *latching*, restricted to the registered IP (RFC 7362, section
/// 5).
///
/// The current address has one of three states. It is *unheard* since the introduction or the last registration,
/// *live*, or *silent* for [`SILENCE_BEFORE_LATCHING`]. What a datagram from another source does depends on the state
/// and on the source:
///
/// | state | displaced address | other port of the same IP | another IP |
/// |---|---|---|---|
/// | *unheard* | - | replaces | dropped (`wrong-ip`), or replaces under [`Latching::Any`] within [`ANY_IP_WINDOW`] |
/// | *live* | returns | dropped (`wrong-port`), noted as a candidate | dropped (`wrong-ip`) |
/// | *silent* | returns | replaces | dropped (`wrong-ip`) |
///
/// Under [`Latching::Off`] another port of the same IP never replaces the current address. *Replaces* and *returns*
/// mean that the source becomes the current address and is live. A replaced address is *displaced*: it may return
/// within [`TAKE_BACK_WINDOW`], because a player that paused can lose its place to a neighbour behind the same router.
/// After an address has returned, no earlier address may return.
///
/// There is one exception, a *rebinding*: the candidate started within [`REBINDING_GAP`] of the old address's last
/// datagram, had sent at least [`REBINDING_DATAGRAMS`] before it latched, and no other source was refused with
/// `wrong-port` lately. Then the player itself has a new mapping. The router may give the old port to somebody else,
/// so the old address may not return.
///
/// Memory is allocated at the introduction, at a registration of another address, and when an address is replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latch {
    current: SocketAddr,
    heard: Option<Timestamp>,
    /// What only a change of address needs. It is apart, so that other datagrams do not load it.
    history: Box<History>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct History {
    /// The IP that the player registered. Under [`Latching::Any`] the current address can have another.
    registered_ip: IpAddr,
    introduced: Timestamp,
    /// Addresses that may return. At most 16: an address is replaced only after [`SILENCE_BEFORE_LATCHING`], and it
    /// may return only within [`TAKE_BACK_WINDOW`].
    displaced: Vec<Displaced>,
    /// The source that was last refused with `wrong-port`.
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
    datagrams: u32,
    /// Whether no source was noted as a candidate in the [`TAKE_BACK_WINDOW`] before the first datagram of this one.
    is_alone: bool,
}

/// The state of the current address: when it was last heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LatchState {
    /// Never, since the introduction or the last registration.
    Unheard,
    /// Less than [`SILENCE_BEFORE_LATCHING`] ago.
    Live,
    /// Longer ago.
    Silent,
}

/// The kind of a source that is not the current address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SourceKind {
    /// An address that was replaced within [`TAKE_BACK_WINDOW`].
    Displaced,
    /// The current or the registered IP, with another port.
    SameIp,
    /// Any other IP.
    OtherIp,
}

impl Latch {
    /// A latch with the registered address, not yet heard.
    pub fn new(registered: SocketAddr, introduced: Timestamp) -> Self {
        let history = History {
            registered_ip: registered.ip(),
            introduced,
            displaced: Vec::new(),
            candidate: None,
        };
        Self { current: registered, heard: None, history: Box::new(history) }
    }

    /// The current address, to which the player is sent.
    pub fn address(&self) -> SocketAddr {
        self.current
    }

    /// When [`Self::address`] was last heard at the port, if ever.
    pub fn heard(&self) -> Option<Timestamp> {
        self.heard
    }

    /// Starts anew with another address that the player has registered.
    pub fn reset(&mut self, registered: SocketAddr) {
        *self = Self::new(registered, self.history.introduced);
    }

    /// Handles the source of a datagram. Either it is the player, perhaps at a new address, or it is refused.
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
        match (self.kind_of(source, now), self.state(now)) {
            (SourceKind::Displaced, _) => self.history.displaced.clear(),
            (SourceKind::SameIp, LatchState::Unheard | LatchState::Silent)
                if latching != Latching::Off =>
            {
                self.displace_current(source, now);
            }
            (SourceKind::OtherIp, LatchState::Unheard)
                if latching == Latching::Any && self.is_in_any_ip_window(now) =>
            {
                self.displace_current(source, now);
            }
            (SourceKind::SameIp, _) => {
                self.note_candidate(source, now);
                return Err(DropReason::WrongPort);
            }
            (SourceKind::OtherIp, _) => return Err(DropReason::WrongIp),
        }
        self.current = source;
        self.heard = Some(now);
        Ok(())
    }

    fn state(&self, now: Timestamp) -> LatchState {
        match self.heard {
            None => LatchState::Unheard,
            Some(heard) if now.since(heard) < SILENCE_BEFORE_LATCHING => LatchState::Live,
            Some(_) => LatchState::Silent,
        }
    }

    fn kind_of(&self, source: SocketAddr, now: Timestamp) -> SourceKind {
        if self.history.displaced.iter().any(|d| d.address == source && d.may_return(now)) {
            SourceKind::Displaced
        } else if [self.current.ip(), self.history.registered_ip].contains(&source.ip()) {
            SourceKind::SameIp
        } else {
            SourceKind::OtherIp
        }
    }

    fn is_in_any_ip_window(&self, now: Timestamp) -> bool {
        now.since(self.history.introduced) <= ANY_IP_WINDOW
    }

    /// Notes that the current address may return, unless the change to `source` is a rebinding.
    fn displace_current(&mut self, source: SocketAddr, now: Timestamp) {
        self.history.displaced.retain(|displaced| displaced.may_return(now));
        if !self.is_rebinding(source) {
            self.history.displaced.push(Displaced { address: self.current, since: now });
        }
    }

    fn is_rebinding(&self, source: SocketAddr) -> bool {
        let (Some(candidate), Some(heard)) = (self.history.candidate, self.heard) else {
            return false;
        };
        candidate.address == source
            && candidate.is_alone
            && candidate.datagrams >= REBINDING_DATAGRAMS
            && candidate.first_heard >= heard
            && candidate.first_heard.since(heard) <= REBINDING_GAP
    }

    fn note_candidate(&mut self, source: SocketAddr, now: Timestamp) {
        let goes_on = |candidate: &Candidate| {
            let is_after_last = self.heard.is_none_or(|heard| candidate.first_heard >= heard);
            candidate.address == source && is_after_last
        };
        self.history.candidate = Some(match self.history.candidate {
            Some(candidate) if goes_on(&candidate) => Candidate {
                last_heard: now,
                datagrams: candidate.datagrams.saturating_add(1),
                ..candidate
            },
            earlier => Candidate {
                address: source,
                first_heard: now,
                last_heard: now,
                datagrams: 1,
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

    /// Milliseconds, source, and the expected result.
    type Heard<'a> = (u64, &'a str, Result<(), DropReason>);

    /// Plays `steps` against a latch that was introduced at 0. Returns the last address.
    fn play(latching: Latching, steps: &[Heard<'_>]) -> String {
        let mut latch = Latch::new(REGISTERED.parse().unwrap(), Timestamp::START);
        for (index, (millis, source, expected)) in steps.iter().enumerate() {
            let now = Timestamp::START + Duration::from_millis(*millis);
            let source = source.parse().unwrap();
            let result = latch.accept(source, latching, &OwnAddresses::default(), now);
            assert_eq!(result, *expected, "step {index}: {source} at {millis} ms");
            let is_in_place = latch.address() == source;
            assert_eq!(is_in_place, expected.is_ok(), "an accepted source is the current address");
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
    fn a_live_address_stays_and_a_silent_one_is_replaced() {
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
    fn a_player_that_paused_returns_and_then_the_neighbour_may_not() {
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
    fn a_neighbour_that_changes_ports_does_not_end_the_right_to_return() {
        let steps = [
            (0, REGISTERED, Ok(())),
            (2500, OTHER, Ok(())),
            (4600, THIRD, Ok(())),
            (5000, REGISTERED, Ok(())),
        ];
        same_ip(&steps);
    }

    #[test]
    fn a_player_that_paused_twice_still_returns() {
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
    fn a_neighbour_that_sends_all_the_time_is_no_rebinding() {
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
    fn a_neighbour_that_sends_from_new_ports_is_no_rebinding() {
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

    /// A player's router changes its mapping at 0. The player sends from `OTHER` every `gap` milliseconds until it
    /// latches.
    fn moved_stream(gap: u64) -> Vec<Heard<'static>> {
        let datagrams = (1..).map(|n| n * gap).take_while(|millis| *millis < 2000);
        let refused = datagrams.map(|millis| (millis, OTHER, Err(WrongPort)));
        [(0, REGISTERED, Ok(()))]
            .into_iter()
            .chain(refused)
            .chain([(2000, OTHER, Ok(()))])
            .collect()
    }

    #[test]
    fn after_a_rebinding_the_old_port_may_not_return() {
        let mut steps = moved_stream(100);
        steps.extend([(2050, REGISTERED, Err(WrongPort)), (3000, OTHER, Ok(()))]);
        steps.push((4000, REGISTERED, Err(WrongPort)));
        same_ip(&steps);
    }

    #[test]
    fn a_few_datagrams_are_no_rebinding() {
        let mut steps = moved_stream(400);
        steps.extend([(2050, REGISTERED, Ok(())), (2100, OTHER, Err(WrongPort))]);
        same_ip(&steps);
    }

    #[test]
    fn the_registered_address_replaces_a_neighbour_that_was_faster() {
        let steps = [(0, OTHER, Ok(())), (100, REGISTERED, Ok(())), (200, OTHER, Err(WrongPort))];
        same_ip(&steps);
    }

    #[test]
    fn another_ip_does_not_latch() {
        let steps = [(0, FOREIGN, Err(WrongIp)), (9000, FOREIGN, Err(WrongIp))];
        same_ip(&steps);
        play(Latching::Off, &steps);
    }

    #[test]
    fn under_any_the_first_ip_that_is_heard_in_time_latches() {
        play(Latching::Any, &[(10_000, FOREIGN, Ok(())), (10_100, REGISTERED, Ok(()))]);
        play(Latching::Any, &[(10_001, FOREIGN, Err(WrongIp))]);
        play(Latching::Any, &[(0, REGISTERED, Ok(())), (3000, FOREIGN, Err(WrongIp))]);
        play(Latching::Any, &[(0, FOREIGN, Ok(())), (2000, "203.0.113.9:7", Ok(()))]);
        let home_again = [(0, FOREIGN, Ok(())), (1, OTHER, Err(WrongPort)), (2000, OTHER, Ok(()))];
        play(Latching::Any, &home_again);
    }

    #[test]
    fn under_off_only_the_registered_address_is_accepted() {
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
