//! What all in the world share: the events to come, the network with its routers, connections, and the server.

mod events;
mod tcp;

use std::collections::{BTreeMap, BinaryHeap};

use super::judge::Judge;
use super::net::{Addr, Datagram, Ips, Kind, Line, Owner, Time};
use super::random::Rng;
use super::router::{Inside, Router};
use super::server::{Output, Payload, REGISTRAR, Server};
use events::Planned;

pub use events::{Down, Event, Up};

/// A connection by TCP, with both ends.
pub struct Connection {
    pub peer: u16,
    /// The IP that the server sees.
    pub ip: u16,
    pub site: u16,
    up: Time,
    down: Time,
    /// The player has gone, and the server has not been told.
    pub has_vanished: bool,
    /// The server has it, or had it.
    has_arrived: bool,
    is_over: bool,
    /// The end of a reader's wait is planned.
    is_watched: bool,
}

/// How many datagrams wait in a socket while the server stands still.
const SOCKET_QUEUE: u32 = 200;

pub struct Network {
    pub now: Time,
    queue: BinaryHeap<Planned>,
    planned: u64,
    pub events: u64,
    pub ips: Ips,
    pub routers: Vec<Router>,
    pub lines: Vec<Line>,
    /// The line's random numbers.
    random: Vec<Rng>,
    /// The router of each peer.
    pub route: Vec<u16>,
    /// By which IP each peer connects: of its router's list.
    pub connects_from: Vec<u16>,
    /// IPv6 addresses of peers, which no router translates.
    pub ipv6: BTreeMap<u16, u16>,
    pub udp_by_ipv6: Vec<bool>,
    generations: Vec<u32>,
    pub connections: Vec<Connection>,
    bytes: Vec<Box<[u8]>>,
    /// `None` between the end of one process and the start of the next.
    pub server: Option<Server>,
    pub is_listening: bool,
    pub drained_at: Option<Time>,
    pub restart_after: Time,
    deadline: Option<Time>,
    pub stands_still: Option<(Time, bool)>,
    waiting: BTreeMap<u16, u32>,
    /// The server's IPs: IPv4, and IPv6 if it has one.
    pub server_ips: Vec<u16>,
    pub judge: Judge,
    /// The join codes that hosts have shown to their friends.
    pub lobby: BTreeMap<u16, String>,
    /// Who has heard somebody's datagram last, for the peers' logic.
    pub datagrams: u64,
}

impl Network {
    pub fn new(
        seed: u64,
        ips: Ips,
        server_ips: Vec<u16>,
        judge: Judge,
        sites: Vec<(Router, Line)>,
    ) -> Self {
        let (routers, lines): (Vec<_>, Vec<_>) = sites.into_iter().unzip();
        let random = (0..routers.len() as u64).map(|n| Rng::of(seed, "line", n)).collect();
        Self {
            now: 0,
            queue: BinaryHeap::new(),
            planned: 0,
            events: 0,
            ips,
            routers,
            lines,
            random,
            route: Vec::new(),
            connects_from: Vec::new(),
            ipv6: BTreeMap::new(),
            udp_by_ipv6: Vec::new(),
            generations: Vec::new(),
            connections: Vec::new(),
            bytes: Vec::new(),
            server: None,
            is_listening: false,
            drained_at: None,
            restart_after: 0,
            deadline: None,
            stands_still: None,
            waiting: BTreeMap::new(),
            server_ips,
            judge,
            lobby: BTreeMap::new(),
            datagrams: 0,
        }
    }

    pub fn add_peer(&mut self, router: u16, connects_from: u16, udp_by_ipv6: bool) -> u16 {
        self.route.push(router);
        self.connects_from.push(connects_from);
        self.udp_by_ipv6.push(udp_by_ipv6);
        self.generations.push(0);
        u16::try_from(self.route.len() - 1).expect("a small world")
    }

    pub fn plan(&mut self, at: Time, event: Event) {
        self.planned += 1;
        self.queue.push(Planned { at, number: self.planned, event });
    }

    pub fn next_event(&mut self) -> Option<Event> {
        let Planned { at, event, .. } = self.queue.pop()?;
        self.now = at;
        self.events += 1;
        Some(event)
    }

    /// A peer goes on at that time, and not at the time that was planned before.
    pub fn wake(&mut self, peer: u16, at: Time) {
        let generation = &mut self.generations[usize::from(peer)];
        *generation += 1;
        let event = Event::Tick { peer, generation: *generation };
        self.plan(at, event);
    }

    pub fn is_current(&self, peer: u16, generation: u32) -> bool {
        self.generations[usize::from(peer)] == generation
    }

    /// The server's address of the family by which the peer sends.
    pub fn server_at(&self, peer: u16, port: u16) -> Addr {
        let family = usize::from(self.udp_by_ipv6[usize::from(peer)]);
        Addr { ip: self.server_ips[family.min(self.server_ips.len() - 1)], port }
    }

    pub fn registrar(&self, peer: u16) -> Addr {
        self.server_at(peer, REGISTRAR)
    }

    pub fn send_bytes(&mut self, peer: u16, to: Addr, bytes: &[u8]) {
        self.send_bytes_from(peer, 0, to, bytes);
    }

    pub fn send_bytes_from(&mut self, peer: u16, socket: u8, to: Addr, bytes: &[u8]) {
        let (number, length) = self.keep(bytes);
        self.send(peer, socket, to, Kind::Bytes, length, number);
    }

    fn keep(&mut self, bytes: &[u8]) -> (u32, u16) {
        let length = u16::try_from(bytes.len()).expect("a datagram");
        let known = self.bytes.iter().rposition(|kept| **kept == *bytes);
        let number = known.unwrap_or_else(|| {
            self.bytes.push(bytes.into());
            self.bytes.len() - 1
        });
        (u32::try_from(number).expect("few kinds of bytes"), length)
    }

    pub fn bytes(&self, number: u32) -> &[u8] {
        &self.bytes[number as usize]
    }

    /// A peer sends a datagram through its router.
    pub fn send(&mut self, peer: u16, socket: u8, to: Addr, kind: Kind, length: u16, number: u32) {
        let router = usize::from(self.route[usize::from(peer)]);
        let is_ipv6 = self.udp_by_ipv6[usize::from(peer)];
        let from = if is_ipv6 {
            // Not translated. The router lets answers in: it is as one without a translation.
            Addr { ip: self.ipv6[&peer], port: 4000 + u16::from(socket) }
        } else {
            self.routers[router].send(Inside { peer, socket }, to, self.now)
        };
        let datagram = Datagram { from, to, sender: peer, is_forged: false, kind, length, number };
        self.launch(router, datagram);
    }

    /// A datagram with a source that the sender chose.
    pub fn send_forged(&mut self, peer: u16, from: Addr, to: Addr, kind: Kind, length: u16) {
        self.judge.note_forged(from);
        let router = usize::from(self.route[usize::from(peer)]);
        let (is_forged, number) = (true, 0);
        self.launch(router, Datagram { from, to, sender: peer, is_forged, kind, length, number });
    }

    pub fn send_forged_bytes(&mut self, peer: u16, from: Addr, to: Addr, bytes: &[u8]) {
        self.judge.note_forged(from);
        let (number, length) = self.keep(bytes);
        let router = usize::from(self.route[usize::from(peer)]);
        let (is_forged, kind) = (true, Kind::Bytes);
        self.launch(router, Datagram { from, to, sender: peer, is_forged, kind, length, number });
    }

    fn launch(&mut self, router: usize, datagram: Datagram) {
        self.datagrams += 1;
        let (line, random) = (self.lines[router], &mut self.random[router]);
        let copies = 1 + u8::from(random.is_hit(line.duplicates));
        for _ in 0..copies {
            let Some(mut delay) = line.pass(&mut self.random[router]) else { continue };
            if let Some(other) = self.router_at(datagram.to.ip) {
                let Some(more) = self.lines[other].pass(&mut self.random[other]) else { continue };
                delay += more;
            }
            self.plan(self.now + delay, Event::Datagram(datagram));
        }
    }

    /// Who gets a datagram at an address that is not the server's.
    pub fn receiver(&self, datagram: &Datagram) -> Option<u16> {
        match self.ips.owner(datagram.to.ip) {
            Owner::Peer(peer) => Some(peer),
            Owner::Router(router) => {
                let router = &self.routers[usize::from(router)];
                router.receive(datagram.to, datagram.from, self.now).map(|inside| inside.peer)
            }
            Owner::Server | Owner::Bystander => None,
        }
    }

    /// Whose line leads to that IP.
    fn router_at(&self, ip: u16) -> Option<usize> {
        match self.ips.owner(ip) {
            Owner::Router(router) => Some(router.into()),
            Owner::Peer(peer) => Some(self.route[usize::from(peer)].into()),
            Owner::Server | Owner::Bystander => None,
        }
    }

    /// Until when the server's machine does not run, if it does not run now.
    pub fn stands_still_until(&self) -> Option<Time> {
        self.stands_still.map(|(until, _)| until).filter(|until| self.now < *until)
    }

    /// Whether the server's machine does not run now, so that the event comes later or never.
    pub fn is_deferred(&mut self, event: Event) -> Option<Event> {
        let Some((until, loses)) = self.stands_still else { return Some(event) };
        if self.now >= until {
            (self.stands_still, self.waiting) = (None, BTreeMap::new());
            return Some(event);
        }
        if let Event::Datagram(datagram) = &event {
            let waiting = self.waiting.entry(datagram.to.port).or_default();
            *waiting += 1;
            if loses || *waiting > SOCKET_QUEUE {
                self.judge.note_lost_in_socket(datagram, self.now);
                return None;
            }
        }
        self.plan(until, event);
        None
    }

    /// A datagram comes to the server.
    pub fn arrive_at_server(&mut self, datagram: Datagram) {
        let Some(server) = &mut self.server else { return };
        let payload = match datagram.kind {
            Kind::Bytes => Payload::Bytes(&self.bytes[datagram.number as usize]),
            Kind::Handshake { .. } | Kind::Ask | Kind::Verify | Kind::Game | Kind::Junk => {
                Payload::Length(datagram.length.into())
            }
        };
        let source = self.ips.socket_addr(datagram.from);
        server.trace.now = self.now;
        if let Payload::Bytes(bytes) = payload {
            self.judge.datagram_with_bytes(&datagram, bytes, self.now);
        }
        self.judge.arrived(&datagram, self.now);
        server.receive(datagram.to.port, source, payload, self.now);
        self.carry_out(Some(&datagram));
        self.judge.was_handled(&datagram, self.now);
    }

    /// Passes on what the server has put out.
    pub fn carry_out(&mut self, cause: Option<&Datagram>) {
        let Some(server) = &mut self.server else { return };
        let mut output = std::mem::take(&mut server.output);
        for output in output.drain(..) {
            match output {
                Output::Read { line, from } => self.judge.line_read(from, &line, self.now),
                Output::Told { to, text } => self.tell(to, &text),
                Output::Closed { connection, mode } => self.close_by_server(connection, mode),
                Output::Forwarded { via, to } => {
                    let cause = cause.expect("a datagram leads to it");
                    let to = self.judge.forwarded(cause, via, self.ips.find(to), self.now);
                    if let Some(to) = to {
                        let from = Addr { ip: self.server_ip_for(to), port: via };
                        self.send_from_server(Datagram { from, to, ..*cause });
                    }
                }
                Output::Answered { to, answer } => {
                    let (number, length) = self.keep(answer);
                    let Some(to) = self.ips.find(to) else { continue };
                    let from = Addr { ip: self.server_ip_for(to), port: REGISTRAR };
                    self.judge.answered(cause, to, answer, self.now);
                    let (sender, is_forged, kind) = (u16::MAX, false, Kind::Bytes);
                    let answer = Datagram { from, to, sender, is_forged, kind, length, number };
                    self.send_from_server(answer);
                }
                Output::Draining => {
                    self.judge.drain_began();
                    self.drained_at = Some(self.now);
                    self.is_listening = false;
                }
                Output::Ended => {
                    self.server_ends();
                    return;
                }
            }
        }
        self.judge.turn_ended(self.now);
        let Some(server) = &mut self.server else { return };
        server.output = output;
        let next = self.now + server.end_turn();
        if self.deadline.is_none_or(|planned| next < planned) {
            self.deadline = Some(next);
            self.plan(next, Event::Deadline);
        }
    }

    pub fn deadline(&mut self) {
        if self.deadline.is_some_and(|planned| planned > self.now) {
            return;
        }
        self.deadline = None;
        let Some(server) = &mut self.server else { return };
        server.trace.now = self.now;
        server.handle_deadlines(self.now);
        self.carry_out(None);
    }

    fn server_ip_for(&self, to: Addr) -> u16 {
        let is_ipv6 = self.ips.ip(to.ip).is_ipv6();
        self.server_ips[usize::from(is_ipv6).min(self.server_ips.len() - 1)]
    }

    fn send_from_server(&mut self, datagram: Datagram) {
        let has_socket = |server: &Server| server.has_socket(datagram.to.port);
        if self.ips.owner(datagram.to.ip) == Owner::Server
            && self.server.as_ref().is_some_and(has_socket)
        {
            self.judge.sent_to_itself(&datagram, self.now);
        }
        let Some(router) = self.router_at(datagram.to.ip) else { return };
        if let Some(delay) = self.lines[router].pass(&mut self.random[router]) {
            self.plan(self.now + delay, Event::Datagram(datagram));
        }
    }
}
