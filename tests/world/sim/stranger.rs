//! Strangers: those who scan, forge, flood, guess, hoard and fumble.

use super::net::{Addr, Kind, MS, SECOND, Time};
use super::network::{Down, Network};
use super::plan::{Deed, StrangerPlan};
use super::random::Rng;

/// A connection of a stranger, and what it has been told on it.
#[derive(Default)]
struct Hold {
    connection: Option<u32>,
    text: String,
    ids: Option<(String, String)>,
    /// The ports that it was told by `connect-relay`.
    ports: Vec<u16>,
    is_over: bool,
}

pub struct Stranger {
    pub me: u16,
    pub plan: StrangerPlan,
    random: Rng,
    holds: Vec<Hold>,
    step: u64,
    is_done: bool,
    /// The ports that the server listens on.
    pub ports: (u16, u16),
    /// A bystander, for those who forge.
    pub bystander: Addr,
}

/// How many connections a hoarder tries to hold.
const MANY: usize = 120;

impl Stranger {
    pub fn new(me: u16, plan: StrangerPlan, seed: u64, ports: (u16, u16), bystander: Addr) -> Self {
        let random = Rng::of(seed, "stranger", plan.id.into());
        Self { me, plan, random, holds: Vec::new(), step: 0, is_done: false, ports, bystander }
    }

    pub fn start(&self) -> Time {
        Time::from(self.plan.start_ms) * MS
    }

    /// Does one deed. Returns when to come back.
    pub fn tick(&mut self, net: &mut Network) -> Option<Time> {
        if self.is_done {
            return None;
        }
        if net.now >= self.start() + Time::from(self.plan.for_s) * SECOND {
            self.leave(net);
            return None;
        }
        self.step += 1;
        self.act(net);
        Some(net.now + (SECOND / Time::from(self.plan.rate.max(1))).max(MS / 4))
    }

    fn act(&mut self, net: &mut Network) {
        match self.plan.deed {
            Deed::Scan => self.scan(net),
            Deed::KnownPort => self.send_to_known_port(net),
            Deed::ForgeSources => self.forge_source(net),
            Deed::ForgeAddress => self.forge_address(net, false),
            Deed::ForgeAlive => self.forge_address(net, true),
            Deed::Registrar => {
                let to = net.registrar(self.me);
                let length = self.random.within(1, 200) as u16;
                net.send(self.me, 0, to, Kind::Junk, length, 0);
            }
            Deed::RegistrarForged => {
                let (from, to) = (self.some_address(net), net.registrar(self.me));
                net.send_forged(self.me, from, to, Kind::Junk, 100);
            }
            Deed::Implausible => self.register_impossible(net),
            Deed::Moves => self.move_about(net),
            Deed::Guess => self.guess(net),
            Deed::AskForHost => self.ask_for_host(net),
            Deed::Connections => self.hoard_connections(net, true),
            Deed::Silent => self.hoard_connections(net, false),
            Deed::Relays => self.hoard_relays(net),
            Deed::Flood => self.flood(net),
            Deed::FloodHost => self.flood_host(net, 1200),
            Deed::Mute => self.flood_host(net, 0),
            Deed::Ids => self.say(net, 0, "register-host\n"),
            Deed::SlowReader => self.read_slowly(net),
            Deed::HalfLine => self.say(net, 0, "e"),
            Deed::LongLine => self.say(net, 0, &"x".repeat(997)),
            Deed::TooMany => self.say(net, 0, &"echo a\n".repeat(30)),
            Deed::Fumble => self.fumble(net),
            Deed::Unconfirmed => self.be_unconfirmed(net, false),
            Deed::BothUnconfirmed => self.be_unconfirmed(net, true),
            Deed::Drift if self.is_young(net) => self.flood(net),
            Deed::Drift => self.be_unconfirmed(net, true),
            Deed::Crowd => self.crowd(net),
        }
    }

    /// The stranger's connection with that number, and whether it is ready to be written to.
    fn hold(&mut self, net: &mut Network, number: usize) -> Option<u32> {
        while self.holds.len() <= number {
            let connection = Some(net.connect(self.me));
            self.holds.push(Hold { connection, ..Hold::default() });
        }
        let hold = &mut self.holds[number];
        if hold.is_over {
            *hold = Hold { connection: Some(net.connect(self.me)), ..Hold::default() };
        }
        hold.connection
    }

    fn say(&mut self, net: &mut Network, number: usize, text: &str) {
        if let Some(connection) = self.hold(net, number) {
            net.write(connection, text.as_bytes());
        }
    }

    /// Ids on that connection; asks for them first.
    fn ids(&mut self, net: &mut Network, number: usize) -> Option<(String, String)> {
        let is_new = self.holds.len() <= number || self.holds[number].is_over;
        self.hold(net, number)?;
        if is_new {
            self.say(net, number, "register-host\n");
        }
        self.holds[number].ids.clone()
    }

    /// A registered player on that connection, whose address is that of the socket with the same number.
    fn registered(&mut self, net: &mut Network, number: usize) -> Option<(String, String)> {
        let ids = self.ids(net, number)?;
        if self.step % 8 < 2 {
            let to = net.registrar(self.me);
            net.send_bytes_from(self.me, number as u8, to, ids.1.as_bytes());
        }
        Some(ids)
    }

    fn some_address(&mut self, net: &Network) -> Addr {
        let ips = net.judge.ordinary_ips();
        Addr {
            ip: ips[self.random.below(ips.len() as u64) as usize],
            port: self.random.within(1, 65_535) as u16,
        }
    }

    fn some_port(&mut self) -> u16 {
        self.random.within(self.ports.0.into(), self.ports.1.into()) as u16
    }

    fn scan(&mut self, net: &mut Network) {
        let count = u64::from(self.ports.1 - self.ports.0) + 1;
        let to = net.server_at(self.me, self.ports.0 + (self.step % count) as u16);
        net.send(self.me, 0, to, Kind::Junk, 60, 0);
    }

    fn send_to_known_port(&mut self, net: &mut Network) {
        let Some(port) =
            self.plan.victim.and_then(|victim| net.judge.settled_port(victim, net.now))
        else {
            return;
        };
        let to = net.server_at(self.me, port);
        net.send(self.me, 0, to, Kind::Junk, 60, 0);
    }

    fn forge_source(&mut self, net: &mut Network) {
        let from = match self.random.below(20) {
            0 => Addr { ip: net.server_ips[0], port: self.some_port() },
            1 => Addr { port: 0, ..self.some_address(net) },
            _ => self.some_address(net),
        };
        let port = self.some_port();
        let to = net.server_at(self.me, port);
        net.send_forged(self.me, from, to, Kind::Junk, 200);
    }

    /// The player 1 is registered at the bystander's address, and player 0 sends to it.
    fn forge_address(&mut self, net: &mut Network, keeps_alive: bool) {
        let (Some(_), Some((code, pid))) = (self.registered(net, 0), self.ids(net, 1)) else {
            return;
        };
        let registrar = net.registrar(self.me);
        if self.step.is_multiple_of(16) {
            net.send_forged_bytes(self.me, self.bystander, registrar, pid.as_bytes());
        }
        if self.step.is_multiple_of(50) {
            self.say(net, 0, &format!("connect-relay {code}\n"));
        }
        if let Some(port) = self.holds[0].ports.last().copied() {
            let to = net.server_at(self.me, port);
            net.send(self.me, 0, to, Kind::Junk, 1000, 0);
        }
        let half = Time::from(self.plan.for_s) * SECOND / 2;
        let is_early = net.now < self.start() + half;
        if keeps_alive
            && is_early
            && let Some(port) = self.holds[1].ports.last().copied()
        {
            let to = net.server_at(self.me, port);
            net.send_forged(self.me, self.bystander, to, Kind::Junk, 30);
        }
    }

    fn register_impossible(&mut self, net: &mut Network) {
        let Some((_, pid)) = self.ids(net, 0) else { return };
        let to = net.registrar(self.me);
        let from = Addr { port: 53, ..self.bystander };
        net.send_forged_bytes(self.me, from, to, pid.as_bytes());
    }

    fn move_about(&mut self, net: &mut Network) {
        let Some((_, pid)) = self.ids(net, 0) else { return };
        let to = net.registrar(self.me);
        net.send_bytes_from(self.me, (self.step % 200) as u8, to, pid.as_bytes());
    }

    fn guess(&mut self, net: &mut Network) {
        if self.registered(net, 0).is_some() {
            let guess = self.random.next();
            self.say(net, 0, &format!("connect-relay {guess:x}\n"));
        }
    }

    fn ask_for_host(&mut self, net: &mut Network) {
        if self.registered(net, 0).is_none() {
            return;
        }
        let code = self.plan.victim.and_then(|victim| net.lobby.get(&victim).cloned());
        if let Some(code) = code {
            let command = *self.random.pick(&["connect", "connect", "connect-relay"]);
            self.say(net, 0, &format!("{command} {code}\n"));
        }
    }

    fn hoard_connections(&mut self, net: &mut Network, registers: bool) {
        let number = (self.step as usize - 1) % MANY;
        if registers {
            self.ids(net, number);
        } else {
            self.hold(net, number);
        }
        if self.step.is_multiple_of(7)
            && let Some(connection) = self.holds[number].connection.take()
        {
            // It comes and goes.
            net.close(connection);
            self.holds[number].is_over = true;
        }
    }

    fn hoard_relays(&mut self, net: &mut Network) {
        const OWN: u64 = 16;
        let asker = (self.step % OWN) as usize;
        let host = ((self.step / OWN) % OWN) as usize;
        let number = (self.step / 8 % OWN) as usize;
        self.registered(net, number);
        if asker != host
            && let Some((code, _)) = self.holds.get(host).and_then(|hold| hold.ids.clone())
            && self.holds.get(asker).is_some_and(|hold| hold.ids.is_some())
        {
            self.say(net, asker, &format!("connect-relay {code}\n"));
        }
    }

    fn flood(&mut self, net: &mut Network) {
        let (Some(_), Some((code, _))) = (self.registered(net, 0), self.registered(net, 1)) else {
            return;
        };
        if self.step.is_multiple_of(if self.plan.deed == Deed::Drift { 8 } else { 64 }) {
            self.say(net, 0, &format!("connect-relay {code}\n"));
        }
        for number in [0, 1] {
            if let Some(port) = self.holds[number].ports.last().copied() {
                let to = net.server_at(self.me, port);
                let is_host = number == 1;
                if !is_host || self.step.is_multiple_of(16) {
                    net.send(self.me, number as u8, to, Kind::Junk, 1200, 0);
                }
            }
        }
    }

    fn is_young(&self, net: &Network) -> bool {
        net.now < self.start() + 6 * SECOND
    }

    /// Player 0 is the host of all the others.
    fn crowd(&mut self, net: &mut Network) {
        const CLIENTS: u64 = 24;
        let number = 1 + (self.step % CLIENTS) as usize;
        let host = self.registered_now(net, 0);
        let client = self.registered_now(net, number);
        let (Some((code, _)), Some(_)) = (host, client) else { return };
        if self.holds[number].ports.is_empty() && self.step.is_multiple_of(5) {
            self.say(net, number, &format!("connect-relay {code}\n"));
        }
        for from in [number, 0] {
            let ports = &self.holds[from].ports;
            let Some(port) = ports.get(self.step as usize % ports.len().max(1)).copied() else {
                continue;
            };
            let to = net.server_at(self.me, port);
            net.send(self.me, from as u8, to, Kind::Junk, if from == 0 { 10 } else { 1200 }, 0);
        }
    }

    fn registered_now(&mut self, net: &mut Network, number: usize) -> Option<(String, String)> {
        let ids = self.ids(net, number)?;
        if self.holds[number].ports.is_empty() {
            let to = net.registrar(self.me);
            net.send_bytes_from(self.me, number as u8, to, ids.1.as_bytes());
        }
        Some(ids)
    }

    /// A partner of an honest host, who sends it too much.
    fn flood_host(&mut self, net: &mut Network, length: u16) {
        if self.registered(net, 0).is_none() {
            return;
        }
        let code = self.plan.victim.and_then(|victim| net.lobby.get(&victim).cloned());
        if let Some(code) = code
            && self.step.is_multiple_of(64)
        {
            self.say(net, 0, &format!("connect-relay {code}\n"));
        }
        if let Some(port) = self.holds[0].ports.last().copied()
            && length > 0
        {
            let to = net.server_at(self.me, port);
            net.send(self.me, 0, to, Kind::Junk, length, 0);
        }
    }

    fn read_slowly(&mut self, net: &mut Network) {
        if self.ids(net, 0).is_some() {
            self.say(net, 0, &format!("echo {}\n", "y".repeat(4000)));
        }
    }

    fn fumble(&mut self, net: &mut Network) {
        let own = self.ids(net, 0);
        let code = self.plan.victim.and_then(|victim| net.lobby.get(&victim).cloned());
        let code = code.unwrap_or_else(|| "nobody".to_owned());
        let line = match self.step % 12 {
            1 => "connect\n".to_owned(),
            2 => format!("connect {code}\n"),
            3 => "hello there\n".to_owned(),
            4 => "\n\r\n".to_owned(),
            5 => format!("connect-relay {}\n", own.as_ref().map_or("", |(oid, _)| oid)),
            6 => "echo\n".to_owned(),
            7 => "echo a  b\r\n".to_owned(),
            8 => format!("register-host {}\n", own.as_ref().map_or("", |(_, pid)| pid)),
            9 => "register-host nonsense\n".to_owned(),
            10 => {
                // A connection without a registration.
                self.say(net, 1, &format!("connect {code}\n"));
                return;
            }
            _ => {
                if let Some(connection) = self.hold(net, 0) {
                    net.write(connection, b"echo \xff\n");
                }
                return;
            }
        };
        self.say(net, 0, &line);
        if self.step.is_multiple_of(5)
            && let Some((_, pid)) = own
        {
            let to = net.registrar(self.me);
            net.send_bytes(self.me, to, format!("{pid} \r\n").as_bytes());
            // Another connection takes the player over.
            self.say(net, 2, &format!("register-host {pid}\n"));
        }
    }

    /// Its datagrams come from an address that is not at the IP of its connection.
    fn be_unconfirmed(&mut self, net: &mut Network, both: bool) {
        let to = net.registrar(self.me);
        let router = usize::from(net.route[usize::from(self.me)]);
        let second = net.routers[router].ips.last().copied().unwrap_or(self.bystander.ip);
        let players = 1 + usize::from(both);
        for number in 0..players {
            let Some((_, pid)) = self.ids(net, number) else { return };
            let from = Addr { ip: second, port: 5000 + number as u16 };
            net.send_forged_bytes(self.me, from, to, pid.as_bytes());
            if let Some(port) = self.holds[number].ports.last().copied() {
                let to = net.server_at(self.me, port);
                net.send_forged(self.me, from, to, Kind::Junk, 100);
            }
        }
        let code = if both {
            self.holds[1].ids.clone().map(|(oid, _)| oid)
        } else {
            self.plan.victim.and_then(|victim| net.lobby.get(&victim).cloned())
        };
        if let Some(code) = code {
            let command = *self.random.pick(&["connect", "connect-relay"]);
            self.say(net, 0, &format!("{command} {code}\n"));
        }
    }

    pub fn leave(&mut self, net: &mut Network) {
        self.is_done = true;
        for hold in &mut self.holds {
            if let Some(connection) = hold.connection.take() {
                net.close(connection);
            }
        }
    }

    pub fn hear_server(&mut self, connection: u32, what: Down, net: &mut Network) {
        let is_slow = self.plan.deed == Deed::SlowReader && self.step > 3;
        let Some(hold) = self.holds.iter_mut().find(|hold| hold.connection == Some(connection))
        else {
            return;
        };
        match what {
            Down::Connected => {}
            Down::Refused | Down::Closed => (hold.connection, hold.is_over) = (None, true),
            Down::Text(text) => {
                if !is_slow {
                    net.record_read(connection, text.len());
                }
                hold.text.push_str(&text);
                while let Some(end) = hold.text.find('\n') {
                    let line: String = hold.text.drain(..=end).collect();
                    hold.hear(line.trim_end());
                }
            }
        }
    }
}

impl Hold {
    fn hear(&mut self, line: &str) {
        let (command, data) = line.split_once(' ').unwrap_or((line, ""));
        match command {
            "set-oid" => self.ids = Some((data.to_owned(), String::new())),
            "set-pid" => {
                if let Some((_, pid)) = &mut self.ids {
                    *pid = data.to_owned();
                }
            }
            "connect-relay" => self.ports.extend(data.parse::<u16>()),
            _ => {}
        }
    }
}
