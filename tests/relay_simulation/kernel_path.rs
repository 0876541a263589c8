//! The kernel's path in the simulation: the real grants, and a model of the program in the kernel's place.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use noray::core::relay::{Action, RelayPort, RelayTable};
use noray::kernel::grants::TICK;
use noray::kernel::interfaces::Interface;
use noray::kernel::layout::{PairState, Route, SIZE_CLASSES, address_bytes};
use noray::kernel::{Egress, Grants, Kernel};
use noray::limits::relay::charged_bytes;
use noray::time::Timestamp;

use crate::OWN_IP;
use crate::kernel_model::{Arrival, Model};

const TICK_NANOS: u64 = TICK.as_nanos() as u64;

/// The program and its clock.
#[derive(Clone, Default)]
struct Program {
    model: Arc<Mutex<Model>>,
    clock: Arc<AtomicU64>,
}

/// The grants beside the simulation's table.
pub(crate) struct KernelPath {
    grants: Grants,
    program: Program,
    ticked: u64,
}

impl KernelPath {
    pub(crate) fn new(ports: &[RelayPort]) -> Self {
        let program = Program::default();
        program.model().pairs = vec![PairState::default(); ports.len()];
        program.model().addresses = [address_bytes(OWN_IP)].into();
        let kernel = Box::new(program.clone());
        let grants = Grants::new(kernel, ports, Timestamp::from_nanos(0));
        Self { grants, program, ticked: 0 }
    }

    /// All that was due until `now`. From here on it is now for the kernel too.
    pub(crate) fn pass_time(&mut self, table: &mut RelayTable, now: u64) {
        while self.ticked + TICK_NANOS <= now {
            self.ticked += TICK_NANOS;
            let at = self.begin_turn(table, self.ticked);
            self.grants.tick(table, at);
            assert!(self.grants.take_failure().is_none());
        }
        self.begin_turn(table, now);
    }

    fn begin_turn(&mut self, table: &mut RelayTable, now: u64) -> Timestamp {
        self.program.clock.store(now, Ordering::Relaxed);
        let now = Timestamp::from_nanos(now);
        self.grants.begin_turn(table, now);
        now
    }

    /// Where the program sends a datagram, if it does.
    pub(crate) fn forward(&self, at: u16, source: SocketAddr, length: usize) -> Option<Action> {
        let arrival = Arrival {
            from: (source.ip(), source.port()),
            at: (OWN_IP, at),
            length: charged_bytes(length) as usize,
            payload: length,
        };
        let route = self.program.model().handle(&arrival, self.program.clock())?;
        Some(Action::Forward { via: RelayPort(route.via.port()), to: route.to })
    }

    /// The sockets have a datagram; `judge` does what the table does with it.
    pub(crate) fn judge(
        &mut self,
        at: RelayPort,
        table: &mut RelayTable,
        now: Timestamp,
        judge: impl FnOnce(&mut RelayTable) -> Action,
    ) -> Action {
        self.grants.prepare(at, table, now);
        let action = judge(table);
        let is_forwarded = matches!(action, Action::Forward { .. });
        self.grants.conclude(at, is_forwarded, table, now);
        if is_forwarded {
            self.grants.note_relayed(at, now);
        }
        action
    }

    /// Before the table handles anything else.
    pub(crate) fn refresh(&mut self, table: &mut RelayTable, now: Timestamp) {
        self.grants.refresh(table, now);
    }

    /// Afterwards.
    pub(crate) fn follow(&mut self, table: &mut RelayTable, now: Timestamp) {
        let changed: Vec<RelayPort> = table.take_changed().collect();
        changed.into_iter().for_each(|at| self.grants.check(at, table, now));
    }

    pub(crate) fn close(&mut self, ports: [RelayPort; 2], table: &mut RelayTable, now: Timestamp) {
        self.grants.close(ports, table, now);
    }
}

impl Program {
    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }
}

impl Kernel for Program {
    fn clock(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    fn beat(&mut self, now: u64) -> io::Result<()> {
        self.model().beat = now;
        Ok(())
    }

    fn set_pair(&mut self, slot: u32, state: &PairState) -> io::Result<()> {
        self.model().pairs[slot as usize] = *state;
        Ok(())
    }

    fn pair(&self, slot: u32) -> io::Result<PairState> {
        Ok(self.model().pairs[slot as usize])
    }

    fn set_route(&mut self, port: RelayPort, route: &Route) -> io::Result<()> {
        self.model().routes.insert(port.0, route.clone());
        Ok(())
    }

    fn remove_route(&mut self, port: RelayPort) -> io::Result<()> {
        self.model().routes.remove(&port.0);
        Ok(())
    }

    fn sizes(&self) -> io::Result<[u64; SIZE_CLASSES]> {
        Ok(self.model().sizes)
    }

    fn set_interfaces(&mut self, _: Vec<Interface>) {}

    fn set_addresses(&mut self, _: &BTreeSet<IpAddr>) -> io::Result<()> {
        Ok(())
    }

    fn egress(&self, _: SocketAddr) -> Option<Egress> {
        Some(Egress { via: OWN_IP, interface: 1, mtu: 65_535, ttl: 64 })
    }
}
