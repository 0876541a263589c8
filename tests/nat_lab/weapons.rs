//! Whoever can forge sources finds no weapon here: an address is sent no more than came from it, or 64 KiB, unless its
//! owner has shown to be there. Two servers cannot be led to send to each other.
//!
//! What is counted are datagrams and bytes at the sockets that receive them, and what the server's kernel sent in all.

use std::net::{SocketAddr, UdpSocket};

use noray::limits::relay::charged_bytes;
use socket2::SockRef;

use crate::lab::{Host, Lab, REGISTRAR_PORT, Router, lab};
use crate::players::{Noray, Player, Stream, connect_relay, try_until};
use crate::support::{Line, PATIENCE, REPEAT, http_send, register_address, udp_socket};

/// What an address that was not heard is sent at most, with 28 bytes of headers a datagram.
const ALLOWANCE: u64 = 64 * 1024;

const NO_LIMIT: &str = "NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC=1gb";

fn registrar(noray: &Noray<'_>) -> SocketAddr {
    noray.relay(REGISTRAR_PORT)
}

fn socket(machine: &Host) -> UdpSocket {
    machine.enter(|| udp_socket(machine.address()))
}

/// The datagrams that have come to a socket.
fn arrived(socket: &UdpSocket) -> Vec<Vec<u8>> {
    socket.set_nonblocking(true).unwrap();
    let mut buffer = vec![0; 65_536];
    let datagrams = std::iter::from_fn(|| {
        let length = socket.recv(&mut buffer).ok()?;
        Some(buffer[..length].to_vec())
    });
    let datagrams = datagrams.collect();
    socket.set_nonblocking(false).unwrap();
    datagrams
}

/// Datagrams that left the server by UDP.
fn sent(server: &Host) -> u64 {
    server.counted("Udp", "OutDatagrams")
}

/// Somebody who talks to the registrar, and a player whose `OK` shows that all before has been answered.
struct Asker {
    socket: UdpSocket,
    player: Player,
    registrar: SocketAddr,
    /// Datagrams that came, also to the player.
    answers: u64,
}

impl Asker {
    fn new(machine: &Host, noray: &Noray<'_>) -> Self {
        let (socket, player) = (socket(machine), Player::join(machine, noray));
        Self { socket, player, registrar: registrar(noray), answers: 0 }
    }

    /// What comes back for a datagram, which is never more than was sent.
    fn ask(&mut self, payload: &[u8]) -> Vec<Vec<u8>> {
        self.socket.send_to(payload, self.registrar).unwrap();
        self.player.send(&self.player.pid, self.registrar);
        assert_eq!(self.player.receive(), ("OK".to_owned(), self.registrar));
        let answers = arrived(&self.socket);
        let received: usize = answers.iter().map(Vec::len).sum();
        assert!(received <= payload.len(), "{received} bytes for {payload:?}");
        self.answers += 1 + answers.len() as u64;
        answers
    }
}

pub(crate) fn the_registrar_answers_with_no_more_bytes_than_it_got() {
    const UNKNOWN: &[u8] = b"Unknown host pid!";
    let lab = lab();
    let noray = Noray::start(&lab, &[]);
    let machine = lab.lan(Router::None).host();
    let pid = Player::join(&machine, &noray);
    let (pid, _connection) = (pid.pid, pid.line);
    let mut asker = Asker::new(&machine, &noray);
    noray.settle();
    let before = sent(&lab.server);

    for length in 0..=400 {
        let garbage = [b'x', 0xff, b' ', 0].map(|byte| vec![byte; length]);
        let echo: Vec<u8> = UNKNOWN.iter().copied().cycle().take(length).collect();
        for payload in garbage.iter().chain([&echo]) {
            asker.ask(payload);
        }
        // There is a rate, but every length gets its answer.
        let payload = &garbage[length % 4];
        let is_answered = length > UNKNOWN.len()
            && try_until(PATIENCE, || asker.ask(payload).contains(&UNKNOWN.to_vec()));
        assert_eq!(is_answered, length > UNKNOWN.len(), "{length} bytes");
    }
    for length in 1..pid.len() {
        assert_ne!(asker.ask(&pid.as_bytes()[..length]), [b"OK"]);
        assert_ne!(asker.ask(&pid.as_bytes()[length..]), [b"OK"]);
    }
    for length in 1..=300 {
        let spaces: String = " \r\n\t".chars().cycle().take(length).collect();
        assert_eq!(asker.ask(format!("{pid}{spaces}").as_bytes()), [b"OK"]);
        asker.ask(format!("{spaces}{pid}").as_bytes());
        let lengthened = format!("{pid}{}", "x".repeat(length));
        assert_ne!(asker.ask(lengthened.as_bytes()), [b"OK"]);
    }
    assert_eq!(asker.ask(pid.as_bytes()), [b"OK"]);
    noray.settle();
    assert_eq!(sent(&lab.server) - before, asker.answers, "and nobody else got anything");
}

pub(crate) fn relay_ports_say_nothing_to_anybody_but_the_introduced_two() {
    let lab = lab();
    let noray = Noray::start(&lab, &["NORAY_UDP_RELAY_PORTS=49152-49407"]);
    let public = lab.lan(Router::None);
    let machines = [(); 3].map(|()| public.host());
    let mut stream = Stream::begin(&machines[0], &machines[1], &noray);
    // Three that registered have a port each.
    let reserved = [(); 3].map(|()| Player::join(&machines[2], &noray));
    assert_eq!(noray.metric("noray_relay_ports{state=\"reserved\"}"), 3);
    let stranger = socket(&public.host());
    noray.settle();
    let before = [sent(&lab.server), noray.handled()];
    let handled = || noray.handled() - before[1];
    let mut attempts = 0;
    for port in 49_152..=49_407 {
        // A busy machine loses what waits in more than a thousand frames.
        if port % 16 == 0 {
            assert!(try_until(PATIENCE, || handled() == attempts), "{} of {attempts}", handled());
        }
        let port = noray.relay(port);
        for length in [0, 1, 28, 500, 1400] {
            let payload = vec![b'?'; length];
            for socket in [&stranger, &reserved[0].udp] {
                socket.send_to(&payload, port).unwrap();
                attempts += 1;
            }
            for (player, way) in
                [(&stream.client, stream.to_host), (&stream.host, stream.to_client)]
            {
                if port != way {
                    player.udp.send_to(&payload, port).unwrap();
                    attempts += 1;
                }
            }
        }
        // Forged as the introduced two, where they have nobody to send to.
        if ![stream.to_host, stream.to_client].contains(&port) {
            for player in [&stream.client, &stream.host] {
                lab.spoof(player.udp.local_addr().unwrap(), port, b"?");
                attempts += 1;
            }
        }
    }
    assert!(try_until(PATIENCE, || handled() == attempts), "{} of {attempts}", handled());
    assert_eq!(sent(&lab.server), before[0], "not one datagram left");
    stream.check();
    for socket in [&stranger].into_iter().chain(reserved.iter().map(|player| &player.udp)) {
        assert_eq!(arrived(socket), [[0; 0]; 0]);
    }
}

pub(crate) fn commands_and_http_lead_to_no_datagram() {
    let lab = lab();
    let noray = Noray::start(&lab, &["NORAY_HTTP_HOST=0.0.0.0"]);
    let public = lab.lan(Router::None);
    let machines = [(); 3].map(|()| public.host());
    let victim = socket(&machines[0]);
    let mut host = Player::join(&machines[1], &noray);
    let mut registered = Player::join(&machines[2], &noray);
    // One whose address is the victim's, who is no player.
    let mut forged = Player::join(&machines[2], &noray);
    lab.spoof(victim.local_addr().unwrap(), registrar(&noray), forged.pid.as_bytes());
    victim.recv(&mut [0; 64]).expect("OK");
    let mut unregistered = machines[2].enter(|| Line::connect(noray.address));

    noray.settle();
    let before = sent(&lab.server);
    let oids = [&host.oid, &forged.oid, &registered.oid, "wrong", ""].map(str::to_owned);
    let commands = ["connect", "connect-relay"];
    let aimed =
        commands.iter().flat_map(|name| oids.iter().map(move |oid| format!("{name} {oid}")));
    let others = ["register-host", "echo", "connect", "connect-relay", "set-pid x", "$", "", " "];
    let long = format!("echo {}", "x".repeat(4000));
    let lines: Vec<String> =
        aimed.chain(others.map(str::to_owned)).chain([long, "\u{1}\u{2}".to_owned()]).collect();
    for line in [&mut registered.line, &mut forged.line, &mut unregistered] {
        for command in &lines {
            line.send(command);
        }
        line.send("echo settled");
        let answers = std::iter::from_fn(|| line.receive());
        let answers = answers.take_while(|answer| answer != "echo settled").collect::<Vec<_>>();
        assert!(answers.len() >= lines.len() - 2, "{answers:?}");
    }
    unregistered.send(&"x".repeat(5000));
    assert!(unregistered.expect("error").starts_with("line-too-long"));
    host.line.send("echo settled");
    let heard = std::iter::from_fn(|| host.line.receive());
    assert_eq!(heard.take_while(|line| line != "echo settled").count(), 4, "two asked, twice");

    let http = SocketAddr::new(noray.address.ip(), 8891);
    for request in ["GET /metrics", "GET /healthz", "GET /readyz", "POST /", "?", "\u{0}"] {
        machines[2].enter(|| http_send(http, format!("{request}\r\n\r\n").as_bytes()));
    }
    noray.settle();
    assert_eq!(sent(&lab.server), before, "not one datagram left");
    for socket in [&victim, &host.udp, &registered.udp, &forged.udp] {
        assert_eq!(arrived(socket), [[0; 0]; 0]);
    }
}

/// Two players of an attacker, introduced by relay, and somebody who is none.
struct Attack<'a> {
    lab: &'a Lab,
    noray: &'a Noray<'a>,
    sender: Player,
    receiver: Player,
    to_receiver: SocketAddr,
    to_sender: SocketAddr,
    victim: UdpSocket,
    victims_address: SocketAddr,
}

impl<'a> Attack<'a> {
    fn new(lab: &'a Lab, noray: &'a Noray<'a>, attacker: &Host, victim: &Host) -> Self {
        let [mut sender, mut receiver] = [(); 2].map(|()| Player::join(attacker, noray));
        let [to_receiver, to_sender] = connect_relay(&mut sender, &mut receiver, noray);
        let victim = socket(victim);
        let victims_address = victim.local_addr().unwrap();
        Self { lab, noray, sender, receiver, to_receiver, to_sender, victim, victims_address }
    }

    /// Registers the victim's address as the receiver's.
    fn forge(&self) {
        let registered = || self.noray.metric("noray_remote_registrar_success");
        let before = registered();
        self.lab.spoof(self.victims_address, registrar(self.noray), self.receiver.pid.as_bytes());
        assert!(try_until(PATIENCE, || registered() > before));
    }

    /// The receiver registers where it is, and is heard there.
    fn be_honest(&self) {
        let Self { receiver, sender, .. } = self;
        register_address(&receiver.udp, &receiver.pid, registrar(self.noray));
        receiver.send("here I am", self.to_sender);
        assert!(
            std::iter::from_fn(|| sender.receive_within(PATIENCE)).any(|(t, _)| t == "here I am")
        );
    }

    /// Sends more than the allowance, so slowly that the server's buffer holds it.
    fn flood(&self, length: usize) {
        const BYTES_AT_ONCE: u64 = 40_000;
        self.noray.settle();
        let payload = vec![b'!'; length];
        let at_once = (BYTES_AT_ONCE / charged_bytes(length)).clamp(1, 50);
        let mut left = (ALLOWANCE + BYTES_AT_ONCE) / charged_bytes(length) + 2;
        while left > 0 {
            let before = self.noray.handled();
            let burst = at_once.min(left);
            left -= burst;
            for _ in 0..burst {
                self.sender.udp.send_to(&payload, self.to_receiver).unwrap();
            }
            assert!(try_until(PATIENCE, || self.noray.handled() - before == burst));
        }
    }

    /// What came to the victim from relays, charged, and how many times the registrar said `OK`.
    fn damage(&self) -> (u64, usize) {
        let (oks, relayed): (Vec<_>, Vec<_>) =
            arrived(&self.victim).into_iter().partition(|datagram| datagram == b"OK");
        (relayed.iter().map(|datagram| charged_bytes(datagram.len())).sum(), oks.len())
    }
}

pub(crate) fn a_forged_registration_turns_at_most_64_kib_on_a_stranger() {
    let lab = lab();
    let noray = Noray::start(&lab, &[NO_LIMIT]);
    let public = lab.lan(Router::None);
    let [attacker, bystander] = [(); 2].map(|()| public.host());
    for length in [0, 1, 500, 1472, 30_000, 60_000] {
        let attack = Attack::new(&lab, &noray, &attacker, &bystander);
        SockRef::from(&attack.victim).set_recv_buffer_size(4 << 20).unwrap();
        attack.forge();
        let before = noray.drops("receiver-unheard") + noray.drops("silent-host");
        attack.flood(length);
        let (damage, oks) = attack.damage();
        println!("datagrams of {length} bytes: {damage} bytes came to the stranger");
        // A host that does not answer is sent less at once.
        assert!(damage > 0 && damage <= ALLOWANCE, "{length}: {damage}");
        assert_eq!(oks, 1);
        assert!(noray.drops("receiver-unheard") + noray.drops("silent-host") > before);
        // Nor does it help to say the same again, or to ask for the pair again.
        let pid = attack.receiver.pid.as_bytes();
        lab.spoof(attack.victims_address, registrar(&noray), pid);
        attack.flood(length);
        assert!(damage + attack.damage().0 <= ALLOWANCE, "{length}");
    }
}

pub(crate) fn real_and_forged_addresses_in_turn_turn_no_more_than_that_on_a_stranger() {
    const LENGTH: usize = 1000;
    let lab = lab();
    let noray = Noray::start(&lab, &[NO_LIMIT]);
    let public = lab.lan(Router::None);
    let [attacker, bystander] = [(); 2].map(|()| public.host());
    let attack = Attack::new(&lab, &noray, &attacker, &bystander);
    let mut damage = 0;
    for _ in 0..4 {
        attack.be_honest();
        attack.forge();
        attack.flood(LENGTH);
        damage += attack.damage().0;
    }
    println!("{damage} bytes came to the stranger in four turns");
    assert!(damage <= ALLOWANCE, "{damage} bytes");
    assert!(damage > 0, "a player that really moved must be found");
}

/// Two servers, and what each has counted.
struct Servers<'a> {
    machines: [&'a Host; 2],
    norays: [Noray<'a>; 2],
}

impl<'a> Servers<'a> {
    fn start(machines: [&'a Host; 2], settings: &[&str]) -> Self {
        Self { machines, norays: machines.map(|machine| Noray::start_on(machine, settings)) }
    }

    fn sent(&self) -> [u64; 2] {
        self.machines.map(sent)
    }

    fn relayed(&self) -> [u64; 2] {
        self.norays.each_ref().map(|noray| noray.metric("noray_relay_datagrams_total"))
    }

    fn dropped(&self, reason: &str) -> [u64; 2] {
        self.norays.each_ref().map(|noray| noray.drops(reason))
    }

    fn wrong_registrations(&self) -> [u64; 2] {
        self.norays.each_ref().map(|noray| noray.metric("noray_remote_registrar_fail"))
    }
}

fn since(after: [u64; 2], before: [u64; 2]) -> [u64; 2] {
    [after[0] - before[0], after[1] - before[1]]
}

pub(crate) fn two_registrars_do_not_answer_each_other() {
    const DATAGRAMS: u64 = 20;
    let lab = lab();
    let second = lab.lan(Router::None).host();
    let servers = Servers::start([&lab.server, &second], &[]);
    let [first, other] = &servers.norays;
    let player = Player::join(&lab.lan(Router::None).host(), first);
    first.settle();
    let garbage = [b'x'; 1000];
    let free_relay = other.relay(50_000);
    for (payload, source, sent, wrong, arrived) in [
        // The answer is no longer than an answer, and is not answered.
        (&garbage[..], registrar(other), [DATAGRAMS, 0], [DATAGRAMS; 2], 0),
        (player.pid.as_bytes(), registrar(other), [DATAGRAMS, 0], [0, DATAGRAMS], 0),
        (&garbage[..], free_relay, [DATAGRAMS, 0], [DATAGRAMS, 0], DATAGRAMS),
        (player.pid.as_bytes(), free_relay, [DATAGRAMS, 0], [0, 0], DATAGRAMS),
    ] {
        let before = [servers.sent(), servers.wrong_registrations(), servers.dropped("no-pair")];
        for _ in 0..DATAGRAMS {
            lab.spoof(source, registrar(first), payload);
        }
        let since_then = || {
            let now = [servers.sent(), servers.wrong_registrations(), servers.dropped("no-pair")];
            [0, 1, 2].map(|index| since(now[index], before[index]))
        };
        let expected = [sent, wrong, [0, arrived]];
        let is_so = try_until(PATIENCE, || since_then() == expected);
        assert!(is_so, "from {source}: {:?}, expected {expected:?}", since_then());
        assert_eq!(player.receive_within(REPEAT), None, "time for more to go round");
        assert_eq!(since_then(), expected, "from {source}: nothing went round");
    }
    // Nor do relays answer a registrar.
    let before = servers.sent();
    first.expect_drop("no-pair", || lab.spoof(registrar(other), first.relay(50_000), &garbage));
    assert_eq!(servers.sent(), before);
}

/// Two pairs of an attacker's, one on each server, whose players have the other pair's ports as forged addresses.
struct Ring {
    /// Their connections keep the players' ids.
    _players: [Player; 4],
    /// Where the clients send to, and the hosts.
    to_hosts: [SocketAddr; 2],
    to_clients: [SocketAddr; 2],
}

impl Ring {
    fn build(lab: &Lab, attacker: &Host, servers: &Servers<'_>) -> Self {
        let pairs = servers.norays.each_ref().map(|noray| {
            let [mut client, mut host] = [(); 2].map(|()| Player::join(attacker, noray));
            let ports = connect_relay(&mut client, &mut host, noray);
            (client, host, ports)
        });
        let [(a, b, first), (c, d, second)] = pairs;
        // A datagram at the first's host port leaves from its client port, and comes to the second's host port.
        for (noray, player, address) in
            [(0, &a, second[1]), (0, &b, second[0]), (1, &c, first[1]), (1, &d, first[0])]
        {
            let noray = &servers.norays[noray];
            let registered = || noray.metric("noray_remote_registrar_success");
            let before = registered();
            lab.spoof(address, registrar(noray), player.pid.as_bytes());
            assert!(try_until(PATIENCE, || registered() == before + 1));
        }
        let to_clients = [first[1], second[1]];
        Self { _players: [a, b, c, d], to_hosts: [first[0], second[0]], to_clients }
    }

    /// Puts a datagram into the ring, at each of its ports.
    fn inject(&self, lab: &Lab) {
        for (here, there) in [(0, 1), (1, 0)] {
            lab.spoof(self.to_clients[there], self.to_hosts[here], b"round and round");
            lab.spoof(self.to_hosts[there], self.to_clients[here], b"round and round");
        }
    }
}

pub(crate) fn two_servers_pairs_with_each_others_ports_are_no_ring() {
    const TIMES: u64 = 10;
    let lab = lab();
    let public = lab.lan(Router::None);
    let [second, attacker] = [(); 2].map(|()| public.host());
    let servers = Servers::start([&lab.server, &second], &[NO_LIMIT]);
    let ring = Ring::build(&lab, &attacker, &servers);
    // Each registrar has sent its answers to the other's relays, and those have dropped them.
    for _ in 0..2 {
        servers.norays.iter().for_each(Noray::settle);
    }
    let before = [servers.sent(), servers.dropped("unconfirmed")];
    for _ in 0..TIMES {
        ring.inject(&lab);
    }
    let unconfirmed = || since(servers.dropped("unconfirmed"), before[1]);
    let is_dropped = try_until(PATIENCE, || unconfirmed() == [2 * TIMES; 2]);
    assert!(is_dropped, "{:?} were dropped", unconfirmed());
    let bystander = socket(&attacker);
    bystander.set_read_timeout(Some(10 * REPEAT)).unwrap();
    assert!(bystander.recv(&mut [0]).is_err(), "time for more to go round");
    assert_eq!(unconfirmed(), [2 * TIMES; 2]);
    assert_eq!(servers.sent(), before[0], "neither server sent anything");
    assert_eq!(servers.relayed(), [0, 0]);
}

/// So the test above could fail. It is why docs/security.md says when to set this.
pub(crate) fn where_any_ip_may_latch_two_servers_can_be_made_a_ring() {
    let lab = lab();
    let public = lab.lan(Router::None);
    let [second, attacker] = [(); 2].map(|()| public.host());
    // Here the ways are short: the usual limit would be reached at once, and drop what goes round.
    let settings = [NO_LIMIT, "NORAY_UDP_RELAY_LATCHING=any"];
    let servers = Servers::start([&lab.server, &second], &settings);
    let ring = Ring::build(&lab, &attacker, &servers);
    ring.inject(&lab);
    let goes_round =
        try_until(PATIENCE, || servers.relayed().iter().all(|relayed| *relayed > 5000));
    println!("a few datagrams were relayed {:?} times", servers.relayed());
    assert!(goes_round, "{:?}", servers.relayed());
}
