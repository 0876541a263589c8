//! Everybody else: scanners, guessers, broken clients and flooders.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use fastrand::Rng;
use socket2::SockRef;

use crate::game::{join, leave, some_ip};
use crate::loiter::Place;
use crate::support::{HTTP, IP, Line, REGISTRAR, connect_relay, udp_socket_at};
use crate::tally::Tally;

/// The relay ports of the server.
const RELAY_PORTS: std::ops::RangeInclusive<u16> = 49_152..=57_343;

pub(crate) fn act(random: &mut Rng, place: &Place, tally: &Tally) {
    tally.misbehaved.add(1);
    match random.u8(..9) {
        0 => stray(random, tally),
        1 => never_answer(random, tally),
        2 => guess(random, tally),
        3 => speak_nonsense(random, tally),
        4 => disturb_the_registrar(random),
        5 => do_not_read(random, tally),
        6 => send_too_many_commands(random, tally),
        7 => disturb_metrics(random),
        _ => {
            let ip = some_ip(random);
            place.send(random, ip);
            tally.sessions.add(1);
            tally.loitered.add(1);
        }
    }
}

fn line(random: &mut Rng, tally: &Tally) -> Line {
    tally.sessions.add(1);
    Line::connect_from(some_ip(random))
}

/// Datagrams at any relay ports, from where no player is.
fn stray(random: &mut Rng, tally: &Tally) {
    let udp = udp_socket_at(IpAddr::V4(Ipv4Addr::new(127, 99, 0, random.u8(1..255))));
    for _ in 0..50 {
        let port = random.u16(RELAY_PORTS);
        udp.send_to(&[7; 100], SocketAddr::new(IP, port)).expect("loopback takes it");
    }
    tally.strays.add(50);
    tally.sent.add(50);
}

/// A host goes on sending to a client that does not answer: it is sent its allowance and no more.
fn never_answer(random: &mut Rng, tally: &Tally) {
    const SENT: u64 = 70;
    const LENGTH: usize = 1400;
    const QUIET: Duration = Duration::from_secs(2);
    let (mut client, mut host) = (join(random, tally), join(random, tally));
    let [to_host, to_client] = connect_relay(&mut client, &mut host);
    for _ in 0..SENT {
        host.udp.send_to(&[7; LENGTH], to_client).expect("loopback takes it");
    }
    client.udp.set_read_timeout(Some(QUIET)).expect("a socket");
    let (mut buffer, mut arrived) = ([0; 2 * LENGTH], 0);
    while let Ok((length, source)) = client.udp.recv_from(&mut buffer) {
        if source == to_host {
            assert!(buffer[..length] == [7; LENGTH], "not what was sent");
            arrived += 1;
        }
    }
    assert!(arrived <= 65_536 / (LENGTH as u64 + 28), "{arrived} arrived at an address not heard");
    tally.sent.add(SENT);
    tally.relayed.add(arrived);
    tally.lost_unheard.add(SENT - arrived);
    leave(client, random);
    leave(host, random);
}

fn guess(random: &mut Rng, tally: &Tally) {
    let mut player = join(random, tally);
    for number in 0..20 {
        player.line.send(&format!("connect guess-{number}"));
        let answer = player.line.expect("connect-error");
        let is_refused = answer.starts_with("unknown-oid") || answer.starts_with("rate-limited");
        assert!(is_refused, "{answer}");
    }
    leave(player, random);
}

fn speak_nonsense(random: &mut Rng, tally: &Tally) {
    let mut line = line(random, tally);
    let mut bytes = vec![0; random.usize(1..9000)];
    random.fill(&mut bytes);
    // It may be closed before all is written: a line too long.
    let _ = line.stream().write_all(&bytes);
    let _ = line.stream().shutdown(std::net::Shutdown::Write);
    line.stream().set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let _ = line.read_to_end();
}

fn disturb_the_registrar(random: &mut Rng) {
    let udp = udp_socket_at(some_ip(random));
    for _ in 0..20 {
        let mut bytes = vec![0; random.usize(..200)];
        random.fill(&mut bytes);
        udp.send_to(&bytes, REGISTRAR).expect("loopback takes it");
    }
}

fn do_not_read(random: &mut Rng, tally: &Tally) {
    let line = line(random, tally);
    SockRef::from(line.stream()).set_recv_buffer_size(4096).expect("a socket");
    let text = format!("register-host\n{}", format!("echo {}\n", "x".repeat(1000)).repeat(80));
    // It may be closed before all is written.
    let _ = line.stream().write_all(text.as_bytes());
}

fn send_too_many_commands(random: &mut Rng, tally: &Tally) {
    let mut line = line(random, tally);
    let _ = line.stream().write_all("echo\n".repeat(300).as_bytes());
    let answers = line.read_to_end();
    assert!(answers.contains("error too-many-commands"), "{answers}");
}

fn disturb_metrics(random: &mut Rng) {
    let mut stream = TcpStream::connect(HTTP).expect("metrics are served");
    let request =
        [&b"GET /metrics HTTP/1.0\r\n\r\n"[..], b"\r\n\r\n", b"GET / HTTP/1.1\nx: \xff\n\n"];
    // Too many at once are closed unanswered.
    let _ = stream.write_all(request[random.usize(..request.len())]);
    let _ = stream.read_to_end(&mut Vec::new());
}
