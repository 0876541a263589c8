//! Strangers: those who scan, forge, flood, guess, hoard and fumble.

mod deeds;

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
