use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::*;
use crate::core::relay::Offer;
use crate::kernel::api::Egress;
use crate::kernel::layout::{PairState, Route};

const PORTS: [RelayPort; 2] = [RelayPort(49_152), RelayPort(49_153)];
const ASKER: usize = 0;

/// A kernel whose clock and program the test moves.
#[derive(Default)]
struct State {
    clock: u64,
    routes: BTreeSet<RelayPort>,
    pair: PairState,
    is_broken: bool,
}

#[derive(Clone, Default)]
struct Model(Arc<Mutex<State>>);

impl Kernel for Model {
    fn clock(&self) -> u64 {
        self.0.lock().clock
    }

    fn beat(&mut self, _: u64) -> io::Result<()> {
        if self.0.lock().is_broken { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
    }

    fn set_pair(&mut self, _: u32, state: &PairState) -> io::Result<()> {
        self.0.lock().pair = *state;
        Ok(())
    }

    fn pair(&self, _: u32) -> io::Result<PairState> {
        Ok(self.0.lock().pair)
    }

    fn set_route(&mut self, port: RelayPort, _: &Route) -> io::Result<()> {
        self.0.lock().routes.insert(port);
        Ok(())
    }

    fn remove_route(&mut self, port: RelayPort) -> io::Result<()> {
        self.0.lock().routes.remove(&port);
        Ok(())
    }

    fn sizes(&self) -> io::Result<[u64; SIZE_CLASSES]> {
        Ok([0; SIZE_CLASSES])
    }

    fn set_interfaces(&mut self, _: Vec<Interface>) {}

    fn set_addresses(&mut self, _: &BTreeSet<IpAddr>) -> io::Result<()> {
        Ok(())
    }

    fn egress(&self, _: SocketAddr) -> Option<Egress> {
        Some(Egress { via: IpAddr::from([192, 0, 2, 200]), interface: 1, mtu: 1500, ttl: 64 })
    }
}

/// A core with one pair, which it offers or not.
struct OnePair {
    offer: Option<Offer>,
    heard: u64,
}

impl Judge for OnePair {
    fn offer(&self, at: RelayPort, _: Timestamp) -> Option<Offer> {
        self.offer.clone().filter(|offer| offer.ports.contains(&at))
    }

    fn handle_kernel_traffic(&mut self, traffic: &KernelTraffic, _: Timestamp) {
        self.heard += traffic.datagrams;
    }

    fn handle_kernel_reading(&mut self, _: Timestamp) {}
}

struct Play {
    model: Model,
    grants: Grants,
    core: OnePair,
    now: Timestamp,
}

impl Play {
    fn new() -> Self {
        let (model, now) = (Model::default(), Timestamp::START);
        let offer = Offer {
            ports: PORTS,
            players: [1, 2].map(|last| SocketAddr::from(([192, 0, 2, last], 4000))),
            heard: [now; 2],
            patience: [Duration::from_secs(30); 2],
            full_at: [now; 2],
            rate: 1_000_000,
            burst: Duration::from_secs(1),
            until: now + Duration::from_secs(3600),
            left: 1_000_000,
        };
        let grants = Grants::new(Box::new(model.clone()), &PORTS, now);
        Self { model, grants, core: OnePair { offer: Some(offer), heard: 0 }, now }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.model.0.lock().clock = self.now.as_nanos();
        self.grants.begin_turn(&mut self.core, self.now);
    }

    /// The time passes in ticks.
    fn tick_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.pass(TICK);
            self.grants.tick(&mut self.core, self.now);
        }
    }

    fn granted() -> Self {
        let mut play = Self::new();
        PORTS.into_iter().for_each(|port| play.grants.note_relayed(port, play.now));
        play.tick_for(TICK);
        assert_eq!(play.routes(), 2);
        play
    }

    fn routes(&self) -> usize {
        assert_eq!(self.model.0.lock().routes.is_empty(), self.grants.is_empty());
        self.model.0.lock().routes.len()
    }

    /// The program forwards a datagram of the asker.
    fn forward(&mut self) {
        let mut state = self.model.0.lock();
        let clock = state.clock;
        let sent = &mut state.pair.sent[ASKER];
        (sent.datagrams, sent.heard) = (sent.datagrams + 1, clock);
    }

    /// The program lets a datagram of the asker up as a proof.
    fn prove(&mut self) {
        self.model.0.lock().pair.sent[ASKER].proofs += 1;
    }

    /// A datagram of the asker comes to its socket, and the core has it sent on.
    fn relay(&mut self) {
        let [_, at] = PORTS;
        self.grants.prepare(at, &mut self.core, self.now);
        self.grants.conclude(at, true, &mut self.core, self.now);
        self.grants.note_relayed(at, self.now);
    }
}

#[test]
fn a_pair_is_granted_after_the_sockets_relayed_for_both() {
    let mut play = Play::new();
    play.grants.note_relayed(PORTS[0], play.now);
    play.tick_for(TICK);
    assert_eq!(play.routes(), 0, "the firewall may block the other");
    play.grants.note_relayed(PORTS[1], play.now);
    play.tick_for(TICK);
    assert_eq!(play.routes(), 2);
}

#[test]
fn what_was_relayed_long_ago_shows_nothing() {
    let mut play = Play::new();
    play.grants.note_relayed(PORTS[0], play.now);
    play.tick_for(RELAYED_LATELY);
    play.grants.note_relayed(PORTS[1], play.now);
    play.tick_for(TICK);
    assert_eq!(play.routes(), 0);
}

#[test]
fn a_proof_that_the_firewall_drops_ends_the_grant() {
    let mut play = Play::granted();
    play.prove();
    play.tick_for(PROOF_PATIENCE);
    assert_eq!(play.routes(), 2, "it may still come");
    play.tick_for(TICK);
    assert_eq!(play.routes(), 0);
}

#[test]
fn a_proof_that_arrives_keeps_the_grant() {
    let mut play = Play::granted();
    for _ in 0..5 {
        play.prove();
        play.tick_for(PROOF_PATIENCE / 2);
        play.relay();
    }
    play.tick_for(2 * PROOF_PATIENCE);
    assert_eq!(play.routes(), 2);
}

#[test]
fn a_datagram_that_the_sockets_relayed_ends_the_grant() {
    let mut play = Play::granted();
    play.relay();
    assert_eq!(play.routes(), 2, "it waited there when the kernel took over");
    play.pass(IN_FLIGHT);
    play.relay();
    assert_eq!(play.routes(), 0);
}

#[test]
fn the_core_hears_everything_before_it_judges_and_when_a_grant_ends() {
    let mut play = Play::granted();
    play.forward();
    play.grants.prepare(PORTS[0], &mut play.core, play.now);
    assert_eq!(play.core.heard, 1);
    play.forward();
    play.core.offer = None;
    play.grants.check(PORTS[0], &mut play.core, play.now);
    assert_eq!((play.core.heard, play.routes()), (2, 0));
    assert_eq!(play.grants.take_tally().datagrams, 2);
}

#[test]
fn a_pair_that_is_closed_or_offered_differently_is_withdrawn() {
    let mut play = Play::granted();
    play.grants.close(PORTS, &mut play.core, play.now);
    assert_eq!(play.routes(), 0);

    let mut play = Play::granted();
    play.core.offer.as_mut().unwrap().players[ASKER].set_port(4001);
    play.tick_for(TICK);
    assert_eq!(play.routes(), 0);
}

#[test]
fn a_map_that_fails_is_told() {
    let mut play = Play::granted();
    assert!(play.grants.take_failure().is_none());
    play.model.0.lock().is_broken = true;
    play.tick_for(TICK);
    assert!(play.grants.take_failure().is_some());
}
