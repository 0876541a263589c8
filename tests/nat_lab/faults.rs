//! What fails around the server: the kernel's refusals, full buffers, lost interfaces. Whom it does not concern loses
//! nothing, and afterwards all go on.

use std::io::Read;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use socket2::SockRef;

use crate::harness::ignore;
use crate::lab::{Host, Lab, Lan, Router, Running, ends_with_this_thread, lab};
use crate::players::{Noray, Player, Stream, connect, connect_relay, now, try_until};
use crate::support::{PATIENCE, REPEAT, receive};

const BOTH_FAMILIES: [&str; 2] = ["NORAY_SOCKET_HOST=::", "NORAY_UDP_HOST=::"];
const SERVER_V6: &str = "[2001:db8::10]:8890";

/// For tests that send more than a game does.
const NO_LIMIT: &str = "NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC=1gb";

/// What the log says when the kernel refuses to send.
const SEND_WARNING: &str = "sending to a player failed";

/// A pair of an IPv4 client and an IPv6 host.
fn mixed(lab: &Lab, v6_machine: &Host, noray: &Noray<'_>) -> Stream {
    let server_v6: SocketAddr = SERVER_V6.parse().unwrap();
    let mut client = Player::join(&lab.lan(Router::None).host(), noray);
    let mut host = Player::join_at(v6_machine, server_v6);
    let [to_host, mut to_client] = connect_relay(&mut client, &mut host, noray);
    to_client.set_ip(server_v6.ip());
    Stream::of(client, to_host, host, to_client)
}

/// While nothing can be sent to `refused`'s host, that is counted and logged once, and costs nobody else anything.
fn expect_refusals(noray: &Noray<'_>, refused: &mut Stream, other: &mut Stream, error: &str) {
    const ATTEMPTS: u64 = 20;
    let before = noray.drops("send-failed");
    for _ in 0..ATTEMPTS {
        refused.client.send("refused", refused.to_host);
        other.check();
    }
    let is_counted = try_until(PATIENCE, || noray.drops("send-failed") == before + ATTEMPTS);
    assert!(is_counted, "{} of {ATTEMPTS} refused", noray.drops("send-failed") - before);
    refused.host.send("the other way", refused.to_client);
    assert_eq!(refused.client.receive().0, "the other way");
    expect_one_warning(noray, error);
}

fn expect_one_warning(noray: &Noray<'_>, error: &str) {
    let [warning] = &send_warnings(noray)[..] else { panic!("{}", noray.log()) };
    assert!(warning.contains(error), "{warning}");
}

/// What was written so far about sending that failed.
fn send_warnings(noray: &Noray<'_>) -> Vec<String> {
    // Whoever joins is logged: everything before has been written then.
    let mut line = noray.line();
    line.send("register-host");
    let open_id = line.expect("set-oid");
    assert!(try_until(PATIENCE, || noray.log().contains(&open_id)));
    noray.log().lines().filter(|line| line.contains(SEND_WARNING)).map(str::to_owned).collect()
}

pub(crate) fn a_firewall_that_refuses_one_player_costs_nobody_else_a_datagram() {
    let lab = lab();
    let noray = Noray::start(&lab, &[]);
    let public = lab.lan(Router::None);
    let mut refused = Stream::begin(&lab.lan(Router::Home).host(), &public.host(), &noray);
    let mut other = Stream::begin(&lab.lan(Router::Symmetric).host(), &public.host(), &noray);
    let refused_ip = refused.host.udp.local_addr().unwrap().ip();
    lab.server.nft(&format!(
        "table inet refusal {{\n\
         chain outbound {{\n\
         type filter hook output priority filter;\n\
         meta l4proto udp ip daddr {refused_ip} drop\n\
         }}\n\
         }}\n"
    ));
    expect_refusals(&noray, &mut refused, &mut other, "Operation not permitted");
    lab.server.nft("delete table inet refusal\n");
    refused.check();
    other.check();
}

pub(crate) fn a_server_without_a_route_to_one_player_goes_on_with_the_others() {
    let lab = lab();
    let noray = Noray::start(&lab, &BOTH_FAMILIES);
    let mut refused = mixed(&lab, &lab.ipv6_host(), &noray);
    let public = lab.lan(Router::None);
    let mut other = Stream::begin(&lab.lan(Router::Home).host(), &public.host(), &noray);
    lab.server.ip("route del ::/0 dev wan\nroute del 2001:db8::/64 dev wan\n");
    expect_refusals(&noray, &mut refused, &mut other, "Network is unreachable");
    lab.server.ip("route add 2001:db8::/64 dev wan\nroute add ::/0 dev wan\n");
    refused.check();
    other.check();
}

pub(crate) fn a_datagram_that_is_too_large_for_ipv4_is_dropped_alone() {
    let lab = lab();
    let noray = Noray::start(&lab, &[&BOTH_FAMILIES[..], &[NO_LIMIT]].concat());
    let mut mixed = mixed(&lab, &lab.ipv6_host(), &noray);
    let public = lab.lan(Router::None);
    let mut other = Stream::begin(&lab.lan(Router::Home).host(), &public.host(), &noray);
    for length in [65_527, 65_508] {
        noray.expect_drop("too-large", || {
            mixed.host.udp.send_to(&vec![b'6'; length], mixed.to_client).unwrap();
        });
        mixed.check();
        other.check();
    }
    assert_eq!((noray.drops("too-large"), noray.drops("send-failed")), (2, 0));
    assert_eq!(send_warnings(&noray), [""; 0], "it is no fault of the machine's");
    let largest = vec![b'4'; 65_507];
    for (from, at, to) in
        [(&mixed.host, mixed.to_client, &mixed.client), (&mixed.client, mixed.to_host, &mixed.host)]
    {
        from.udp.send_to(&largest, at).unwrap();
        to.udp.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(receive(&to.udp).0 == largest, "the largest that both families know passes");
    }
    mixed.check();
}

/// Lets every other `sendto` of noray's event loop fail until the process ends.
///
/// # Errors
/// The reason why that cannot be done here.
fn let_sending_fail(noray: &Noray<'_>, error: &str) -> Result<Running, String> {
    let mut command = ends_with_this_thread("strace");
    command.args(["-e", "trace=sendto", "-e", &format!("inject=sendto:error={error}:when=1+2")]);
    command.args(["-p", &noray.id().to_string()]).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| format!("strace does not run: {error}"))?;
    let mut strace = Running(child);
    let mut output = strace.0.stderr.take().expect("a pipe");
    let mut said = Vec::new();
    // Only the one line: what follows is one for each `sendto`, which fit into the pipe.
    while !said.ends_with(b"attached\n") {
        let mut byte = [0];
        match output.read(&mut byte) {
            Ok(1) => said.push(byte[0]),
            _ => return Err(format!("strace: {}", String::from_utf8_lossy(&said).trim())),
        }
    }
    strace.0.stderr = Some(output);
    Ok(strace)
}

pub(crate) fn an_interface_whose_queue_is_full_loses_only_what_did_not_fit() {
    const DATAGRAMS: u64 = 100;
    let lab = lab();
    let noray = Noray::start(&lab, &[]);
    let public = lab.lan(Router::None);
    let mut stream = Stream::begin(&lab.lan(Router::Home).host(), &public.host(), &noray);
    for error in ["ENOBUFS", "EAGAIN"] {
        let strace = let_sending_fail(&noray, error).unwrap_or_else(|reason| ignore(reason));
        let before = noray.drops("send-buffer-full");
        for number in 0..DATAGRAMS {
            stream.client.send(&format!("{error} {number}"), stream.to_host);
        }
        for number in (0..DATAGRAMS).filter(|number| number % 2 == 1) {
            assert_eq!(stream.host.receive().0, format!("{error} {number}"));
        }
        assert_eq!(noray.drops("send-buffer-full") - before, DATAGRAMS / 2, "{error}");
        drop(strace);
        stream.check();
    }
    assert_eq!(noray.drops("send-failed"), 0);
    assert!(!noray.log().contains(SEND_WARNING), "routes and firewall are not to blame");
}

pub(crate) fn a_storm_of_icmp_errors_about_a_player_that_closed_its_socket_disturbs_nobody() {
    const DATAGRAMS: u64 = 5000;
    const PACE: u64 = 5;
    let lab = lab();
    let noray = Noray::start(&lab, &[NO_LIMIT]);
    let public = lab.lan(Router::None);
    let machine = public.host();
    // Every error is sent: by default Linux sends few.
    machine.enter(|| std::fs::write("/proc/sys/net/ipv4/icmp_ratemask", "0")).unwrap();
    let closing = Stream::begin(&public.host(), &machine, &noray);
    let mut other = Stream::begin(&lab.lan(Router::Home).host(), &public.host(), &noray);
    noray.settle();
    let errors = || lab.server.counted("Icmp", "InDestUnreachs");
    let (relayed, before) = (noray.metric("noray_relay_datagrams_total"), errors());

    let Stream { client, host, to_host, .. } = closing;
    let closed = host.udp.local_addr().unwrap();
    drop(host.udp);
    for number in 0..DATAGRAMS {
        client.send("is anybody there?", to_host);
        // Often enough that the loop keeps up: what waits must fit into the port's buffer.
        if number % PACE == 0 {
            other.check();
        }
    }
    // The kernel may skip an error when it is busy with another.
    let is_storm = try_until(PATIENCE, || errors() - before >= DATAGRAMS * 9 / 10);
    assert!(is_storm, "{} errors came to the server", errors() - before);
    noray.settle();
    let checks = 2 * DATAGRAMS / PACE;
    assert_eq!(noray.metric("noray_relay_datagrams_total") - relayed, DATAGRAMS + checks);

    // The registrar's answers come back too.
    let before = errors();
    let registrar = SocketAddr::new(noray.address.ip(), 8809);
    for _ in 0..200 {
        lab.spoof(closed, registrar, host.pid.as_bytes());
    }
    assert!(try_until(PATIENCE, || errors() - before >= 180), "{}", errors() - before);
    Player::join(&public.host(), &noray);
    other.check();
    assert_eq!(noray.metric("noray_receive_errors_total"), 0);
    assert_eq!(noray.drops("send-failed"), 0);
}

pub(crate) fn what_full_buffers_lose_is_counted_to_the_datagram() {
    const DATAGRAMS: u64 = 6000;
    let lab = lab();
    let noray = Noray::start(&lab, &[NO_LIMIT]);
    let public = lab.lan(Router::None);
    let mut flooded = Stream::begin(&public.host(), &public.host(), &noray);
    let mut other = Stream::begin(&public.host(), &public.host(), &noray);
    SockRef::from(&flooded.host.udp).set_recv_buffer_size(2 << 20).unwrap();
    let crowd = Player::join(&public.host(), &noray);
    let registrar = SocketAddr::new(noray.address.ip(), 8809);
    let overflows = || noray.metric("noray_machine_udp_overflows_total");
    let registrations = || {
        ["success", "repeat", "fail"]
            .map(|result| noray.metric(&format!("noray_remote_registrar_{result}")))
            .iter()
            .sum::<u64>()
    };
    let relayed = || noray.metric("noray_relay_datagrams_total");
    noray.settle();
    let before = [overflows(), relayed(), registrations()];

    noray.signal("STOP");
    let start = now();
    for _ in 0..DATAGRAMS {
        flooded.client.send("flood", flooded.to_host);
        crowd.send(&crowd.pid, registrar);
    }
    other.client.send("waits", other.to_host);
    println!("{DATAGRAMS} to each socket in {:?}", start.elapsed());
    noray.signal("CONT");

    assert_eq!(other.host.receive().0, "waits");
    let mut delivered = 0;
    while let Some((text, _)) = flooded.host.receive_within(3 * REPEAT) {
        assert_eq!(text, "flood");
        delivered += 1;
    }
    let [lost, relayed, registered] =
        [overflows() - before[0], relayed() - before[1], registrations() - before[2]];
    println!("{lost} lost, {delivered} delivered, {registered} at the registrar");
    assert_eq!(relayed, delivered + 1, "the other pair's too");
    assert_eq!(lost, 2 * DATAGRAMS - delivered - registered);
    assert!(delivered < DATAGRAMS && registered < DATAGRAMS, "both buffers were full");

    flooded.check();
    other.check();
    Player::join(&public.host(), &noray);
}

/// Sends until the client is heard, and then the host: how long it took. Whatever else was sent has come then.
fn wait_until_heard(stream: &mut Stream) -> Duration {
    let start = now();
    for (from, at, to) in [
        (&stream.client, stream.to_host, &stream.host),
        (&stream.host, stream.to_client, &stream.client),
    ] {
        let is_heard = try_until(PATIENCE, || {
            from.send("are you there?", at);
            to.receive_within(REPEAT).is_some()
        });
        assert!(is_heard, "the stream does not go on");
    }
    let took = start.elapsed();
    for player in [&stream.client, &stream.host] {
        while player.receive_within(REPEAT).is_some() {}
    }
    took
}

pub(crate) fn relays_and_players_go_on_when_the_servers_interface_was_away() {
    let lab = lab();
    let noray = Noray::start(&lab, &[]);
    let machines = [Router::Home, Router::Symmetric].map(|router| lab.lan(router).host());
    let mut stream = Stream::begin(&machines[0], &machines[1], &noray);
    let default = "route add default dev wan\n";
    for (what, away, back) in [
        ("link", "link set wan down\n", "link set wan up\n"),
        ("address", "addr del 203.0.113.10/24 dev wan\n", "addr add 203.0.113.10/24 dev wan\n"),
    ] {
        lab.server.ip(away);
        stream.client.line.send("echo sent in vain");
        stream.client.send("lost", stream.to_host);
        stream.host.send("lost", stream.to_client);
        assert_eq!(stream.client.receive_within(3 * REPEAT), None);
        assert_eq!(stream.host.receive_within(REPEAT), None);
        lab.server.ip(&format!("{back}{default}"));

        let relayed = wait_until_heard(&mut stream);
        stream.check();
        assert_eq!(stream.client.line.expect("echo"), "sent in vain");
        stream.host.line.settle();
        println!("the {what} is back: relays go on after {relayed:?}");
        let [hosts, _] = connect(&mut stream.client, &mut stream.host);
        assert!(hosts.ip().to_string().starts_with("203.0.113."));
    }
    let mut late = Stream::begin(&machines[0], &machines[1], &noray);
    late.check();
    stream.check();
    assert_eq!(noray.metric("noray_tcp_connections"), 4, "nobody was cut off");
}

pub(crate) fn players_whose_router_vanishes_are_noticed_within_two_minutes() {
    const SOON: Duration = Duration::from_secs(120);
    let lab = lab();
    let noray = Noray::start(&lab, &[]);
    let mut asker = Player::join(&lab.lan(Router::Home).host(), &noray);
    let lans = [(); 4].map(|()| lab.lan(Router::Home));
    let machines = lans.each_ref().map(Lan::host);
    let vanishing = machines.each_ref().map(|machine| Player::join(machine, &noray));
    let [idle, in_flight] = [[0, 1], [2, 3]];
    assert_eq!(noray.metric("noray_active_hosts"), 5);
    for [cut, silent] in [idle, in_flight] {
        lans[cut].cut_line();
        lans[silent].fall_silent();
    }
    let start = now();
    for index in in_flight {
        asker.line.send(&format!("connect {}", vanishing[index].oid));
        asker.line.expect("connect");
    }
    let mut gone_after = [None; 4];
    let are_noticed = try_until(SOON, || {
        let log = noray.log();
        for (player, after) in vanishing.iter().zip(&mut gone_after) {
            if after.is_none() && log.contains(&format!("player {}: disconnected", player.oid)) {
                *after = Some(start.elapsed());
            }
        }
        // Nothing is to come: this is the pause between two looks.
        asker.receive_within(5 * REPEAT);
        gone_after.iter().all(Option::is_some)
    });
    println!(
        "idle behind a cut line, a silent router; with data in flight behind both: {gone_after:?}"
    );
    assert!(are_noticed, "{gone_after:?}");
    for name in ["noray_tcp_connections", "noray_active_hosts"] {
        assert_eq!(noray.metric(name), 1, "{name}");
    }
    assert_eq!(noray.metric("noray_connections_closed_total{reason=\"vanished\"}"), 4);
    for player in &vanishing {
        asker.line.send(&format!("connect {}", player.oid));
        assert!(asker.line.expect("connect-error").starts_with("host-away"));
    }
}
