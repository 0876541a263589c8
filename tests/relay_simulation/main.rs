//! Random players behind random routers against the relay table, step by step beside a model that is written
//! another way. A failure prints the seed; `NORAY_SIM_SEED=17 cargo test --test relay_simulation` replays it.

#[path = "../support/kernel_model.rs"]
mod kernel_model;
mod kernel_path;
mod model;

use noray::label::Label;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use fastrand::Rng;
use kernel_path::KernelPath;
use model::{Model, SECOND};
use noray::core::id::PlayerId;
use noray::core::relay::{
    Action, ClosedPair, DropReason, Latching, OwnAddresses, Party, RelayPort, RelaySettings,
    RelayTable,
};
use noray::limits::relay::RelayLimits;
use noray::limits::share::HardCap;
use noray::time::Timestamp;

const STEPS: usize = 2000;
const REGISTRAR: u16 = 8809;
const OWN_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

#[test]
fn the_table_does_what_the_model_says() {
    run(Side::Sockets);
}

/// The model knows nothing of the kernel's path: whatever the program forwards, the table would have.
#[test]
fn the_table_and_the_kernels_path_do_what_the_model_says() {
    run(Side::WithKernel);
}

/// Who forwards.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Sockets,
    WithKernel,
}

impl Side {
    fn seeds(self) -> u64 {
        match self {
            Self::Sockets => 200,
            Self::WithKernel => 100,
        }
    }
}

fn run(side: Side) {
    let seeds = match replayed_seed() {
        Some(seed) => seed..seed + 1,
        None => 0..side.seeds(),
    };
    let (mut forwarded, mut by_kernel) = (0, 0);
    let mut dropped = [0; DropReason::ALL.len()];
    for seed in seeds.clone() {
        let run = catch_unwind(AssertUnwindSafe(|| {
            let mut world = World::new(seed, side);
            (0..STEPS).for_each(|_| world.step());
            (world.forwarded, world.forwarded_by_kernel, world.dropped)
        }));
        let (more_forwarded, more_by_kernel, more_dropped) = run.unwrap_or_else(|panic| {
            println!(
                "failed; replay with NORAY_SIM_SEED={seed} cargo test --test relay_simulation"
            );
            resume_unwind(panic)
        });
        forwarded += more_forwarded;
        by_kernel += more_by_kernel;
        dropped.iter_mut().zip(more_dropped).for_each(|(sum, more)| *sum += more);
    }
    println!("{forwarded} forwarded, {by_kernel} of them by the kernel");
    let is_whole = seeds.end - seeds.start == side.seeds();
    assert!(
        !is_whole || (side == Side::WithKernel) == (10 * by_kernel > forwarded),
        "a dull world"
    );
    for (reason, count) in DropReason::ALL.iter().zip(dropped) {
        println!("{count} dropped: {}", reason.label());
        let is_the_shells = matches!(
            reason,
            DropReason::SendBufferFull | DropReason::TooLarge | DropReason::SendFailed
        );
        // The kernel's path has a rate of all relays of its own, so that rate is no part of its world.
        let is_elsewhere = side == Side::WithKernel && *reason == DropReason::GlobalBandwidth;
        assert!(
            count > 0 || is_the_shells || is_elsewhere || !is_whole,
            "{reason:?} never happened: a dull world"
        );
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the seed to replay comes from the person at the keyboard"
)]
fn replayed_seed() -> Option<u64> {
    std::env::var("NORAY_SIM_SEED").ok().map(|seed| seed.parse().expect("a number"))
}

/// A player, its router, and what that router mapped where.
struct Player {
    id: u64,
    /// Where its connection comes from.
    connected_from: IpAddr,
    /// Where its datagrams come from: elsewhere, if it moved since or forges them.
    ip: IpAddr,
    /// RFC 4787: address- and port-dependent mapping, another external port for each destination.
    is_symmetric: bool,
    mappings: HashMap<u16, u16>,
    registered: SocketAddr,
    is_connected: bool,
}

struct World {
    random: Rng,
    now: u64,
    table: RelayTable,
    model: Model,
    players: Vec<Player>,
    next_id: u64,
    next_mapping: u16,
    settings: RelaySettings,
    ports: Vec<u16>,
    kernel: Option<KernelPath>,
    forwarded: u64,
    forwarded_by_kernel: u64,
    dropped: [u64; DropReason::ALL.len()],
}

impl World {
    fn new(seed: u64, side: Side) -> Self {
        let mut random = Rng::with_seed(seed);
        let latching = *random
            .choice([Latching::SameIp, Latching::SameIp, Latching::Any, Latching::Off].iter())
            .unwrap();
        // Rates divide a second's nanoseconds, so that model and table round alike: not at all.
        let limits = RelayLimits {
            pair_rate: *random.choice([20_000, 100_000, 1_000_000].iter()).unwrap(),
            global_rate: match side {
                Side::Sockets => *random.choice([100_000, 1_000_000, 100_000_000].iter()).unwrap(),
                Side::WithKernel => 1_000_000_000,
            },
            burst: Duration::from_millis(random.u64(50..500)),
            lifetime: Duration::from_secs(random.u64(60..600)),
            lifetime_traffic: random.u64(200_000..4_000_000),
            idle_timeout: Duration::from_secs(random.u64(5..40)),
            max_per_network: HardCap(random.bool().then(|| random.usize(1..10))),
            crowd: random.usize(1..5),
        };
        let ports: Vec<u16> = (0..random.u16(6..16)).map(|index| 50_000 + 3 * index).collect();
        let relay_ports: Vec<RelayPort> = ports.iter().copied().map(RelayPort).collect();
        let settings = RelaySettings { limits, latching };
        let own = OwnAddresses::new([OWN_IP], ports.iter().copied());
        Self {
            random,
            now: 0,
            table: RelayTable::new(settings, own, &relay_ports),
            model: Model::new(settings, OWN_IP, &ports),
            settings,
            players: Vec::new(),
            next_id: 0,
            next_mapping: 1024,
            ports,
            kernel: (side == Side::WithKernel).then(|| KernelPath::new(&relay_ports)),
            forwarded: 0,
            forwarded_by_kernel: 0,
            dropped: [0; DropReason::ALL.len()],
        }
    }

    fn step(&mut self) {
        self.pass_time();
        match self.random.u8(..100) {
            0..5 => self.join(),
            5..8 => self.leave(),
            8..15 => self.introduce(),
            15..19 => self.rebind(),
            19..22 => self.register_elsewhere(),
            22..27 => self.sweep(),
            27..37 => self.stranger(),
            37..41 => self.flood(),
            41..44 => self.handshake(),
            44..47 => self.hijack(),
            47..50 => self.move_seamlessly(),
            50..55 => self.repeat_private_id(),
            55 => self.contend(),
            56..58 => self.spray(),
            _ => self.play(),
        }
        self.follow();
        self.table.check_invariants();
        let ports = self.table.ports();
        let counts = (self.table.pairs(), ports.free(), ports.reserved());
        assert_eq!(counts, self.model.counts(), "pairs, free, reserved");
    }

    fn pass_time(&mut self) {
        self.now += match self.random.u8(..100) {
            0..85 => self.random.u64(..SECOND / 20),
            85..98 => self.random.u64(..3 * SECOND),
            _ => self.random.u64(..60 * SECOND),
        };
    }

    /// The kernel's path is where the table is in time. It tells the table what was forwarded.
    fn refresh(&mut self) {
        let now = self.now();
        if let Some(kernel) = &mut self.kernel {
            kernel.pass_time(&mut self.table, self.now);
            kernel.refresh(&mut self.table, now);
        }
    }

    /// The kernel's path hears what has changed.
    fn follow(&mut self) {
        let now = self.now();
        if let Some(kernel) = &mut self.kernel {
            kernel.follow(&mut self.table, now);
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.now)
    }

    /// The index of a player; of one that is connected, if it matters.
    fn someone(&mut self, must_be_connected: bool) -> Option<usize> {
        let fitting: Vec<usize> = (0..self.players.len())
            .filter(|index| !must_be_connected || self.players[*index].is_connected)
            .collect();
        self.random.choice(fitting.iter()).copied()
    }

    fn some_ip(&mut self) -> IpAddr {
        // Few enough that players share one.
        IpAddr::V4(Ipv4Addr::new(198, 51, 100, self.random.u8(1..4)))
    }

    /// Where `destination` sees the player.
    fn external(&mut self, player: usize, destination: u16) -> SocketAddr {
        let next = &mut self.next_mapping;
        let player = &mut self.players[player];
        let key = if player.is_symmetric { destination } else { 0 };
        let port = *player.mappings.entry(key).or_insert_with(|| {
            *next = next.checked_add(1).unwrap_or(1024);
            *next
        });
        SocketAddr::new(player.ip, port)
    }

    fn join(&mut self) {
        if self.players.len() > 12 {
            self.players.remove(0);
        }
        let ip = self.some_ip();
        let connected_from = if self.random.u8(..8) == 0 { self.some_ip() } else { ip };
        let player = Player {
            id: self.next_id,
            connected_from,
            ip,
            is_symmetric: self.random.bool(),
            mappings: HashMap::new(),
            registered: SocketAddr::new(OWN_IP, 1),
            is_connected: true,
        };
        self.next_id += 1;
        self.players.push(player);
        let index = self.players.len() - 1;
        self.players[index].registered = self.external(index, REGISTRAR);
        self.table.reserve(PlayerId(self.players[index].id));
        self.model.reserve(self.players[index].id);
    }

    fn leave(&mut self) {
        let Some(index) = self.someone(true) else {
            return;
        };
        let player = &mut self.players[index];
        player.is_connected = false;
        self.table.cancel_reservation(PlayerId(player.id));
        self.model.leave(player.id);
    }

    fn introduce(&mut self) {
        let (Some(asker), Some(host)) = (self.someone(true), self.someone(true)) else {
            return;
        };
        if asker == host {
            return;
        }
        let [asker, host] = [asker, host].map(|index| {
            let Player { id, registered, connected_from, .. } = self.players[index];
            (id, registered, connected_from)
        });
        self.refresh();
        let party =
            |(id, address, connected_from)| Party { player: PlayerId(id), address, connected_from };
        let mut closed = Vec::new();
        let real = self.table.introduce(party(asker), party(host), self.now(), &mut closed);
        let real = real.ok().map(|ports| (ports.asker.0, ports.host.0));
        self.note_closed(closed);
        let expected = self.model.introduce(asker, host, self.now);
        assert_eq!(real, expected, "introduction");
    }

    /// The model is told which pairs were freed in which order, and checks that each had to be.
    fn note_closed(&mut self, closed: Vec<ClosedPair>) {
        for pair in closed {
            self.model.free(pair.ports.map(|port| port.0), self.now);
            let now = self.now();
            if let Some(kernel) = &mut self.kernel {
                kernel.close(pair.ports, &mut self.table, now);
            }
        }
    }

    fn rebind(&mut self) {
        if let Some(index) = self.someone(false) {
            self.players[index].mappings.clear();
        }
    }

    fn register_elsewhere(&mut self) {
        let Some(index) = self.someone(true) else {
            return;
        };
        if self.random.bool() {
            self.players[index].ip = self.some_ip();
        }
        self.players[index].mappings.clear();
        let address = self.external(index, REGISTRAR);
        let player = &mut self.players[index];
        player.registered = address;
        let id = player.id;
        self.refresh();
        self.table.handle_address_change(PlayerId(id), address);
        self.model.move_player(id, address);
        self.follow();
    }

    fn sweep(&mut self) {
        self.refresh();
        let mut closed = Vec::new();
        self.table.sweep(self.now(), &mut closed);
        self.note_closed(closed);
        self.model.check_swept(self.now);
    }

    /// A datagram from where no partner is, or not the one of that port.
    fn stranger(&mut self) {
        let ip = match self.random.u8(..8) {
            0 => OWN_IP,
            1 => IpAddr::V4(Ipv4Addr::new(224, 0, 0, 5)),
            2 => IpAddr::V4(Ipv4Addr::new(203, 0, 113, 77)),
            _ => self.some_ip(),
        };
        let port = match self.random.u8(..8) {
            0 => 0,
            1 => *self.random.choice(self.ports.iter()).unwrap(),
            // Somebody's port, now or formerly.
            2..6 => self.random.u16(1024..self.next_mapping.max(1025)),
            _ => self.random.u16(..),
        };
        let at = match self.random.u8(..10) {
            0 => self.random.u16(..),
            _ => *self.random.choice(self.ports.iter()).unwrap(),
        };
        self.datagram(at, SocketAddr::new(ip, port), 100);
    }

    /// A pair whose players both still exist: its index, and who sends to whom.
    fn some_pair(&mut self) -> Option<(usize, usize, u16, u16)> {
        let position = |id: u64| self.players.iter().position(|player| player.id == id);
        let known: Vec<(usize, usize, u16, u16)> = self
            .model
            .pairs
            .iter()
            .filter_map(|pair| {
                let [a, b] = pair.players.map(position);
                Some((a?, b?, pair.ports[0], pair.ports[1]))
            })
            .collect();
        let (a, b, a_port, b_port) = self.random.choice(known.iter()).copied()?;
        Some(if self.random.bool() { (a, b, a_port, b_port) } else { (b, a, b_port, a_port) })
    }

    fn play(&mut self) {
        let Some((sender, _, _, at)) = self.some_pair() else {
            return;
        };
        let source = self.external(sender, at);
        let length = self.random.usize(..1400);
        self.datagram(at, source, length);
    }

    fn flood(&mut self) {
        let Some((sender, _, _, at)) = self.some_pair() else {
            return;
        };
        let source = self.external(sender, at);
        let length = *self.random.choice([0, 100, 1400, 65_507].iter()).unwrap();
        for _ in 0..self.random.usize(20..200) {
            self.now += self.random.u64(..SECOND / 2000);
            self.datagram(at, source, length);
        }
    }

    /// Whatever happened before: if the two go on sending, each reaches the other where it really is.
    fn handshake(&mut self) {
        let Some((a, b, a_port, b_port)) = self.some_pair() else {
            return;
        };
        let (a_at, b_at) = (self.external(a, b_port), self.external(b, a_port));
        if self.settings.latching == Latching::Off
            && (a_at, b_at) != (self.players[a].registered, self.players[b].registered)
        {
            return;
        }
        if !self.model.is_trusted(b_port, a_at) || !self.model.is_trusted(a_port, b_at) {
            return;
        }
        // Long enough for debts to be paid and for silence to be noticed.
        self.now += 4 * SECOND;
        self.datagram(b_port, a_at, 4);
        self.datagram(a_port, b_at, 4);
        let (there, back) = (self.datagram(b_port, a_at, 4), self.datagram(a_port, b_at, 4));
        let is_refused = [there, back].iter().any(|action| {
            matches!(
                action,
                Action::Drop(
                    DropReason::LifetimeDuration
                        | DropReason::LifetimeTraffic
                        | DropReason::ReceiverUnheard
                        | DropReason::Unconfirmed
                )
            )
        });
        if !is_refused {
            assert_eq!(there, Action::Forward { via: RelayPort(a_port), to: b_at }, "there");
            assert_eq!(back, Action::Forward { via: RelayPort(b_port), to: a_at }, "and back");
        }
    }

    /// A neighbour behind the player's router tries all the time, and has its way when the player pauses. The
    /// player's next datagram ends that.
    fn hijack(&mut self) {
        let Some((player, _, _, at)) = self.some_pair() else {
            return;
        };
        let own = self.external(player, at);
        let neighbour = SocketAddr::new(own.ip(), self.random.u16(1..1024));
        if !self.model.is_trusted(at, own) {
            return;
        }
        self.now += 3 * SECOND;
        if matches!(self.datagram(at, own, 4), Action::Drop(DropReason::WrongPort)) {
            return;
        }
        for (pause, source) in [(100, neighbour), (100, own), (100, neighbour), (2300, neighbour)] {
            self.now += pause * SECOND / 1000;
            self.datagram(at, source, 4);
        }
        let back = self.datagram(at, own, 4);
        assert_ne!(back, Action::Drop(DropReason::WrongPort), "the player is back");
    }

    fn repeat_private_id(&mut self) {
        if let Some(index) = self.someone(true) {
            let id = self.players[index].id;
            self.refresh();
            self.table.handle_repetition(PlayerId(id), self.now());
            self.model.repeat(id, self.now);
        }
    }

    /// A player and neighbours behind its router all send to one port, each at a rate of its own. The player may
    /// repeat its PrivateID, and its registered address may be forged.
    fn contend(&mut self) {
        let Some((player, _, _, at)) = self.some_pair() else {
            return;
        };
        let own = self.external(player, at);
        let neighbours = (0..self.random.usize(1..12))
            .map(|_| SocketAddr::new(own.ip(), self.random.u16(1..1024)));
        let mut sources: Vec<SocketAddr> = neighbours.collect();
        sources.extend([own, self.players[player].registered]);
        let mut senders: Vec<(SocketAddr, u64, u64)> = sources
            .into_iter()
            .map(|source| {
                let gap = *self.random.choice([50, 200, 400, 800, 1500].iter()).unwrap();
                (source, gap * SECOND / 1000, self.now + self.random.u64(..2 * SECOND))
            })
            .collect();
        let end = self.now + self.random.u64(..9 * SECOND);
        while let Some(next) = senders.iter_mut().min_by_key(|(.., next)| *next)
            && next.2 < end
        {
            let (source, gap, time) = *next;
            next.2 += gap;
            self.now = time;
            self.datagram(at, source, 4);
            if self.random.u8(..30) == 0 {
                let id = self.players[player].id;
                self.refresh();
                self.table.handle_repetition(PlayerId(id), self.now());
                self.model.repeat(id, self.now);
            }
        }
    }

    /// One socket sends to all ports.
    fn spray(&mut self) {
        let source = SocketAddr::new(self.some_ip(), self.random.u16(1..1024));
        for at in self.ports.clone() {
            self.now += self.random.u64(..SECOND / 100);
            self.datagram(at, source, 4);
        }
    }

    /// A player's router changes its mapping in mid-stream, and a neighbour inherits the old port.
    fn move_seamlessly(&mut self) {
        let Some((player, _, _, at)) = self.some_pair() else {
            return;
        };
        let old = self.external(player, at);
        self.datagram(at, old, 4);
        self.players[player].mappings.clear();
        let new = self.external(player, at);
        for _ in 0..25 {
            self.now += SECOND / 10;
            self.datagram(at, new, 4);
        }
        self.datagram(at, old, 4);
        self.datagram(at, new, 4);
    }

    fn datagram(&mut self, at: u16, source: SocketAddr, length: usize) -> Action {
        let action = self.action(at, source, length);
        let expected = self.model.datagram(at, source, length, self.now);
        assert_eq!(action, expected, "{length} bytes from {source} at {at}, {} ns", self.now);
        match action {
            Action::Forward { .. } => self.forwarded += 1,
            Action::Drop(reason) => self.dropped[reason as usize] += 1,
        }
        action
    }

    fn action(&mut self, at: u16, source: SocketAddr, length: usize) -> Action {
        let now = self.now();
        let judge =
            |table: &mut RelayTable| table.handle_datagram(RelayPort(at), source, length, now);
        let Some(kernel) = &mut self.kernel else { return judge(&mut self.table) };
        kernel.pass_time(&mut self.table, self.now);
        if let Some(action) = kernel.forward(at, source, length) {
            self.forwarded_by_kernel += 1;
            return action;
        }
        kernel.judge(RelayPort(at), &mut self.table, now, judge)
    }
}
