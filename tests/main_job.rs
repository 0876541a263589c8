//! What noray is for: a host and sixteen clients meet, punch, shake hands through relays, and play.

mod support;

use noray::label::Label;
use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use noray::core::relay::DropReason;
use support::{Player, REPEAT, TestServer, config, connect_relay, receive};

const CLIENTS: usize = 16;
const DATAGRAMS: usize = 1000;

/// How many datagrams of one stream are under way at once: the host's receive buffer holds those of all.
const IN_FLIGHT: usize = 4;

#[test]
fn a_host_and_sixteen_clients_play_through_relays() {
    let server = TestServer::start(&config());
    let mut host = Player::join(&server);
    let mut clients: Vec<Player> = (0..CLIENTS).map(|_| Player::join(&server)).collect();

    let mut pairs = Vec::new();
    for client in &mut clients {
        client.line.send(&format!("connect {}", host.oid));
        assert_eq!(client.line.expect("connect"), host.address().to_string());
        assert_eq!(host.line.expect("connect"), client.address().to_string());
        let (to_host, to_client) = connect_relay(client, &mut host);
        pairs.push((server.relay(to_host), server.relay(to_client)));
    }

    thread::scope(|scope| {
        let host_side = scope.spawn(|| {
            let partners = pairs.iter().map(|(_, to_client)| *to_client);
            shake_hands(&host.udp, &partners.collect::<Vec<_>>());
        });
        for (client, (to_host, _)) in clients.iter().zip(&pairs) {
            scope.spawn(|| shake_hands(&client.udp, &[*to_host]));
        }
        host_side.join().unwrap();
    });
    let total = server.metric("noray_relay_datagrams_total");

    play(&host, &clients, &pairs);
    let played = server.metric("noray_relay_datagrams_total") - total;
    // The handshake's last datagrams may still have been under way.
    assert!(played >= (2 * CLIENTS * DATAGRAMS) as u64, "{played} were relayed");
    for reason in DropReason::ALL {
        let name = format!("noray_relay_drop_count{{reason=\"{}\"}}", reason.label());
        assert_eq!(server.metric(&name), 0, "{name}");
    }
    assert_eq!(server.metric("noray_relay_count"), CLIENTS as u64);
}

/// The stock client's handshake: `$` and then what this side has done: read, written, shaken hands.
#[derive(Default)]
struct Handshake {
    has_read: bool,
    is_shaken: bool,
    is_over: bool,
}

impl Handshake {
    fn say(&self) -> String {
        let mark = |is_set, mark| if is_set { mark } else { '-' };
        format!("${}w{}", mark(self.has_read, 'r'), mark(self.is_shaken, 'x'))
    }

    fn hear(&mut self, said: &str) {
        self.has_read = true;
        self.is_shaken |= said.contains('r');
        self.is_over |= self.is_shaken && said.contains('x');
    }
}

/// Shakes hands with every partner until each side has seen the other's `x`, repeating every 100 ms.
fn shake_hands(socket: &UdpSocket, partners: &[SocketAddr]) {
    let mut states: HashMap<SocketAddr, Handshake> =
        partners.iter().map(|partner| (*partner, Handshake::default())).collect();
    let say = |partner: &SocketAddr, state: &Handshake| {
        socket.send_to(state.say().as_bytes(), partner).unwrap();
    };
    socket.set_read_timeout(Some(REPEAT)).unwrap();
    let mut buffer = [0; 16];
    for _ in 0..10_000 {
        if states.values().all(|state| state.is_over) {
            break;
        }
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                let state = states.get_mut(&from).expect("only the announced addresses speak");
                state.hear(std::str::from_utf8(&buffer[..length]).unwrap());
                say(&from, state);
            }
            Err(_) => states.iter().for_each(|(partner, state)| say(partner, state)),
        }
    }
    assert!(states.values().all(|state| state.is_over), "all hands are shaken");
    socket.set_read_timeout(Some(support::PATIENCE)).unwrap();
}

/// The `number`th datagram of a stream: 1 to 1,400 bytes, once 65,507, and different in every stream.
fn payload(stream: usize, number: usize) -> Vec<u8> {
    let length = if number == DATAGRAMS / 2 { 65_507 } else { 1 + (number * 37 + stream) % 1400 };
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(length.max(8), u8::try_from(stream * 7 % 251).unwrap());
    bytes.rotate_left(6);
    bytes.truncate(length);
    bytes
}

fn play(host: &Player, clients: &[Player], pairs: &[(SocketAddr, SocketAddr)]) {
    thread::scope(|scope| {
        let mut credits_of_clients = HashMap::new();
        for (index, (client, (to_host, to_client))) in clients.iter().zip(pairs).enumerate() {
            let (credit, credits) = sync_channel(DATAGRAMS);
            credits_of_clients.insert(*to_client, (index, 0, credit));
            scope.spawn(move || send_stream(&client.udp, *to_host, 2 * index, &credits));

            let (credit, credits) = sync_channel(DATAGRAMS);
            scope.spawn(move || send_stream(&host.udp, *to_client, 2 * index + 1, &credits));
            scope.spawn(move || {
                for number in 0..DATAGRAMS {
                    expect(&client.udp, *to_host, 2 * index + 1, number, &credit);
                }
            });
        }
        for _ in 0..CLIENTS * DATAGRAMS {
            let (bytes, from) = next_of_play(&host.udp);
            let (index, number, credit) =
                credits_of_clients.get_mut(&from).expect("only the announced addresses speak");
            assert_eq!(bytes, payload(2 * *index, *number), "client {index}, datagram {number}");
            *number += 1;
            // A sender that has sent everything needs no more credit.
            let _ = credit.send(());
        }
    });
}

fn send_stream(socket: &UdpSocket, to: SocketAddr, stream: usize, credits: &Receiver<()>) {
    for number in 0..DATAGRAMS {
        if number >= IN_FLIGHT {
            credits.recv_timeout(support::PATIENCE).expect("the receiver goes on");
        }
        socket.send_to(&payload(stream, number), to).unwrap();
    }
}

fn expect(
    socket: &UdpSocket,
    from: SocketAddr,
    stream: usize,
    number: usize,
    credit: &SyncSender<()>,
) {
    let (bytes, source) = next_of_play(socket);
    assert_eq!(source, from, "the host is seen at the announced port only");
    assert_eq!(bytes, payload(stream, number), "stream {stream}, datagram {number}");
    // A sender that has sent everything needs no more credit.
    let _ = credit.send(());
}

/// The next datagram that is not left over from a handshake.
fn next_of_play(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    loop {
        let (bytes, from) = receive(socket);
        let is_left_over = bytes.len() == 4 && bytes[0] == b'$' && bytes[2] == b'w';
        if !is_left_over {
            return (bytes, from);
        }
    }
}
