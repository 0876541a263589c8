//! Spreads no game over servers: several of them behind one name, each with its own games.
//!
//! A host takes any server that is ready, its join code names that server, and clients go there. The name server
//! runs the files that docs/several-servers.md shows.

use std::net::{IpAddr, SocketAddr};

use crate::dns::{self, NameServer, resolve, resolve_until};
use crate::harness::ignore;
use crate::lab::{Host, REGISTRAR_PORT, Router, lab};
use crate::players::{Noray, Player, connect_relay, open_routers};
use crate::support::{Line, http_get, receive, udp_socket};

/// Where a new host asks for a server.
const FLEET: &str = "noray.example";

const CODES: [&str; 2] = ["eu1", "eu2"];

/// A server of the fleet. Health is looked at from the name server, so it listens on the public address too.
fn start<'a>(machine: &'a Host, code: &str) -> Noray<'a> {
    let prefix = format!("NORAY_OID_PREFIX={code}-");
    Noray::start_on(machine, &[&prefix, "NORAY_HTTP_HOST=0.0.0.0", "NORAY_DRAIN_TIMEOUT=1h"])
}

/// A new host: on whatever server comes first, which its OpenID then names.
fn host_anywhere(machine: &Host) -> (Player, &'static str) {
    let server = resolve(machine, FLEET).addresses[0];
    let host = Player::join_at(machine, (server, 8890).into());
    let code = CODES.into_iter().find(|code| host.oid.starts_with(&format!("{code}-")));
    (host, code.expect("a server's prefix"))
}

/// A new client, which knows nothing but the join code.
fn join_by_code(machine: &Host, join_code: &str) -> Player {
    let (server, _) = join_code.split_once('-').expect("a prefix");
    let addresses = resolve(machine, &format!("{server}.{FLEET}")).addresses;
    assert_eq!(addresses.len(), 1);
    Player::join_at(machine, (addresses[0], 8890).into())
}

pub(crate) fn players_meet_where_their_code_says_and_a_draining_server_gets_no_new_hosts() {
    let lab = lab();
    dns::available().unwrap_or_else(|reason| ignore(reason));
    let public = lab.lan(Router::None);
    let [name_server, eu1, eu2] = [(); 3].map(|()| public.host());
    let machines = [&eu1, &eu2];
    let servers = [0, 1].map(|index| start(machines[index], CODES[index]));
    let both = servers.each_ref().map(|server| server.address.ip());
    let _name_server = NameServer::start(&name_server);
    let homes = [Router::Home, Router::Symmetric].map(|router| lab.lan(router).host());
    let asker = &lab.server;
    resolve_until(asker, FLEET, &both, || {});
    assert!(resolve(asker, FLEET).ttl <= 10, "resolvers ask again soon");

    let (mut host, code) = host_anywhere(&homes[0]);
    let mut client = join_by_code(&homes[1], &host.oid);
    let [drained, other] = if code == CODES[0] { [0, 1] } else { [1, 0] };
    let mut servers = servers.map(Some);
    let server = servers[drained].take().expect("it runs");
    let [to_host, to_client] = connect_relay(&mut client, &mut host, &server);
    open_routers(&client, to_host, &host, to_client);
    let play = || play(&client, to_host, &host, to_client);
    play();

    server.signal("TERM");
    let left_out = resolve_until(asker, FLEET, &[both[other]], play);
    assert!(readyz(&name_server, both[drained]).contains(" 503 "));
    assert!(readyz(&name_server, both[other]).contains(" 200 "));
    play();
    assert_eq!(host_anywhere(&homes[0]).1, CODES[other]);

    assert_eq!(host.line.receive(), None, "the server ends when nobody plays");
    assert_eq!(server.wait(), Some(0));
    servers[drained] = Some(start(machines[drained], code));
    let taken_in = resolve_until(asker, FLEET, &both, || {});

    drop(servers[other].take().expect("it is killed now"));
    let left_out_dead = resolve_until(asker, FLEET, &[both[drained]], || {});
    assert_eq!(host_anywhere(&homes[0]).1, code);
    println!(
        "the name server leaves out a draining server after {left_out:.1?}, a killed one after \
         {left_out_dead:.1?}, and takes in a new one after {taken_in:.1?}"
    );
}

/// A datagram each way arrives.
fn play(client: &Player, to_host: SocketAddr, host: &Player, to_client: SocketAddr) {
    client.send("ping", to_host);
    assert_eq!(host.receive(), ("ping".to_owned(), to_client));
    host.send("pong", to_client);
    assert_eq!(client.receive(), ("pong".to_owned(), to_host));
}

fn readyz(from: &Host, server: IpAddr) -> String {
    from.enter(|| http_get((server, 8891).into(), "/readyz")).0
}

pub(crate) fn behind_a_load_balancer_players_do_not_register_or_do_not_meet() {
    let lab = lab();
    let public = lab.lan(Router::None);
    let machines = [(); 2].map(|()| public.host());
    let servers = [0, 1].map(|index| start(&machines[index], CODES[index]));
    let [eu1, eu2] = servers.each_ref().map(|server| server.address.ip());
    let balancer = public.host();
    let players = [(); 3].map(|()| public.host());
    let [a, b, c] = players.each_ref().map(Host::address);
    let at = |port| SocketAddr::new(balancer.address(), port);

    // Every new flow to the next server: TCP comes to one, UDP to the other.
    let in_turn = balance(&format!("numgen inc mod 2 map {{ 0 : {eu1}, 1 : {eu2} }}"));
    balancer.route(&in_turn).unwrap_or_else(|reason| ignore(reason));
    let mut line = players[0].enter(|| Line::connect(at(8890)));
    line.send("register-host");
    let (_, pid) = (line.expect("set-oid"), line.expect("set-pid"));
    let udp = players[0].enter(|| udp_socket(a));
    udp.send_to(pid.as_bytes(), at(REGISTRAR_PORT)).unwrap();
    assert_eq!(receive(&udp).0, b"Unknown host pid!");

    // Every player always to the same server: those of different ones do not meet, whatever the code says, and the
    // others are told the balancer's address, where no player is.
    let by_player = balance(&format!("ip saddr map {{ {a} : {eu1}, {b} : {eu2}, {c} : {eu1} }}"));
    balancer.route(&by_player).unwrap();
    let [host, mut far, mut near] =
        players.each_ref().map(|machine| Player::join_at(machine, at(8890)));
    far.line.send(&format!("connect {}", host.oid));
    assert!(far.line.expect("connect-error").starts_with("unknown-oid"));
    near.line.send(&format!("connect {}", host.oid));
    let told: SocketAddr = near.line.expect("connect").parse().unwrap();
    assert_eq!((told.ip(), host.udp.local_addr().unwrap().ip()), (balancer.address(), a));
}

/// A balancer's rules for TCP and UDP, by which a new flow's server is `choice`.
fn balance(choice: &str) -> String {
    format!(
        "table ip nat {{\n\
            chain to_server {{\n\
                type nat hook prerouting priority dstnat\n\
                meta l4proto {{ tcp, udp }} dnat to {choice}\n\
            }}\n\
            chain back_through_here {{\n\
                type nat hook postrouting priority srcnat\n\
                masquerade\n\
            }}\n\
        }}\n"
    )
}
