//! Honest players: a host and its clients, who punch and relay, check every datagram, and leave in some way or other.

use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, UdpSocket};
use std::time::Duration;

use fastrand::Rng;
use socket2::SockRef;

use crate::support::{Line, Player, REGISTRAR, connect_relay, register_address, udp_socket_at};
use crate::tally::Tally;

/// Nothing is lost on the way but what is dropped on purpose: who waits that long waits in vain.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often the largest datagrams of a game may follow each other without exceeding the rate.
const EXCHANGES: usize = 40;
const LARGEST: usize = 1400;

/// An address that some other players have too.
pub(crate) fn some_ip(random: &mut Rng) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 80, random.u8(..), random.u8(1..255)))
}

pub(crate) fn join(random: &mut Rng, tally: &Tally) -> Player {
    join_from(some_ip(random), tally)
}

fn join_from(ip: IpAddr, tally: &Tally) -> Player {
    let player = Player::join_from(ip);
    player.udp.set_read_timeout(Some(PATIENCE)).expect("a socket");
    tally.sessions.add(1);
    player
}

pub(crate) fn play(random: &mut Rng, tally: &Tally) {
    let mut host = join(random, tally);
    for _ in 0..random.usize(1..4) {
        // Behind the host's router, or anywhere.
        let is_neighbour = random.bool();
        let ip = if is_neighbour { host.ip() } else { some_ip(random) };
        let mut client = join_from(ip, tally);
        if random.bool() {
            punch(&mut client, &mut host, tally);
        }
        if random.u8(..5) > 0 {
            relay(&mut client, &mut host, random, tally);
        }
        leave(client, random);
        if random.u8(..8) == 0 {
            host = resume(host, random, tally);
        }
    }
    leave(host, random);
}

/// Its connection breaks, or still seems to stand, and it goes on on another one with the same ids.
fn resume(mut player: Player, random: &mut Rng, tally: &Tally) -> Player {
    let mut line = Line::connect_from(player.ip());
    if random.bool() {
        player.line.stream().shutdown(Shutdown::Both).expect("a socket");
    }
    line.send(&format!("register-host {}", player.pid));
    assert_eq!(
        (line.expect("set-oid"), line.expect("set-pid")),
        (player.oid.clone(), player.pid.clone())
    );
    tally.resumed.add(1);
    player.line = line;
    player
}

/// Each is told where the other is, and both reach each other there.
fn punch(client: &mut Player, host: &mut Player, tally: &Tally) {
    client.line.send(&format!("connect {}", host.oid));
    let told = [&mut *client, &mut *host].map(|player| player.line.expect("connect"));
    let told = told.map(|address| address.parse::<SocketAddr>().expect("an address"));
    let [from_client, from_host] = [&client.udp, &host.udp];
    let is_at = [from_host, from_client].map(|udp| udp.local_addr().expect("it is bound"));
    assert_eq!(told, is_at);
    exchange(from_client, told[0], from_host, is_at[1], b"directly");
    tally.punched.add(1);
}

fn relay(client: &mut Player, host: &mut Player, random: &mut Rng, tally: &Tally) {
    let [to_host, to_client] = connect_relay(client, host);
    let moves_at = random.usize(..4 * EXCHANGES);
    for number in 0..random.usize(1..EXCHANGES) {
        if number == moves_at {
            client.udp = udp_socket_at(client.ip());
            register_address(&client.udp, &client.pid);
            client.udp.set_read_timeout(Some(PATIENCE)).expect("a socket");
            tally.moved.add(1);
        }
        let there = content(random);
        exchange(&client.udp, to_host, &host.udp, to_client, &there);
        let back = content(random);
        exchange(&host.udp, to_client, &client.udp, to_host, &back);
        tally.sent.add(2);
        tally.relayed.add(2);
    }
    if random.u8(..20) == 0 {
        flood(client, host, to_host, random, tally);
    }
}

fn content(random: &mut Rng) -> Vec<u8> {
    let mut bytes = vec![0; random.usize(..LARGEST)];
    random.fill(&mut bytes);
    bytes
}

/// What is sent arrives next, whole, and from there.
fn exchange(
    sender: &UdpSocket,
    to: SocketAddr,
    receiver: &UdpSocket,
    from: SocketAddr,
    bytes: &[u8],
) {
    let mut buffer = [0; 2 * LARGEST];
    sender.send_to(bytes, to).expect("loopback takes it");
    let mut receive = || receiver.recv_from(&mut buffer).expect("it arrives");
    let (mut length, mut source) = receive();
    while source == REGISTRAR {
        // It was asked twice, and its second answer came late.
        (length, source) = receive();
    }
    assert!(&buffer[..length] == bytes, "{length} bytes came instead of {}", bytes.len());
    assert_eq!(source, from);
}

/// Far more than the rate allows. What arrives is right and in order, and in the end a datagram passes again.
fn flood(client: &Player, host: &Player, to_host: SocketAddr, random: &mut Rng, tally: &Tally) {
    const FLOOD: u32 = 120;
    let last = FLOOD + random.u32(..1000);
    let numbered = |number: u32| {
        let mut bytes = [0; 1200];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        bytes
    };
    for number in 0..FLOOD {
        client.udp.send_to(&numbered(number), to_host).expect("loopback takes it");
    }
    host.udp.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket");
    let (mut sent, mut arrived, mut newest) = (u64::from(FLOOD), 0, None);
    let mut buffer = [0; 2 * LARGEST];
    while newest != Some(last) {
        // The way is free again when what was too much is paid back.
        assert!(sent < 2 * u64::from(FLOOD), "the relay does not recover");
        client.udp.send_to(&numbered(last), to_host).expect("loopback takes it");
        sent += 1;
        while let Ok((length, _)) = host.udp.recv_from(&mut buffer) {
            let number = u32::from_be_bytes(buffer[..4].try_into().expect("four bytes"));
            assert!(buffer[..length] == numbered(number), "{length} bytes, not what was sent");
            assert!(newest <= Some(number), "{number} after {newest:?}");
            (newest, arrived) = (Some(number), arrived + 1);
        }
    }
    host.udp.set_read_timeout(Some(PATIENCE)).expect("a socket");
    tally.floods.add(1);
    tally.sent.add(sent);
    tally.lost_in_floods.add(sent - arrived);
}

/// As players do: the game closes, crashes, loses its line, or its router resets it.
pub(crate) fn leave(mut player: Player, random: &mut Rng) {
    match random.u8(..4) {
        0 => player.line.send("connect-re"),
        1 => {
            SockRef::from(player.line.stream()).set_linger(Some(Duration::ZERO)).expect("a socket")
        }
        2 => player.line.stream().shutdown(Shutdown::Write).expect("a socket"),
        _ => {}
    }
}
