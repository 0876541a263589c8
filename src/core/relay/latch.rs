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

/// How long an address that is settling must be silent before a newcomer may replace it.
pub const GAP_WHILE_SETTLING: Duration = Duration::from_millis(1250);

/// How many datagrams a source must have sent since the current address was last heard, to claim the place.
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
/// | *unheard*: not since the introduction or the last registration | - | replaces | replaces | dropped |
/// | *settling*: for [`SETTLING_TIME`] | returns | claims | replaces after a gap | dropped |
/// | *doubted*: settling again, because the player repeated its PrivateID | returns | claims | replaces after a gap | replaces after a gap |
/// | *settled* | returns if it had settled | dropped | dropped | dropped |
/// | *silent* for [`SILENCE_BEFORE_LATCHING`] | returns | as its kind | replaces if unclaimed | replaces if unclaimed |
///
/// - *Displaced*: an address that fell silent and was replaced returns within [`TAKE_BACK_WINDOW`], because a player
///   that paused can lose its place to a neighbour. After it has returned, no earlier address may return, and for
///   [`TAKE_BACK_WINDOW`] no address that is replaced after a mere gap.
/// - *Claims*: the registered address replaces at once, unless it was itself replaced within [`TAKE_BACK_WINDOW`]: it may
///   be forged, and behind a router that changed its mapping somebody else may have it.
/// - *Newcomer* and *stranger*: other sources of the same IP. A stranger was at the port before the pair began, or the
///   current address was heard more than [`LONGEST_GAP`] after the stranger's first datagram: then both were there at
///   the same time, and so the stranger is not the same player at a new address.
/// - *After a gap*: the current address was silent for [`GAP_WHILE_SETTLING`], in which the source sent
///   [`CLAIMING_DATAGRAMS`], and the place is unclaimed.
/// - *Unclaimed*: no better source sent [`CLAIMING_DATAGRAMS`] since the current address was last heard, the last of
///   them within [`LONGEST_GAP`]. Newcomers are better than strangers. Of two of a kind, the one that was heard first
///   is better.
///
/// *Dropped* means `wrong-port`. Another IP is dropped with `wrong-ip`. Under [`Latching::Any`] it is like the same IP
/// within [`ANY_IP_WINDOW`] as long as the address is unheard. Under [`Latching::Off`] only the registered
/// address replaces. A sprayer (see `Sprayers`) never replaces, unless it is the registered address.
///
/// An address does not become displaced by a *rebinding*: the newcomer started within [`LONGEST_GAP`] of the old
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
    /// When the registered address was last replaced.
    registered_replaced: Option<Timestamp>,
    /// Addresses that may return within [`TAKE_BACK_WINDOW`]. At most 25: an address is displaced only after
    /// [`GAP_WHILE_SETTLING`].
    displaced: Vec<Displaced>,
    /// When a displaced address returned.
    returned: Option<Timestamp>,
    others: Sources,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Displaced {
    address: SocketAddr,
    since: Timestamp,
    /// Whether it was settled until it fell silent. Then it replaces a settled address too, and is settled again.
    was_settled: bool,
}

/// The states of the current address: see [`Latch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LatchState {
    Unheard,
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
            registered_replaced: None,
            displaced: Vec::new(),
            returned: None,
            others: early,
        };
        Self { current: registered, heard: None, history: Box::new(history) }
    }

    /// The current address, to which the player is sent.
    pub fn address(&self) -> SocketAddr {
        self.current
    }

    /// The address that the player registered.
    pub fn registered(&self) -> SocketAddr {
        self.history.registered
    }

    /// When [`Self::address`] was last heard at the port, if ever.
    pub fn heard(&self) -> Option<Timestamp> {
        self.heard
    }

    /// Starts anew with another address that the player has registered. Who is a stranger by now remains one.
    pub fn reset(&mut self, registered: SocketAddr) {
        let heard = self.heard;
        let History { introduced, others, .. } = &mut *self.history;
        others.mark_early(|source| is_stranger(source, heard));
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

    /// The current address was heard at `heard`, if it is `source`. Somebody else may have been heard since.
    pub fn hear_earlier(&mut self, source: SocketAddr, heard: Timestamp) {
        if source == self.current && self.heard.is_some_and(|known| known < heard) {
            self.heard = Some(heard);
        }
    }

    /// Handles any other source of a datagram. Either it is the player at a new address, or it is refused.
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
        if may_replace && let Some(displaced) = self.displaced(source, state, now) {
            self.history.displaced.clear();
            self.history.returned = Some(now);
            self.replace(source, now);
            if displaced.was_settled {
                self.history.settling_since = None;
            }
            return Ok(());
        }
        if is_registered && self.may_claim(state, now) {
            self.replace(source, now);
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
        let History { settling_since, doubted, .. } = &*self.history;
        let settles = |since: &Option<Timestamp>| {
            since.is_some_and(|since| heard.since(since) < SETTLING_TIME)
        };
        if settles(doubted) {
            LatchState::Doubted
        } else if settles(settling_since) {
            LatchState::Settling
        } else {
            LatchState::Settled
        }
    }

    /// The source, if it is displaced and may return.
    fn displaced(
        &self,
        source: SocketAddr,
        state: LatchState,
        now: Timestamp,
    ) -> Option<Displaced> {
        let may_return = |displaced: &&Displaced| {
            displaced.address == source
                && displaced.is_recent(now)
                && (displaced.was_settled || state != LatchState::Settled)
        };
        self.history.displaced.iter().find(may_return).copied()
    }

    /// Whether the registered address replaces the current one at once.
    fn may_claim(&self, state: LatchState, now: Timestamp) -> bool {
        let lost = self.history.registered_replaced;
        let is_fresh = lost.is_none_or(|lost| now.since(lost) > TAKE_BACK_WINDOW);
        match state {
            LatchState::Unheard => true,
            LatchState::Settling | LatchState::Doubted => is_fresh,
            LatchState::Settled | LatchState::Silent => false,
        }
    }

    fn takes_any_ip(&self, state: LatchState, latching: Latching, now: Timestamp) -> bool {
        latching == Latching::Any
            && state == LatchState::Unheard
            && now.since(self.history.introduced) <= ANY_IP_WINDOW
    }

    /// Notes a source of which nothing is known but its datagrams. It replaces the current address if it may, and then
    /// the result is true.
    fn takes_unproven(&mut self, source: SocketAddr, state: LatchState, now: Timestamp) -> bool {
        let this = self.history.others.note(source, self.heard, now);
        let is_stranger = is_stranger(&this, self.heard);
        let is_gap = self.heard.is_some_and(|heard| now.since(heard) >= GAP_WHILE_SETTLING)
            && this.run >= CLAIMING_DATAGRAMS;
        let is_open = match state {
            LatchState::Silent => true,
            LatchState::Unheard => !is_stranger,
            LatchState::Settling => is_gap && !is_stranger,
            LatchState::Doubted => is_gap,
            LatchState::Settled => false,
        };
        let rank = |source: &Source| (self::is_stranger(source, self.heard), source.first_heard);
        let is_better = |other: &Source| self.claims(other, now) && rank(other) < rank(&this);
        if !is_open || self.history.others.iter().any(is_better) {
            return false;
        }
        let returned = self.history.returned;
        let is_first = returned.is_none_or(|at| now.since(at) > TAKE_BACK_WINDOW);
        if state == LatchState::Silent || (state != LatchState::Unheard && is_first) {
            self.displace_current(&this, now);
        }
        self.replace(source, now);
        true
    }

    /// Notes that the current address may return after `source` has replaced it, unless that is a rebinding.
    fn displace_current(&mut self, source: &Source, now: Timestamp) {
        self.history.displaced.retain(|displaced| displaced.is_recent(now));
        if !self.is_rebinding(source) {
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

    fn replace(&mut self, source: SocketAddr, now: Timestamp) {
        let History { registered, registered_replaced, settling_since, doubted, others, .. } =
            &mut *self.history;
        others.forget(source);
        if self.current == *registered && self.heard.is_some() {
            *registered_replaced = Some(now);
        }
        (*settling_since, *doubted) = (Some(now), None);
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
    fn is_recent(&self, now: Timestamp) -> bool {
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

    /// When a player's router changes its mapping. The player's old address has settled.
    const MOVED: u64 = 6000;

    /// A player's router changes its mapping at [`MOVED`]. The player sends from `OTHER` every `gap` milliseconds until it
    /// latches.
    fn moved_stream(gap: u64) -> Vec<Heard<'static>> {
        let settled = stream(REGISTERED, (0, 500, MOVED + 1), Ok(()));
        let refused = stream(OTHER, (MOVED + gap, gap, MOVED + 2000), Err(WrongPort));
        [settled, refused, vec![(MOVED + 2000, OTHER, Ok(()))]].concat()
    }

    #[test]
    fn after_a_rebinding_the_old_port_may_not_return() {
        let mut steps = moved_stream(100);
        steps.extend([(8050, REGISTERED, Err(WrongPort)), (8500, OTHER, Ok(()))]);
        steps.push((9000, REGISTERED, Err(WrongPort)));
        same_ip(&steps);
    }

    #[test]
    fn a_few_datagrams_are_no_rebinding() {
        let mut steps = moved_stream(400);
        steps.extend([(8050, REGISTERED, Ok(())), (8100, OTHER, Err(WrongPort))]);
        same_ip(&steps);
    }

    #[test]
    fn the_registered_address_replaces_a_neighbour_that_was_faster() {
        let steps = [(0, OTHER, Ok(())), (100, REGISTERED, Ok(())), (200, OTHER, Err(WrongPort))];
        same_ip(&steps);
    }

    /// A source that sends every `gap` milliseconds from `from` until `end`, each time with that result.
    fn stream<'a>(
        source: &'a str,
        (from, gap, end): (u64, u64, u64),
        expected: Result<(), DropReason>,
    ) -> Vec<Heard<'a>> {
        let times = (0..).map(|n| from + n * gap).take_while(|millis| *millis < end);
        times.map(|millis| (millis, source, expected)).collect()
    }

    /// Plays several streams at the same time.
    fn together(streams: &[Vec<Heard<'_>>]) -> String {
        let mut steps = streams.concat();
        steps.sort_by_key(|(millis, ..)| *millis);
        same_ip(&steps)
    }

    #[test]
    fn while_settling_a_gap_is_enough_and_who_lost_the_place_by_one_returns_once() {
        let steps = [
            (0, OTHER, Ok(())),
            (400, THIRD, Err(WrongPort)),
            (1249, THIRD, Err(WrongPort)),
            (1250, THIRD, Ok(())),
            (1300, OTHER, Ok(())),
            (1500, THIRD, Err(WrongPort)),
            (2549, THIRD, Err(WrongPort)),
            (2550, THIRD, Ok(())),
            (2600, OTHER, Err(WrongPort)),
        ];
        same_ip(&steps);
        let single = [(0, OTHER, Ok(())), (1300, THIRD, Err(WrongPort)), (1400, THIRD, Ok(()))];
        same_ip(&single);
    }

    #[test]
    fn rate_is_no_contest() {
        for gap in [3, 50, 300] {
            let player = stream(OTHER, (0, 700, 12_000), Ok(()));
            together(&[player, stream(THIRD, (10, gap, 12_000), Err(WrongPort))]);
        }
    }

    #[test]
    fn a_stranger_gives_way_to_a_newcomer() {
        let stranger = stream(THIRD, (7000, 50, 11_900), Err(WrongPort));
        let newcomer = stream(OTHER, (10_100, 100, 11_900), Err(WrongPort));
        let player = stream(REGISTERED, (0, 100, 10_000), Ok(()));
        let end = vec![(11_901, THIRD, Err(WrongPort)), (11_902, OTHER, Ok(()))];
        let last = together(&[player, stranger, newcomer, end]);
        assert_eq!(last, OTHER);
    }

    #[test]
    fn a_stranger_replaces_an_address_that_is_silent_and_that_nobody_else_claims() {
        let stranger = stream(THIRD, (7000, 50, 11_900), Err(WrongPort));
        let player = stream(REGISTERED, (0, 100, 10_000), Ok(()));
        assert_eq!(together(&[player, stranger, vec![(11_900, THIRD, Ok(()))]]), THIRD);
    }

    #[test]
    fn a_source_that_was_there_before_the_pair_does_not_take_an_unheard_place() {
        let mut early = Sources::default();
        early.note(OTHER.parse().unwrap(), None, Timestamp::START);
        let early = early.into_early(Timestamp::START);
        let mut latch = Latch::with_early(REGISTERED.parse().unwrap(), early, Timestamp::START);
        let hear = |source: &str, latch: &mut Latch| {
            hear(latch, source.parse().unwrap(), Latching::SameIp, Timestamp::START)
        };
        assert_eq!(hear(OTHER, &mut latch), Err(WrongPort));
        latch.reset("198.51.100.1:1001".parse().unwrap());
        assert_eq!(hear(OTHER, &mut latch), Err(WrongPort), "also after a registration");
        assert_eq!(hear(THIRD, &mut latch), Ok(()));
    }

    #[test]
    fn the_registered_address_claims_a_settling_place_once_and_a_settled_one_never() {
        let back = stream(OTHER, (2050, 100, 3250), Err(WrongPort));
        let again = stream(OTHER, (3250, 100, 20_000), Ok(()));
        let mut first = stream(OTHER, (0, 100, 2000), Ok(()));
        first.push((2000, REGISTERED, Ok(())));
        let forger = stream(REGISTERED, (4020, 2000, 20_000), Err(WrongPort));
        together(&[first, back, again, forger]);
    }

    #[test]
    fn a_private_id_puts_a_settled_address_in_doubt_once() {
        let at = |millis| Timestamp::START + Duration::from_millis(millis);
        let mut latch = Latch::new(REGISTERED.parse().unwrap(), Timestamp::START);
        let send = |latch: &mut Latch, source: &str, millis| {
            hear(latch, source.parse().unwrap(), Latching::SameIp, at(millis))
        };
        for millis in (0..10_000).step_by(500) {
            assert_eq!(send(&mut latch, THIRD, millis), Ok(()), "the neighbour was first");
        }
        latch.doubt(at(9600));
        assert_eq!(latch.state(at(9600)), LatchState::Settled, "nobody else was heard");
        send(&mut latch, REGISTERED, 9700).unwrap_err();
        latch.doubt(at(9800));
        assert_eq!(send(&mut latch, REGISTERED, 9900), Ok(()));
        assert_eq!(latch.state(at(9900)), LatchState::Settling);
    }

    #[test]
    fn a_sprayer_latches_nowhere() {
        let mut latch = Latch::new(REGISTERED.parse().unwrap(), Timestamp::START);
        let mut spray = |source: &str| {
            let source = source.parse().unwrap();
            latch.hear_other(source, true, Latching::SameIp, Timestamp::START)
        };
        assert_eq!(spray(OTHER), Err(WrongPort));
        assert_eq!(spray(FOREIGN), Err(WrongIp));
        latch
            .hear_other(OTHER.parse().unwrap(), false, Latching::SameIp, Timestamp::START)
            .unwrap();
        let registered =
            latch.hear_other(REGISTERED.parse().unwrap(), true, Latching::SameIp, Timestamp::START);
        assert_eq!(registered, Ok(()));
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
        latch.reset(FOREIGN.parse().unwrap());
        assert_eq!((latch.address().to_string().as_str(), latch.heard()), (FOREIGN, None));
        assert_eq!(hear_registered(&mut latch), Err(WrongIp));
    }
}
