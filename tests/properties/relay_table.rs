//! What happens to relays, in any order, beside the model of the simulation: few players at few addresses, so that
//! they meet.

use std::net::SocketAddr;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use noray::core::id::PlayerId;
use noray::core::relay::{
    ClosedPair, Latching, OwnAddresses, Party, RelayPort, RelaySettings, RelayTable,
};
use noray::limits::relay::RelayLimits;
use noray::limits::share::HardCap;
use noray::time::Timestamp;

use model::{Model, SECOND};

#[path = "../relay_simulation/model.rs"]
mod model;

const PLAYERS: u64 = 6;

/// The model reads each pair's whole past.
const MAX_EVENTS: usize = 300;

/// Two networks of three sockets each, a third network, the server's own, and some that no player can have.
const ADDRESSES: [&str; 11] = [
    "198.51.100.1:1000",
    "198.51.100.1:1001",
    "198.51.100.1:1002",
    "[2001:db8::1]:1000",
    "[2001:db8::2]:1000",
    "[2001:db8::2]:1001",
    "203.0.113.1:1000",
    "192.0.2.9:50000",
    "192.0.2.9:1000",
    "198.51.100.1:0",
    "224.0.0.1:1000",
];

/// How many of them are players' own.
const PLAYERS_ADDRESSES: usize = 7;

pub(crate) fn check(data: &[u8]) {
    let mut input = Unstructured::new(data);
    // An input that ends in the middle of an event has said enough.
    if let Ok(mut world) = World::new(&mut input) {
        for _ in 0..MAX_EVENTS {
            if input.is_empty() || world.step(&mut input).is_err() {
                break;
            }
        }
    }
}

struct World {
    table: RelayTable,
    model: Model,
    ports: Vec<u16>,
    now: u64,
}

fn settings(input: &mut Unstructured<'_>) -> Result<RelaySettings> {
    let limits = RelayLimits {
        // They divide a second's nanoseconds, so that model and table round alike: not at all.
        pair_rate: *input.choose(&[20_000, 1_000_000])?,
        global_rate: *input.choose(&[100_000, 100_000_000])?,
        burst: Duration::from_millis(*input.choose(&[1, 100, 500])?),
        lifetime: Duration::from_secs(*input.choose(&[10, 600])?),
        lifetime_traffic: *input.choose(&[100_000, 10_000_000])?,
        idle_timeout: Duration::from_secs(*input.choose(&[1, 5, 30])?),
        max_per_network: HardCap(*input.choose(&[None, None, Some(1), Some(3)])?),
        crowd: input.int_in_range(1..=4)?,
    };
    let latching = *input.choose(&[Latching::SameIp, Latching::Any, Latching::Off])?;
    Ok(RelaySettings { limits, latching })
}

fn address(input: &mut Unstructured<'_>, among: usize) -> Result<SocketAddr> {
    Ok(input.choose(&ADDRESSES[..among])?.parse().expect("an address"))
}

impl World {
    fn new(input: &mut Unstructured<'_>) -> Result<Self> {
        let settings = settings(input)?;
        let ports: Vec<u16> = (0..input.int_in_range(0..=9)?).map(|i| 50_000 + 2 * i).collect();
        let own_ip = "192.0.2.9".parse().expect("an address");
        let own = OwnAddresses::new([own_ip], ports.iter().copied());
        let relay_ports: Vec<RelayPort> = ports.iter().copied().map(RelayPort).collect();
        let table = RelayTable::new(settings, own, &relay_ports);
        let model = Model::new(settings, own_ip, &ports);
        Ok(Self { table, model, ports, now: 0 })
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.now)
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let player = input.int_in_range(0..=PLAYERS - 1)?;
        match input.int_in_range(0..=15)? {
            0 => {
                self.table.reserve(PlayerId(player));
                self.model.reserve(player);
            }
            1 => {
                self.table.cancel_reservation(PlayerId(player));
                self.model.leave(player);
            }
            2..=4 => self.introduce(player, input)?,
            5 => {
                let address = address(input, PLAYERS_ADDRESSES)?;
                self.table.handle_address_change(PlayerId(player), address);
                self.model.move_player(player, address);
            }
            6 => {
                let mut closed = Vec::new();
                self.table.sweep(self.now(), &mut closed);
                self.note_closed(closed);
                self.model.check_swept(self.now);
            }
            8 => {
                self.table.handle_repetition(PlayerId(player), self.now());
                self.model.repeat(player, self.now);
            }
            7 => self.now += u64::from(input.arbitrary::<u16>()?) * SECOND / 1000,
            _ => self.datagram(input)?,
        }
        self.now += u64::from(input.arbitrary::<u8>()?) * SECOND / 1000;
        self.table.check_invariants();
        let ports = self.table.ports();
        let counts = (self.table.pairs(), ports.free(), ports.reserved());
        assert_eq!(counts, self.model.counts(), "pairs, free, reserved");
        Ok(())
    }

    fn introduce(&mut self, player: u64, input: &mut Unstructured<'_>) -> Result<()> {
        let other = (player + input.int_in_range(1..=PLAYERS - 1)?) % PLAYERS;
        let mut party = |player| -> Result<_> {
            let address = address(input, PLAYERS_ADDRESSES)?;
            let connected_from =
                if input.ratio(1, 4)? { ADDRESSES[6].parse().expect("one") } else { address };
            Ok((player, address, connected_from.ip()))
        };
        let (asker, host) = (party(player)?, party(other)?);
        let as_party = |(player, address, connected_from)| Party {
            player: PlayerId(player),
            address,
            connected_from,
        };
        let mut closed = Vec::new();
        let real = self.table.introduce(as_party(asker), as_party(host), self.now(), &mut closed);
        self.note_closed(closed);
        let expected = self.model.introduce(asker, host, self.now);
        assert_eq!(real.ok().map(|ports| (ports.asker.0, ports.host.0)), expected, "introduction");
        Ok(())
    }

    fn note_closed(&mut self, closed: Vec<ClosedPair>) {
        for pair in closed {
            self.model.free(pair.ports.map(|port| port.0), self.now);
        }
    }

    fn datagram(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let at = if input.ratio(15, 16)? && !self.ports.is_empty() {
            *input.choose(&self.ports)?
        } else {
            input.arbitrary()?
        };
        let source = address(input, ADDRESSES.len())?;
        let length = *input.choose(&[0, 100, 1400, 65_507, 65_527])?;
        for _ in 0..*input.choose(&[1, 1, 1, 9])? {
            let real = self.table.handle_datagram(RelayPort(at), source, length, self.now());
            let expected = self.model.datagram(at, source, length, self.now);
            assert_eq!(real, expected, "{length} bytes from {source} at {at}");
        }
        Ok(())
    }
}
