//! What the rules cost without sockets, in nanoseconds: `cargo bench --bench micro`.
//!
//! Each figure is the median of many batches.

#![expect(clippy::disallowed_methods, reason = "a bench takes the time")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use noray::config::Config;
use noray::core::id::{Alphabet, ConnectionId, IdScheme, OpenIdScheme, PlayerId, Random};
use noray::core::players::Way;
use noray::core::players::{Players, PlayersSettings};
use noray::core::protocol::{Command, LineReader};
use noray::core::registrar::Registrar;
use noray::core::relay::{
    Action, ClosedPair, Latching, OwnAddresses, Party, RelayPort, RelaySettings, RelayTable,
};
use noray::limits::relay::{CROWD, RelayLimits};
use noray::limits::share::HardCap;
use noray::operation::metrics::Metrics;
use noray::time::Timestamp;

const BATCHES: usize = 51;

fn main() {
    println!("{:<62} {:>8}", "", "ns");
    for (name, pairs) in
        [("16 pairs", 16), ("1,024 pairs", 1024), ("16,384 pairs (32,768 ports)", 16_384)]
    {
        let mut world = World::of_pairs(pairs);
        report(&format!("decision per datagram, {name}, random order"), || world.relay_all());
    }
    for clients in [1, 100, 1000] {
        let mut world = World::of_one_host(clients);
        report(&format!("decision per datagram, one host with {clients} clients"), || {
            world.relay_all()
        });
    }
    for (name, pairs) in [("16", 16), ("16,000", 16_000)] {
        let mut world = World::of_pairs(pairs);
        report(&format!("one more pair and its end, beside {name} pairs"), || world.come_and_go());
    }
    let mut world = World::of_pairs(1024);
    report("refusal of a stranger's datagram", || world.refuse_all());
    report_registrar();
    report("line read and parsed", parse_lines);
}

/// Prints the median nanoseconds of one of the things that `batch` does and counts.
fn report(name: &str, mut batch: impl FnMut() -> usize) {
    let mut nanos: Vec<f64> = (0..BATCHES)
        .map(|_| {
            let start = Instant::now();
            let count = batch();
            start.elapsed().as_nanos() as f64 / count as f64
        })
        .collect();
    nanos.sort_by(f64::total_cmp);
    println!("{name:<62} {:>8.1}", nanos[BATCHES / 2]);
}

const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A relay table, and the datagrams that arrive at it: port and source.
struct World {
    table: RelayTable,
    metrics: Metrics,
    arrivals: Vec<(RelayPort, SocketAddr)>,
    closed: Vec<ClosedPair>,
    now: Timestamp,
}

impl World {
    fn empty() -> Self {
        let limits = RelayLimits {
            pair_rate: 1 << 40,
            global_rate: 1 << 40,
            burst: Duration::from_millis(100),
            lifetime: Duration::from_secs(1 << 30),
            lifetime_traffic: 1 << 50,
            idle_timeout: IDLE_TIMEOUT,
            max_per_network: HardCap(Some(usize::MAX)),
            crowd: CROWD,
        };
        let settings = RelaySettings { limits, latching: Latching::SameIp };
        let ports: Vec<RelayPort> = (1024..1024 + 2 * 16_384).map(RelayPort).collect();
        let table = RelayTable::new(settings, OwnAddresses::default(), &ports);
        let metrics = Metrics::default();
        Self { table, metrics, arrivals: Vec::new(), closed: Vec::new(), now: Timestamp::START }
    }

    fn of_pairs(pairs: u64) -> Self {
        let mut world = Self::empty();
        (0..pairs).for_each(|pair| world.introduce(2 * pair, 2 * pair + 1));
        fastrand::Rng::with_seed(1).shuffle(&mut world.arrivals);
        world
    }

    fn of_one_host(clients: u64) -> Self {
        let mut world = Self::empty();
        (1..=clients).for_each(|client| world.introduce(client, 0));
        fastrand::Rng::with_seed(1).shuffle(&mut world.arrivals);
        world
    }

    fn introduce(&mut self, asker: u64, host: u64) {
        let [asker, host] = [asker, host].map(party);
        let ports =
            self.table.introduce(asker, host, self.now, &mut self.closed).expect("enough ports");
        self.arrivals.extend([(ports.host, asker.address), (ports.asker, host.address)]);
        // As in a game, the host answers: both are known.
        self.table.handle_datagram(ports.asker, host.address, 1, self.now);
        self.table.handle_datagram(ports.host, asker.address, 1, self.now);
    }

    /// As the loop does: the time is the same for a turn's datagrams, and what passes is counted.
    fn relay_all(&mut self) -> usize {
        self.now = self.now + Duration::from_millis(1);
        let rounds = 20_000_usize.div_ceil(self.arrivals.len());
        for _ in 0..rounds {
            for (port, source) in &self.arrivals {
                let action = self.table.handle_datagram(*port, *source, black_box(200), self.now);
                assert!(matches!(action, Action::Forward { .. }));
                self.metrics.relay_datagrams.add_as_only_writer(1);
                self.metrics.relay_bytes.add_as_only_writer(200);
                self.metrics.relay_size.observe(black_box(200));
            }
        }
        rounds * self.arrivals.len()
    }

    /// The same two players, whose pair outlives its time and is opened anew.
    fn come_and_go(&mut self) -> usize {
        const COUNT: usize = 1000;
        let [asker, host] = [1 << 20, (1 << 20) + 1].map(party);
        for _ in 0..COUNT {
            self.table.introduce(asker, host, self.now, &mut self.closed).expect("enough ports");
            self.closed.clear();
            self.now = self.now + IDLE_TIMEOUT;
        }
        COUNT
    }

    fn refuse_all(&mut self) -> usize {
        let stranger: SocketAddr = "192.0.2.1:4000".parse().expect("an address");
        for (port, _) in &self.arrivals {
            let action = self.table.handle_datagram(*port, stranger, black_box(200), self.now);
            assert!(matches!(action, Action::Drop(_)));
        }
        self.arrivals.len()
    }
}

fn party(player: u64) -> Party {
    let address = address(player);
    Party { player: PlayerId(player), address, connected_from: address.ip() }
}

fn address(player: u64) -> SocketAddr {
    let [.., a, b, c] = player.to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, a, b, c)), 4000)
}

struct Bytes(fastrand::Rng);

impl Random for Bytes {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}

fn report_registrar() {
    let alphabet: Alphabet = "abcdefghijklmnopqrstuvwxyz012345".parse().expect("an alphabet");
    let id_scheme = IdScheme {
        open: OpenIdScheme::characters(String::new(), alphabet.clone(), 21),
        private_alphabet: alphabet,
        private_length: 128,
    };
    let settings = Config::default().settings().players;
    let mut players = Players::new(PlayersSettings { id_scheme, ..settings });
    let mut random = Bytes(fastrand::Rng::with_seed(1));
    let secrets: Vec<String> = (0..10_000)
        .map(|id| {
            let home = address(id).ip();
            players.add_connection(ConnectionId(id), home);
            let player = players.register(ConnectionId(id), &mut random).expect("enough ids");
            player.ids().private_id.reveal().to_owned()
        })
        .collect();
    let (mut registrar, own) = (Registrar::default(), OwnAddresses::default());
    report("registrar: a known PrivateID among 10,000", || {
        for (id, secret) in (0..).zip(&secrets) {
            black_box(registrar.handle_datagram(
                &mut players,
                &own,
                Way { source: address(id), arrived_at: None },
                secret.as_bytes(),
                Timestamp::START,
            ));
        }
        secrets.len()
    });
}

fn parse_lines() -> usize {
    let mut reader = LineReader::default();
    let text = "connect-relay aohsP8Tfo3pTGcniFprPZ\n".repeat(1000);
    let mut chunk = text.as_bytes();
    let mut count = 0;
    while let Ok(Some(line)) = reader.next_line(&mut chunk) {
        black_box(Command::parse(&line));
        count += 1;
    }
    count
}
