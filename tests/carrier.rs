//! How the defaults treat hundreds of honest players behind one IP of their carrier, and an attacker, side by side.
//! `cargo test --test carrier -- --nocapture` prints it.

mod support;

use noray::label::Label;
use std::net::{IpAddr, Ipv4Addr};

use noray::config::Config;
use support::{Line, Player, TestServer, config, connect_relay, register_address, udp_socket};

const CARRIER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 64, 0, 1));
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 64, 0, 2));
/// An attacker has two, as each is soon refused everything.
const ATTACKER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 64, 0, 3));
const ATTACKERS_SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 64, 0, 5));

/// Eight games of a host and seven clients come back at the same moment.
const WAVE: usize = 64;
const GAME: usize = 8;
const WAVES: usize = 7;

/// The defaults, at an address of the test's own.
fn defaults() -> Config {
    let Config { socket_host, udp_host, http_host, socket_port, http_port, registrar_port, .. } =
        config();
    let own = Config { socket_host, udp_host, http_host, ..Config::default() };
    Config { socket_port, http_port, registrar_port, ..own }
}

fn report(who: &str, what: &str) {
    println!("{who:>10}: {what}");
}

fn limits(server: &TestServer, bound: &str) -> u64 {
    server.metric(&format!("noray_bounds_reached_total{{bound=\"{bound}\"}}"))
}

/// Nobody who reached a bound.
fn nobody_was_refused(server: &TestServer) -> bool {
    server.metric("noray_connections_refused_total") == 0
        && noray::limits::bounds::Bound::ALL.iter().all(|bound| limits(server, bound.label()) == 0)
}

/// Connects, as many at once, before the first of them registers; then all join.
fn wave(server: &TestServer, ip: IpAddr) -> Vec<Player> {
    let mut lines: Vec<Line> =
        (0..WAVE).map(|_| Line::connect_from(server.addresses.socket, ip)).collect();
    lines.iter_mut().for_each(|line| line.send("register-host"));
    let join = |mut line: Line| {
        let (oid, pid) = (line.expect("set-oid"), line.expect("set-pid"));
        let udp = udp_socket(ip);
        register_address(&udp, &pid, server.addresses.registrar);
        Player::new(line, udp, oid, pid, server.addresses.registrar)
    };
    lines.into_iter().map(join).collect()
}

/// Two clients of each game mistype its code. All try to punch, and then play through the relay.
fn play(server: &TestServer, players: &mut [Player]) {
    for game in players.chunks_mut(GAME) {
        let [host, clients @ ..] = game else { unreachable!("a game has players") };
        for (number, client) in clients.iter_mut().enumerate() {
            if number < 2 {
                client.line.send("connect mistyped");
                assert!(client.line.expect("connect-error").starts_with("unknown-oid"));
            }
            client.line.send(&format!("connect {}", host.oid));
            client.line.expect("connect");
            host.line.expect("connect");
            let (to_host, to_client) = connect_relay(client, host);
            client.send(b"hello", server.relay(to_host));
            assert_eq!(host.receive(), (b"hello".to_vec(), server.relay(to_client)));
        }
    }
}

#[test]
fn hundreds_of_players_of_one_carrier_meet_no_bound() {
    let server = TestServer::start(&defaults());
    let mut waves: Vec<Vec<Player>> = (0..WAVES).map(|_| wave(&server, CARRIER)).collect();
    waves.iter_mut().for_each(|players| play(&server, players));
    let players = server.metric("noray_active_hosts");
    let relays = server.metric("noray_relay_count");
    assert_eq!((players, relays), (448, 392));
    assert!(nobody_was_refused(&server));
    report("players", &format!("{players} of one IP, {relays} relays, none refused anything"));
}

/// Everything that an attacker with one IP tries to use up, and what is left for others.
#[test]
fn an_attacker_with_one_ip_leaves_enough_for_all_others() {
    let server = TestServer::start(&defaults());
    let mut honest_before = wave(&server, CARRIER);
    play(&server, &mut honest_before);

    let idle = fill(|| open(&server, ATTACKERS_SECOND, false));
    report("attacker", &format!("{} connections that do not register", idle.len()));
    assert_eq!(idle.len(), 744);
    drop(idle);
    server.wait_for("noray_tcp_connections", WAVE as u64);
    let mut players = fill(|| open(&server, ATTACKER, true));
    report("attacker", &format!("{} that do", players.len()));
    assert_eq!(players.len(), 2928);

    let right = honest_before[0].oid.clone();
    let answered = guess(&mut players[..200], &right);
    report("attacker", &format!("{answered} of 4000 wrong codes answered"));
    assert!((120..160).contains(&answered), "{answered}");

    let mut honest_after = wave(&server, ELSEWHERE);
    play(&server, &mut honest_after[..GAME]);
    report("others", "a wave joins, finds its codes and relays as before");
    play(&server, &mut honest_before[..GAME]);
}

#[test]
fn an_attacker_with_one_ip_leaves_relays_for_another_carrier() {
    let server = TestServer::start(&defaults());
    let relays = take_relays(&server, ATTACKER, usize::MAX);
    report("attacker", &format!("{relays} of 1024 relays"));
    assert_eq!(relays, 744);
    let of_carrier = take_relays(&server, CARRIER, 200);
    report("players", &format!("{of_carrier} of 200 relays that another IP asks for beside that"));
    assert!(of_carrier >= 180, "{of_carrier}");
    let mut honest = wave(&server, ELSEWHERE);
    play(&server, &mut honest[..GAME]);
}

/// A connection, unless it is refused.
fn open(server: &TestServer, ip: IpAddr, registers: bool) -> Option<Line> {
    let mut line = Line::connect_from(server.addresses.socket, ip);
    line.send(if registers { "register-host" } else { "echo" });
    let answer = line.receive()?;
    if registers && !answer.starts_with("error") {
        line.expect("set-pid");
    }
    (!answer.starts_with("error server-full")).then_some(line)
}

fn fill(attempt: impl FnMut() -> Option<Line>) -> Vec<Line> {
    std::iter::repeat_with(attempt).map_while(|line| line).collect()
}

/// How many wrong codes are told to be wrong; a right one is then not told either.
fn guess(players: &mut [Line], right: &str) -> usize {
    let mut answered = 0;
    for line in &mut *players {
        for number in 0..20 {
            line.send(&format!("connect {number}"));
            answered += usize::from(line.expect("connect-error").starts_with("unknown-oid"));
        }
    }
    players[0].send(&format!("connect {right}"));
    assert!(players[0].expect("connect-error").starts_with("rate-limited"));
    answered
}

/// Hosts of its own, each asked by as many of its players as a host's introductions allow.
fn take_relays(server: &TestServer, ip: IpAddr, wanted: usize) -> usize {
    let mut taken = 0;
    for _ in 0..20 {
        let mut host = Player::join_from(server, ip);
        for _ in 0..60 {
            let mut asker = Player::join_from(server, ip);
            asker.line.send(&format!("connect-relay {}", host.oid));
            let answer = asker.line.receive().expect("an answer");
            if answer.starts_with("connect-relay-error relays-exhausted") {
                return taken;
            }
            host.line.expect("connect-relay");
            taken += 1;
            if taken == wanted {
                return taken;
            }
        }
    }
    taken
}
