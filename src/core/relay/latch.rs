//! The latch: a player's address as it is seen at one relay port.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::relay::sources::{Source, Sources};
use crate::core::relay::{DropReason, Latching};
use crate::time::Timestamp;

/// How long the current address must be silent before another source may replace it in any state.
pub const SILENCE_BEFORE_LATCHING: Duration = Duration::from_secs(2);

/// How long an address that fell silent and was replaced may return at once.
pub const TAKE_BACK_WINDOW: Duration = Duration::from_secs(30);

/// How long after the introduction any IP may latch under [`Latching::Any`].
pub const ANY_IP_WINDOW: Duration = Duration::from_secs(10);

/// How long a new address is *settling* before it is *settled*.
pub const SETTLING_TIME: Duration = Duration::from_secs(5);

/// The longest time between two datagrams of a player who plays. Games send several times a second.
pub const LONGEST_GAP: Duration = Duration::from_millis(750);

/// How many datagrams a source must have sent since the current address was last heard, to *claim* the place.
pub const CLAIMING_DATAGRAMS: u32 = 2;

/// How many datagrams it must have sent to count as a rebinding: the same player behind a router that changed its
/// mapping. A neighbour may send only a few.
pub const REBINDING_DATAGRAMS: u32 = 8;

/// The current address of a player at one relay port, learned from the player's datagrams there.
///
/// Many routers, and nearly all those of mobile networks, map each destination to another external port (RFC 4787:
/// address- and port-dependent mapping). So the address that the registrar saw is only a first guess. The player is
/// sent to the address where it was last heard. This is *latching*, restricted to the registered IP (RFC 7362, section
/// 5).
///
/// Neighbours behind the same router or carrier have the same IP. So who is first proves little, and who sends most
/// proves nothing. What a datagram from another source does depends on the state of the current address and on the
/// kind of the source:
///
/// | state | displaced | registered address | newcomer | stranger |
/// |---|---|---|---|---|
/// | *unheard*: not since the introduction or the last registration | - | replaces | replaces | replaces if unclaimed |
/// | *lent*: a source has it that was at the port before the pair began | - | replaces | replaces | dropped |
/// | *settling*: for [`SETTLING_TIME`] | returns | replaces, once | replaces after a gap | dropped |
/// | *doubted*: settling again, because the player repeated its PrivateID | returns | replaces, once | replaces after a gap | replaces after a gap |
/// | *settled* | returns | dropped | dropped | dropped |
/// | *silent* for [`SILENCE_BEFORE_LATCHING`] | returns | as its kind | replaces if unclaimed | replaces if unclaimed |
///
/// - *Displaced*: an address that fell silent and was replaced returns within [`TAKE_BACK_WINDOW`], because a player
///   that paused can lose its place to a neighbour. After it has returned, no earlier address may return.
/// - *Newcomer* and *stranger*: other sources of the same IP. A stranger was at the port before the pair began, or the
///   current address was heard more than [`LONGEST_GAP`] after the stranger's first datagram: then both were there at
///   the same time, and so the stranger is not the same player at a new address.
/// - *After a gap*: the current address was silent for [`LONGEST_GAP`], in which the source sent
///   [`CLAIMING_DATAGRAMS`], and the place is unclaimed.
/// - *Unclaimed*: no better source sent [`CLAIMING_DATAGRAMS`] since the current address was last heard, the last of
///   them within [`LONGEST_GAP`]. Newcomers are better than strangers. Of two of a kind, the one that was heard first
///   is better.
///
/// *Dropped* means `wrong-port`. Another IP is dropped with `wrong-ip`. Under [`Latching::Any`] it is like the same IP
/// within [`ANY_IP_WINDOW`] as long as the address is unheard or lent. Under [`Latching::Off`] only the registered
/// address replaces. A sprayer (see `Sprayers`) never replaces, unless it is the registered address.
///
/// An address that was lent does not become displaced. Nor does one in a *rebinding*: the newcomer started within [`LONGEST_GAP`] of the old
/// address's last datagram, has sent [`REBINDING_DATAGRAMS`], and no other source was heard in the
/// [`TAKE_BACK_WINDOW`] before. Then the player itself has a new mapping. The router may give the old port to somebody
/// else, so the old address may not return.
///
/// Memory is allocated at the introduction, and when a source is heard that does not have the place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latch {
    current: SocketAddr,
    heard: Option<Timestamp>,
    /// What only other sources need. It is apart, so that the datagrams of the current address do not load it.
    history: Box<History>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct History {
    /// The address that the player registered.
    registered: SocketAddr,
    introduced: Timestamp,
    /// When the current address replaced another one, or was first heard. `None` if it had settled before and returned.
    settling_since: Option<Timestamp>,
    /// When the player repeated its PrivateID and the current address came into doubt. At most once for each address.
    doubted: Option<Timestamp>,
    /// Whether the current address belongs to a source that was at the port before the pair began.
    is_lent: bool,
    /// Whether the registered address has replaced an address that was settling. It does so once for a registration,
    /// because whoever knows it can forge it.
    has_claimed: bool,
    /// Addresses that may return. At most 16: an address is displaced only after [`SILENCE_BEFORE_LATCHING`], and it
    /// may return only within [`TAKE_BACK_WINDOW`].
    displaced: Vec<Displaced>,
    others: Sources,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Displaced {
    address: SocketAddr,
    since: Timestamp,
    /// Whether it was settled until it fell silent. Then it is settled when it returns.
    was_settled: bool,
}

/// The states of the current address: see [`Latch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LatchState {
    Unheard,
    Lent,
    Settling,
    Doubted,
    Settled,
    Silent,
}

impl Latch {
    /// A latch with the registered address, not yet heard.
    pub fn new(registered: SocketAddr, introduced: Timestamp) -> Self {
        Self::with_early(registered, Sources::default(), introduced)
    }

    /// The same, where the `early` sources were heard at the port before the introduction.
    pub(super) fn with_early(
        registered: SocketAddr,
        early: Sources,
        introduced: Timestamp,
    ) -> Self {
        let history = History {
            registered,
            introduced,
            settling_since: None,
            doubted: None,
            is_lent: false,
            has_claimed: false,
            displaced: Vec::new(),
            others: early,
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

    /// Starts anew with another address that the player has registered. Who is a stranger by now remains one.
    pub fn reset(&mut self, registered: SocketAddr, now: Timestamp) {
        let heard = self.heard;
        let History { introduced, is_lent, others, .. } = &mut *self.history;
        others.mark_early(|source| is_stranger(source, heard));
        if *is_lent {
            others.note_early(self.current, now);
        }
        *self = Self::with_early(registered, std::mem::take(others), *introduced);
    }

    /// Handles that the player repeated its PrivateID from its registered address. If others of its IP were heard here
    /// lately, one of them may have taken its place: the current address must settle again.
    pub fn doubt(&mut self, now: Timestamp) {
        let History { registered, doubted, others, .. } = &mut *self.history;
        let is_recent = |source: &Source| now.since(source.last_heard) <= TAKE_BACK_WINDOW;
        let is_same_ip = |source: &Source| source.address.ip() == registered.ip();
        let is_contested = others.iter().any(|source| is_recent(source) && is_same_ip(source));
        if self.heard.is_some() && doubted.is_none() && is_contested {
            *doubted = Some(now);
        }
    }

    /// Whether `source` is the current address. If so, it has been heard now.
    pub fn hear_current(&mut self, source: SocketAddr, now: Timestamp) -> bool {
        let is_current = source == self.current;
        if is_current {
            if self.heard.is_none() {
                self.history.settling_since = Some(now);
            }
            self.heard = Some(now);
        }
        is_current
    }

    /// Handles the source of a datagram that is not the current address. Either it is the player at a new address, or
    /// it is refused.
    ///
    /// # Errors
    /// The reason to drop the datagram.
    pub fn hear_other(
        &mut self,
        source: SocketAddr,
        is_sprayer: bool,
        latching: Latching,
        now: Timestamp,
    ) -> Result<(), DropReason> {
        let state = self.state(now);
        let is_registered = source == self.history.registered;
        let may_replace = is_registered || (!is_sprayer && latching != Latching::Off);
        if may_replace && let Some(displaced) = self.displaced(source, now) {
            self.history.displaced.clear();
            self.replace(source, false, now);
            if displaced.was_settled {
                self.history.settling_since = None;
            }
            return Ok(());
        }
        if is_registered && self.may_claim(state) {
            self.replace(source, false, now);
            return Ok(());
        }
        let is_same_ip = [self.current.ip(), self.history.registered.ip()].contains(&source.ip());
        if !is_same_ip && !self.takes_any_ip(state, latching, now) {
            return Err(DropReason::WrongIp);
        }
        if !may_replace || !self.takes_unproven(source, state, now) {
            return Err(DropReason::WrongPort);
        }
        Ok(())
    }

    fn state(&self, now: Timestamp) -> LatchState {
        let Some(heard) = self.heard else {
            return LatchState::Unheard;
        };
        if now.since(heard) >= SILENCE_BEFORE_LATCHING {
            LatchState::Silent
        } else {
            self.state_until(heard)
        }
    }

    /// The state in which the current address was last heard, at `heard`.
    fn state_until(&self, heard: Timestamp) -> LatchState {
        let History { settling_since, doubted, is_lent, .. } = &*self.history;
        let settles = |since: &Option<Timestamp>| {
            since.is_some_and(|since| heard.since(since) < SETTLING_TIME)
        };
        if *is_lent {
            LatchState::Lent
        } else if settles(doubted) {
            LatchState::Doubted
        } else if settles(settling_since) {
            LatchState::Settling
        } else {
            LatchState::Settled
        }
    }

    fn displaced(&self, source: SocketAddr, now: Timestamp) -> Option<Displaced> {
        let mut displaced = self.history.displaced.iter();
        displaced.find(|d| d.address == source && d.may_return(now)).copied()
    }

    /// Whether the registered address replaces the current one at once.
    fn may_claim(&mut self, state: LatchState) -> bool {
        match state {
            LatchState::Unheard | LatchState::Lent => true,
            LatchState::Settling | LatchState::Doubted => {
                !std::mem::replace(&mut self.history.has_claimed, true)
            }
            LatchState::Settled | LatchState::Silent => false,
        }
    }

    fn takes_any_ip(&self, state: LatchState, latching: Latching, now: Timestamp) -> bool {
        latching == Latching::Any
            && matches!(state, LatchState::Unheard | LatchState::Lent)
            && now.since(self.history.introduced) <= ANY_IP_WINDOW
    }

    /// Notes a source of which nothing is known but its datagrams. It replaces the current address if it may, and then
    /// the result is true.
    fn takes_unproven(&mut self, source: SocketAddr, state: LatchState, now: Timestamp) -> bool {
        let this = self.history.others.note(source, self.heard, now);
        let is_stranger = is_stranger(&this, self.heard);
        let is_gap = self.heard.is_some_and(|heard| now.since(heard) >= LONGEST_GAP)
            && this.run >= CLAIMING_DATAGRAMS;
        let is_open = match state {
            LatchState::Unheard | LatchState::Silent => true,
            LatchState::Lent => !is_stranger,
            LatchState::Settling => is_gap && !is_stranger,
            LatchState::Doubted => is_gap,
            LatchState::Settled => false,
        };
        let rank = |source: &Source| (self::is_stranger(source, self.heard), source.first_heard);
        let is_better = |other: &Source| self.claims(other, now) && rank(other) < rank(&this);
        if !is_open || self.history.others.iter().any(is_better) {
            return false;
        }
        if state == LatchState::Silent {
            self.displace_current(&this, now);
        }
        self.replace(source, this.is_early, now);
        true
    }

    /// Notes that the current address, which fell silent, may return after `source` has replaced it, unless that is a
    /// rebinding.
    fn displace_current(&mut self, source: &Source, now: Timestamp) {
        self.history.displaced.retain(|displaced| displaced.may_return(now));
        if !self.history.is_lent && !self.is_rebinding(source) {
            let was_settled =
                self.heard.is_some_and(|heard| self.state_until(heard) == LatchState::Settled);
            let displaced = Displaced { address: self.current, since: now, was_settled };
            self.history.displaced.push(displaced);
        }
    }

    fn claims(&self, source: &Source, now: Timestamp) -> bool {
        source.run >= CLAIMING_DATAGRAMS
            && self.heard.is_none_or(|heard| source.run_began >= heard)
            && now.since(source.last_heard) <= LONGEST_GAP
    }

    /// Whether the source is the player at a new mapping. The current address is silent.
    fn is_rebinding(&self, source: &Source) -> bool {
        let is_alone = self.history.others.iter().all(|other| {
            other.address == source.address
                || (other.last_heard < source.first_heard
                    && source.first_heard.since(other.last_heard) > TAKE_BACK_WINDOW)
        });
        let follows = self.heard.is_some_and(|heard| {
            source.first_heard >= heard && source.first_heard.since(heard) <= LONGEST_GAP
        });
        is_alone && follows && source.run >= REBINDING_DATAGRAMS
    }

    fn replace(&mut self, source: SocketAddr, is_lent: bool, now: Timestamp) {
        let History { others, .. } = &mut *self.history;
        others.take(source, now);
        if self.history.is_lent {
            self.history.others.note_early(self.current, now);
        }
        self.history.settling_since = Some(now);
        self.history.doubted = None;
        self.history.is_lent = is_lent;
        self.current = source;
        self.heard = Some(now);
    }
}

/// Whether the source cannot be the player at a new address. The one in place was last heard at `holder_heard`.
fn is_stranger(source: &Source, holder_heard: Option<Timestamp>) -> bool {
    source.is_early
        || holder_heard.is_some_and(|heard| heard.since(source.first_heard) > LONGEST_GAP)
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

    use DropReason::{WrongIp, WrongPort};

    fn hear(
        latch: &mut Latch,
        source: SocketAddr,
        latching: Latching,
        now: Timestamp,
    ) -> Result<(), DropReason> {
        if latch.hear_current(source, now) {
            return Ok(());
        }
        latch.hear_other(source, false, latching, now)
    }

    /// Milliseconds, source, and the expected result.
    type Heard<'a> = (u64, &'a str, Result<(), DropReason>);

    /// Plays `steps` against a latch that was introduced at 0. Returns the last address.
    fn play(latching: Latching, steps: &[Heard<'_>]) -> String {
        let mut latch = Latch::new(REGISTERED.parse().unwrap(), Timestamp::START);
        for (index, (millis, source, expected)) in steps.iter().enumerate() {
            let now = Timestamp::START + Duration::from_millis(*millis);
            let source = source.parse().unwrap();
            let result = hear(&mut latch, source, latching, now);
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
            (33_000, OTHER, Err(WrongPort)),
            (33_200, REGISTERED, Ok(())),
            (35_199, OTHER, Err(WrongPort)),
            (35_200, OTHER, Ok(())),
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
    fn a_new_registration_starts_anew() {
        let mut latch = Latch::new(REGISTERED.parse().unwrap(), Timestamp::START);
        let hear_registered = |latch: &mut Latch| {
            hear(latch, REGISTERED.parse().unwrap(), Latching::SameIp, Timestamp::START)
        };
        hear_registered(&mut latch).unwrap();
        latch.reset(FOREIGN.parse().unwrap(), Timestamp::START);
        assert_eq!((latch.address().to_string().as_str(), latch.heard()), (FOREIGN, None));
        assert_eq!(hear_registered(&mut latch), Err(WrongIp));
    }
}
