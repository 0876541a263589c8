//! A relayed datagram allocates nothing, in the rules and in the whole process.
//!
//! One test only: what another one beside it allocates would be counted too.

mod support;

use std::alloc::System;
use std::net::SocketAddr;
use std::time::Duration;

use noray::config::Config;
use noray::core::id::PlayerId;
use noray::core::relay::{Action, OwnAddresses, Party, RelayPort, RelayTable};
use noray::limits::share::HardCap;
use noray::time::Timestamp;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use support::{Player, TestServer, config, connect_relay};

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How often memory is asked for while `action` runs.
fn allocations(action: impl FnOnce()) -> usize {
    let region = Region::new(COUNTING);
    action();
    let change = region.change();
    change.allocations + change.reallocations
}

#[test]
fn a_relayed_datagram_allocates_nothing() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1]))), 1, "it counts");
    assert_eq!(in_the_rules(), 0, "a million datagrams in the rules");
    assert_eq!(in_the_process(), 0, "real datagrams in the whole process");
}

/// A host with a hundred clients, a million datagrams.
fn in_the_rules() -> usize {
    let ports: Vec<RelayPort> = (20_000..20_200).map(RelayPort).collect();
    let settings =
        Config { relay_max_per_ip: HardCap(Some(100)), ..Config::default() }.relay_settings();
    let mut table = RelayTable::new(settings, OwnAddresses::default(), &ports);
    let party = |player| {
        let address: SocketAddr = format!("192.0.2.1:{}", 1000 + player).parse().unwrap();
        Party { player: PlayerId(player), address, connected_from: address.ip() }
    };
    let mut arrivals = Vec::new();
    for client in 1..=100 {
        let (client, host) = (party(client), party(0));
        let introduction =
            table.introduce(client, host, Timestamp::START, &mut Vec::new()).unwrap();
        arrivals.extend([(introduction.host, client.address), (introduction.asker, host.address)]);
    }
    // The first datagrams reach players that were not heard yet. The next ones are the first that count as the network's
    // share of what a host with many clients may be sent.
    for (at, source) in arrivals.iter().chain(&arrivals) {
        table.handle_datagram(*at, *source, 1, Timestamp::START);
    }
    let mut is_refused = [false; 2];
    let allocations = allocations(|| {
        for round in 0..5000 {
            // Sometimes more than the limits allow, so that refusals count too.
            let now = Timestamp::START + Duration::from_millis(round);
            for (at, source) in &arrivals {
                let action = table.handle_datagram(*at, *source, 1000, now);
                is_refused[usize::from(matches!(action, Action::Drop(_)))] = true;
            }
        }
    });
    assert_eq!(is_refused, [true; 2], "some passed, some did not");
    allocations
}

/// Twenty thousand datagrams through the sockets and the event loop.
fn in_the_process() -> usize {
    let server = TestServer::start(&config());
    let (mut client, mut host) = (Player::join(&server), Player::join(&server));
    let (to_host, to_client) = connect_relay(&mut client, &mut host);
    let (to_host, to_client) = (server.relay(to_host), server.relay(to_client));
    let mut buffer = [0; 256];
    let mut play = |count| {
        for _ in 0..count {
            client.udp.send_to(b"ping", to_host).unwrap();
            host.udp.recv(&mut buffer).expect("it arrives");
            host.udp.send_to(b"pong", to_client).unwrap();
            client.udp.recv(&mut buffer).expect("it arrives");
        }
    };
    play(10);
    allocations(|| play(10_000))
}
