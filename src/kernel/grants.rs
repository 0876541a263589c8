//! The grants: which pairs the kernel forwards now, and how the core and the kernel hear of each other.
//!
//! A pair is granted at a tick, if the core offers it and each of its two players was relayed by the sockets a moment ago.
//! So whoever the machine's firewall keeps from the sockets is never forwarded. A grant ends as soon as the core offers the
//! pair no more or differently, and when a datagram of it passed through the sockets: then the core's buckets are the
//! right ones again.
//!
//! Before the core judges anything about a granted pair, it hears what the kernel forwarded until then
//! ([`Grants::prepare`], [`Grants::refresh`]).

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use crate::core::relay::{Judge, KernelTraffic, Offer, PortMap, RelayPort};
use crate::time::Timestamp;

use super::api::Kernel;
use super::clock::Clocks;
use super::grant::Grant;
use super::interfaces::Interface;
use super::layout::SIZE_CLASSES;

/// How often the kernel gets a heartbeat, all grants are read, and new ones are given.
pub const TICK: Duration = Duration::from_millis(500);

/// The core may know of what the kernel forwarded only so late for each grant, except where it judges a datagram. Reading
/// one takes a microsecond, so that reading takes at most a few per cent of the time.
const FRESHNESS_PER_GRANT: Duration = Duration::from_micros(50);

/// How long a [proof](super::grant::PROOF_INTERVAL) may take.
const PROOF_PATIENCE: Duration = Duration::from_secs(2);

/// For how long a datagram that the sockets relayed shows that they would relay the next one.
const RELAYED_LATELY: Duration = Duration::from_secs(2);

/// For so long after a grant what comes through the sockets is taken for what waited there. noray alone charges that.
const IN_FLIGHT: Duration = Duration::from_millis(100);

/// How often the route to a player is looked up again. The kernel tells of most changes, but not of a smaller path MTU.
const LOOK_UP_INTERVAL: Duration = Duration::from_secs(10);

/// What the kernel forwarded, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Datagrams.
    pub datagrams: u64,
    /// Their payload in bytes.
    pub payload: u64,
    /// Datagrams of each class of sizes.
    pub sizes: [u64; SIZE_CLASSES],
}

/// All grants.
pub struct Grants {
    kernel: Box<dyn Kernel>,
    clocks: Clocks,
    grants: Vec<Option<Grant>>,
    /// The slots without a grant. The one that was given back first is used first: for a moment the program may still
    /// write to it.
    vacant: VecDeque<u32>,
    slots: PortMap<u32>,
    /// When the sockets last relayed something that came to a port that is not granted.
    relayed: PortMap<Timestamp>,
    /// Such ports since the last tick, each once.
    candidates: Vec<RelayPort>,
    ticked: Timestamp,
    last_read: Timestamp,
    tally: Tally,
    sizes: [u64; SIZE_CLASSES],
    /// Set if a map failed. Then the kernel's path must end.
    failure: Option<io::Error>,
}

impl Grants {
    /// No grants, with room for a pair for every two of the `ports`.
    pub fn new(kernel: Box<dyn Kernel>, ports: &[RelayPort], now: Timestamp) -> Self {
        let clocks = Clocks::new(kernel.clock(), now);
        let slots = u32::try_from(ports.len().div_ceil(2)).expect("there are at most 65536 ports");
        Self {
            kernel,
            clocks,
            grants: (0..slots).map(|_| None).collect(),
            vacant: (0..slots).collect(),
            slots: PortMap::new(ports.iter().copied()),
            relayed: PortMap::new(ports.iter().copied()),
            candidates: Vec::new(),
            ticked: now,
            last_read: now,
            tally: Tally::default(),
            sizes: [0; SIZE_CLASSES],
            failure: None,
        }
    }

    /// How many pairs the kernel forwards.
    pub fn len(&self) -> usize {
        self.grants.len() - self.vacant.len()
    }

    /// Whether the kernel forwards no pair.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the kernel forwards what comes to this port.
    pub fn is_granted(&self, port: RelayPort) -> bool {
        self.slots.get(port).is_some()
    }

    /// What was forwarded since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Why the kernel's path must end, if it must.
    pub fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// Begins a turn of the loop. If the process stood still before, the core hears of all that was forwarded.
    pub fn begin_turn(&mut self, core: &mut dyn Judge, now: Timestamp) {
        if self.clocks.update(self.kernel.clock(), now) {
            self.read_all(core, now);
        }
    }

    /// Before the core judges a datagram that came to the socket of this port: the core hears what the kernel forwarded
    /// of the pair.
    pub fn prepare(&mut self, at: RelayPort, core: &mut dyn Judge, now: Timestamp) {
        if let Some(slot) = self.slots.get(at) {
            self.read(*slot, core, now);
        }
    }

    /// After the core judged a datagram at this port, and before it is sent on: whoever gets it may answer before the
    /// next line of this process runs.
    pub fn conclude(
        &mut self,
        at: RelayPort,
        is_forwarded: bool,
        core: &mut dyn Judge,
        now: Timestamp,
    ) {
        let Some(slot) = self.slots.get(at).copied() else { return };
        let Some(grant) = &self.grants[slot as usize] else { return };
        let is_awaited = grant.awaited[grant.sender_at(at)].is_some();
        if is_forwarded && !is_awaited && now.since(grant.since) >= IN_FLIGHT {
            // Only the core's bucket was charged.
            self.withdraw(slot, core, now);
        } else {
            self.check(at, core, now);
        }
    }

    /// The sockets have sent on what came to this port: neither the firewall nor the routes are against it.
    pub fn note_relayed(&mut self, at: RelayPort, now: Timestamp) {
        if let Some(slot) = self.slots.get(at)
            && let Some(grant) = &mut self.grants[*slot as usize]
        {
            let sender = grant.sender_at(at);
            grant.awaited[sender] = None;
            return;
        }
        let is_known = self.relayed.get(at).is_some_and(|relayed| *relayed >= self.ticked);
        self.relayed.insert(at, now);
        if !is_known {
            self.candidates.push(at);
        }
    }

    /// The pair that has this port may have changed.
    pub fn check(&mut self, at: RelayPort, core: &mut dyn Judge, now: Timestamp) {
        if let Some(slot) = self.slots.get(at).copied()
            && !self.is_right(slot, core, now)
        {
            self.withdraw(slot, core, now);
        }
    }

    /// The pair that had these ports is closed.
    pub fn close(&mut self, ports: [RelayPort; 2], core: &mut dyn Judge, now: Timestamp) {
        if let Some(slot) = self.slots.get(ports[0]).copied() {
            self.withdraw(slot, core, now);
        }
        for port in ports {
            self.relayed.remove(port);
        }
    }

    fn is_right(&self, slot: u32, core: &dyn Judge, now: Timestamp) -> bool {
        let Some(grant) = &self.grants[slot as usize] else { return true };
        let is_same = |offer: Offer| offer.is_same_way(&grant.offer);
        core.offer(grant.offer.ports[0], now).is_some_and(is_same)
    }

    /// Before the core judges something that may concern any pair: it hears what the kernel forwarded, unless it did a
    /// moment ago. Returns whether it did now.
    pub fn refresh(&mut self, core: &mut dyn Judge, now: Timestamp) -> bool {
        let grants = u32::try_from(self.len()).unwrap_or(u32::MAX);
        let is_due = grants > 0 && now.since(self.last_read) >= FRESHNESS_PER_GRANT * grants;
        if is_due {
            self.read_all(core, now);
        }
        is_due
    }

    /// The core hears all that the kernel forwarded until now.
    pub fn read_all(&mut self, core: &mut dyn Judge, now: Timestamp) {
        for slot in 0..self.grants.len() {
            if self.grants[slot].is_some() {
                self.read(slot as u32, core, now);
            }
        }
        self.last_read = now;
        core.handle_kernel_reading(now);
    }

    fn read(&mut self, slot: u32, core: &mut dyn Judge, now: Timestamp) {
        let Some(grant) = &mut self.grants[slot as usize] else { return };
        let state = match self.kernel.pair(slot) {
            Ok(state) => state,
            Err(error) => return note_failure(&mut self.failure, error),
        };
        for (sender, (is, was)) in state.sent.iter().zip(&grant.read.sent).enumerate() {
            if is.proofs != was.proofs {
                grant.awaited[sender].get_or_insert(now);
            }
            let traffic = KernelTraffic {
                at: grant.offer.ports[1 - sender],
                source: grant.offer.players[sender],
                datagrams: is.datagrams.wrapping_sub(was.datagrams),
                payload: is.payload.wrapping_sub(was.payload),
                heard: self.clocks.to_core(is.heard),
                full_at: self.clocks.to_core_ahead(is.full_at),
            };
            if traffic.datagrams > 0 {
                self.tally.datagrams += traffic.datagrams;
                self.tally.payload += traffic.payload;
                core.handle_kernel_traffic(&traffic, now);
            }
        }
        grant.read = state;
    }

    /// Ends the grant: first the routes, then the core hears the last that was forwarded.
    fn withdraw(&mut self, slot: u32, core: &mut dyn Judge, now: Timestamp) {
        let Some(grant) = &self.grants[slot as usize] else { return };
        let ports = grant.offer.ports;
        log::trace!("relay {}+{}: the kernel forwards no more", ports[1], ports[0]);
        for port in ports {
            self.try_to(|kernel| kernel.remove_route(port));
            self.slots.remove(port);
            self.relayed.remove(port);
        }
        self.read(slot, core, now);
        self.grants[slot as usize] = None;
        self.vacant.push_back(slot);
    }

    /// Ends all grants. A pair is granted anew after the sockets have relayed for both players.
    pub fn withdraw_all(&mut self, core: &mut dyn Judge, now: Timestamp) {
        for slot in 0..self.grants.len() {
            self.withdraw(slot as u32, core, now);
        }
        for port in std::mem::take(&mut self.candidates) {
            self.relayed.remove(port);
        }
        self.read_sizes();
        core.handle_kernel_reading(now);
    }

    /// What is due every [`TICK`]: a heartbeat, the core hears of everything, grants end and begin.
    pub fn tick(&mut self, core: &mut dyn Judge, now: Timestamp) {
        let beat = self.clocks.kernel();
        self.try_to(|kernel| kernel.beat(beat));
        self.read_all(core, now);
        self.read_sizes();
        for slot in 0..self.grants.len() {
            if self.grants[slot].is_some() && !self.may_stay(slot as u32, core, now) {
                self.withdraw(slot as u32, core, now);
            }
        }
        self.ticked = now;
        for port in std::mem::take(&mut self.candidates) {
            self.grant(port, core, now);
        }
    }

    /// The machine's addresses are these.
    pub fn set_addresses(&mut self, ips: &BTreeSet<IpAddr>) {
        self.try_to(|kernel| kernel.set_addresses(ips));
    }

    /// The machine's interfaces are these, or its routes have changed: all routes are looked up again.
    pub fn handle_machine_change(
        &mut self,
        interfaces: Vec<Interface>,
        core: &mut dyn Judge,
        now: Timestamp,
    ) {
        self.kernel.set_interfaces(interfaces);
        for slot in 0..self.grants.len() {
            if self.grants[slot].is_some() && !self.has_same_egresses(slot as u32, now) {
                self.withdraw(slot as u32, core, now);
            }
        }
    }

    fn may_stay(&mut self, slot: u32, core: &dyn Judge, now: Timestamp) -> bool {
        let Some(grant) = &self.grants[slot as usize] else { return true };
        let is_overdue = |since: &Option<Timestamp>| {
            since.is_some_and(|since| now.since(since) >= PROOF_PATIENCE)
        };
        let is_proved = !grant.awaited.iter().any(is_overdue);
        let is_due = now.since(grant.looked_up) >= LOOK_UP_INTERVAL;
        is_proved
            && self.is_right(slot, core, now)
            && (!is_due || self.has_same_egresses(slot, now))
    }

    fn has_same_egresses(&mut self, slot: u32, now: Timestamp) -> bool {
        let Some(grant) = &mut self.grants[slot as usize] else { return true };
        grant.looked_up = now;
        let egresses = grant.offer.players.map(|player| self.kernel.egress(player));
        egresses == grant.egresses.map(Some)
    }

    /// Grants the pair that has this port, if it may be.
    fn grant(&mut self, port: RelayPort, core: &dyn Judge, now: Timestamp) {
        if self.is_granted(port) {
            return;
        }
        let Some(offer) = core.offer(port, now) else { return };
        let is_relayed = |port: &RelayPort| {
            self.relayed.get(*port).is_some_and(|at| now.since(*at) < RELAYED_LATELY)
        };
        if !offer.ports.iter().all(is_relayed) {
            return;
        }
        let egresses = offer.players.map(|player| self.kernel.egress(player));
        let [Some(to_asker), Some(to_host)] = egresses else { return };
        let Some(slot) = self.vacant.pop_front() else { return };
        let grant = Grant::new(offer, [to_asker, to_host], &self.clocks, now);
        self.try_to(|kernel| kernel.set_pair(slot, &grant.read));
        for sender in [0, 1] {
            let route = grant.route(slot, sender, &self.clocks);
            let at = grant.offer.ports[1 - sender];
            self.try_to(|kernel| kernel.set_route(at, &route));
            self.slots.insert(at, slot);
        }
        let Offer { ports: [one, other], players: [asker, host], .. } = grant.offer;
        log::trace!("relay {other}+{one}: the kernel forwards between {asker} and {host}");
        self.grants[slot as usize] = Some(grant);
    }

    fn read_sizes(&mut self) {
        match self.kernel.sizes() {
            Ok(sizes) => {
                for (class, (is, was)) in sizes.iter().zip(&self.sizes).enumerate() {
                    self.tally.sizes[class] += is - was;
                }
                self.sizes = sizes;
            }
            Err(error) => note_failure(&mut self.failure, error),
        }
    }

    fn try_to(&mut self, action: impl FnOnce(&mut dyn Kernel) -> io::Result<()>) {
        if let Err(error) = action(&mut *self.kernel) {
            note_failure(&mut self.failure, error);
        }
    }
}

fn note_failure(failure: &mut Option<io::Error>, error: io::Error) {
    failure.get_or_insert(error);
}

#[cfg(test)]
mod tests;
