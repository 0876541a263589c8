//! An honest player: it does what a game with the stock client does, or with docs/noray_game.gd.
//!
//! It connects, registers, sends its PrivateID until it hears `OK`, and hosts or joins. A client punches as its kind of
//! game does, falls back to the relay and plays. What stands for ENet has only its rules for addresses: a host answers
//! where it was asked from, and a client takes datagrams only from the address to which it connects.

use super::net::{Addr, Datagram, Kind, MS, SECOND, Time};
use super::network::{Down, Network};
use super::plan::{PlayerPlan, Role, Way};
use super::random::Rng;

/// How often what was not answered is repeated.
const REPEAT: Time = 100 * MS;

/// After this time of silence a game is over (seen with ENet: 7.5 to 8.5 s).
const SILENCE: Time = 8 * SECOND;

/// How long a host sends its handshake.
const BLAST: Time = 8 * SECOND;

/// How long a client tries to connect its game.
const GAME_TIME: Time = 3 * SECOND;

/// The state of the connection to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// Not before that time.
    Down(Time),
    Connecting,
    Naming,
    /// Sends its PrivateID, next at that time.
    Registering(Time),
    Up,
    /// It was closed on purpose.
    Done,
}

/// The state of a client's game.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Game {
    /// It begins not before that time.
    None(Time),
    /// It has asked the server.
    Asking {
        by_relay: bool,
    },
    Shaking {
        to: Addr,
        by_relay: bool,
        read: bool,
        known: bool,
    },
    /// Asks the host's game.
    Entering {
        to: Addr,
        by_relay: bool,
    },
    Playing {
        to: Addr,
    },
    Over,
}

/// The other player of a game.
struct Partner {
    at: Addr,
    /// Until when the host sends its handshake there.
    blasts_until: Time,
    plays: bool,
    heard: Time,
}

pub struct Player {
    pub me: u16,
    pub plan: PlayerPlan,
    random: Rng,
    link: Link,
    game: Game,
    /// When the game's state began, and when the player first knew its host's code.
    since: Time,
    wanted: Option<Time>,
    connection: Option<u32>,
    text: String,
    ids: Option<(String, String)>,
    partners: Vec<Partner>,
    number: u32,
    breaks_at: Option<Time>,
    ends_at: Time,
    has_met: bool,
    next_datagram: Time,
    next_repeat: Time,
}

impl Player {
    pub fn new(me: u16, plan: PlayerPlan, seed: u64) -> Self {
        let start = Time::from(plan.start_ms) * MS;
        Self {
            me,
            random: Rng::of(seed, "player", plan.id.into()),
            link: Link::Down(start),
            game: Game::None(start),
            since: start,
            wanted: None,
            connection: None,
            text: String::new(),
            ids: None,
            partners: Vec::new(),
            number: 0,
            breaks_at: None,
            ends_at: Time::MAX,
            has_met: false,
            next_datagram: 0,
            next_repeat: 0,
            plan,
        }
    }

    fn is_host(&self) -> bool {
        self.plan.role == Role::Host
    }

    pub fn start(&self) -> Time {
        Time::from(self.plan.start_ms) * MS
    }

    /// Goes on. Returns when to come back.
    pub fn tick(&mut self, net: &mut Network) -> Option<Time> {
        if self.game == Game::Over {
            return None;
        }
        if net.now >= self.ends_at {
            self.leave(net);
            return None;
        }
        self.keep_link(net);
        let is_due = net.now >= self.next_repeat;
        if is_due {
            self.next_repeat = net.now + REPEAT;
        }
        if self.is_host() {
            self.host(net, is_due);
        } else {
            self.join(net, is_due);
        }
        self.play(net);
        Some(self.next_time(net.now))
    }

    fn next_time(&self, now: Time) -> Time {
        let plays = self.partners.iter().any(|partner| partner.plays);
        let next = if plays { self.next_datagram } else { now + SECOND };
        let is_idle = matches!(self.link, Link::Up | Link::Done)
            && (matches!(self.game, Game::None(_) | Game::Playing { .. }))
            && self.partners.iter().all(|partner| partner.blasts_until <= now);
        let wants = !self.is_host() && matches!(self.game, Game::None(_));
        if is_idle && !wants { next } else { next.min(self.next_repeat) }.max(now + MS)
    }

    fn keep_link(&mut self, net: &mut Network) {
        if self.breaks_at.is_some_and(|at| net.now >= at) {
            self.break_off(net);
        }
        match self.link {
            Link::Down(until) if net.now >= until => {
                self.connection = Some(net.connect(self.me));
                self.link = Link::Connecting;
                self.text.clear();
            }
            Link::Registering(next) if net.now >= next => {
                if let Some((_, pid)) = &self.ids {
                    let to = net.registrar(self.me);
                    net.send_bytes(self.me, to, pid.as_bytes());
                }
                self.link = Link::Registering(net.now + REPEAT);
            }
            Link::Down(_)
            | Link::Registering(_)
            | Link::Connecting
            | Link::Naming
            | Link::Up
            | Link::Done => {}
        }
    }

    fn break_off(&mut self, net: &mut Network) {
        self.breaks_at = None;
        let Some(plan) = self.plan.breaks.take() else { return };
        let back = net.now + Time::from(plan.back_after_ms) * MS;
        net.judge.disturb(self.me, net.now, back + 6 * SECOND);
        if let Some(connection) = self.connection.take() {
            if plan.vanishes { net.vanish(connection) } else { net.close(connection) }
        }
        self.link = Link::Down(back);
    }

    /// The player's machine is at another site from now on.
    pub fn moved(&mut self, net: &mut Network) {
        if self.game == Game::Over {
            return;
        }
        if let Some(connection) = self.connection.take() {
            net.vanish(connection);
        }
        self.link = Link::Down(net.now + 200 * MS);
        net.wake(self.me, net.now);
    }

    fn host(&mut self, net: &mut Network, is_due: bool) {
        let now = net.now;
        for partner in self.partners.iter().filter(|partner| partner.blasts_until > now) {
            if is_due {
                let kind = Kind::Handshake { read: true, known: true };
                net.send(self.me, 0, partner.at, kind, 4, 0);
            }
        }
        let silent = |partner: &&Partner| partner.plays && now - partner.heard > SILENCE;
        if let Some(partner) = self.partners.iter().find(silent) {
            net.judge.host_lost(self.me, partner.at, now);
        }
        self.partners.retain(|partner| !(partner.plays && now - partner.heard > SILENCE));
    }

    fn join(&mut self, net: &mut Network, is_due: bool) {
        let Role::Client(host) = self.plan.role else { return };
        match self.game {
            Game::None(after) if self.link == Link::Up && net.now >= after => {
                if net.lobby.contains_key(&host) {
                    self.wanted.get_or_insert(net.now);
                    self.ask(net, self.plan.way == Way::Relay);
                }
            }
            Game::Asking { .. } if net.now - self.since > 10 * SECOND => {
                net.judge.not_answered(self.me, host, self.since, net.now);
                self.game = Game::None(net.now + SECOND);
            }
            Game::Shaking { to, by_relay, read, known } => {
                let patience = if self.plan.way == Way::AddOn { 8 * SECOND } else { SECOND };
                if net.now - self.since >= patience {
                    if self.plan.way == Way::AddOn {
                        self.fail(net, by_relay);
                    } else {
                        self.enter(net, to, by_relay);
                    }
                } else if is_due {
                    net.send(self.me, 0, to, Kind::Handshake { read, known }, 4, 0);
                }
            }
            Game::Entering { to, by_relay } => {
                if net.now - self.since >= GAME_TIME {
                    self.fail(net, by_relay);
                } else if is_due {
                    net.send(self.me, 0, to, Kind::Ask, 40, 0);
                }
            }
            Game::Playing { .. } => {
                if self.partners.iter().all(|partner| net.now - partner.heard > SILENCE) {
                    net.judge.client_lost(self.me, host, net.now);
                    self.leave(net);
                }
            }
            Game::None(_) | Game::Asking { .. } | Game::Over => {}
        }
    }

    /// The server is asked for the host by the code that a friend has told.
    fn ask(&mut self, net: &mut Network, by_relay: bool) {
        let Role::Client(host) = self.plan.role else { return };
        let (Some(code), Some(connection)) = (net.lobby.get(&host).cloned(), self.connection)
        else {
            self.game = Game::None(net.now + SECOND);
            return;
        };
        let code = match self.plan.writes_freely {
            true => net.judge.as_written(&code, &mut self.random),
            false => code,
        };
        let command = if by_relay { "connect-relay" } else { "connect" };
        self.say(net, connection, &format!("{command} {code}\n"));
        (self.game, self.since) = (Game::Asking { by_relay }, net.now);
    }

    fn say(&mut self, net: &mut Network, connection: u32, line: &str) {
        if self.plan.in_pieces {
            let cut = self.random.below(line.len() as u64) as usize;
            net.write(connection, &line.as_bytes()[..cut]);
            net.write(connection, &line.as_bytes()[cut..]);
        } else {
            net.write(connection, line.as_bytes());
        }
    }

    fn enter(&mut self, net: &mut Network, to: Addr, by_relay: bool) {
        (self.game, self.since) = (Game::Entering { to, by_relay }, net.now);
        net.send(self.me, 0, to, Kind::Ask, 40, 0);
    }

    fn fail(&mut self, net: &mut Network, by_relay: bool) {
        let Role::Client(host) = self.plan.role else { return };
        net.judge.did_not_meet(self.me, host, by_relay, net.now);
        if by_relay || self.link == Link::Done {
            self.game = Game::None(net.now + SECOND);
        } else {
            self.ask(net, true);
        }
    }

    fn play(&mut self, net: &mut Network) {
        if net.now < self.next_datagram || !self.partners.iter().any(|partner| partner.plays) {
            return;
        }
        self.next_datagram = net.now + SECOND / Time::from(self.plan.rate);
        self.number += 1;
        for partner in self.partners.iter().filter(|partner| partner.plays) {
            net.send(self.me, 0, partner.at, Kind::Game, self.plan.size, self.number);
        }
    }

    pub fn leave(&mut self, net: &mut Network) {
        if self.game == Game::Over {
            return;
        }
        net.judge.left(self.me, net.now);
        self.game = Game::Over;
        self.link = Link::Done;
        self.partners.clear();
        if self.is_host() {
            net.lobby.remove(&self.plan.id);
        }
        if let Some(connection) = self.connection.take() {
            net.close(connection);
        }
    }

    /// Whether it should have met its host by now and has not.
    pub fn is_waiting_since(&self) -> Option<Time> {
        self.wanted.filter(|_| !self.has_met && self.game != Game::Over)
    }

    pub fn receive(&mut self, datagram: &Datagram, net: &mut Network) {
        let from = datagram.from;
        if from == net.registrar(self.me) {
            if net.bytes(datagram.number) == b"OK" && matches!(self.link, Link::Registering(_)) {
                self.registered(net);
            }
            return;
        }
        if self.game == Game::Over {
            return;
        }
        match datagram.kind {
            Kind::Ask if self.is_host() => self.asked(from, net),
            Kind::Handshake { read, known } => self.shaken(from, read, known, net),
            Kind::Verify => self.verified(from, net),
            Kind::Game => {
                let now = net.now;
                let partner = self.partners.iter_mut().find(|partner| partner.at == from);
                if let Some(partner) = partner {
                    partner.heard = now;
                }
            }
            Kind::Bytes | Kind::Junk | Kind::Ask => {}
        }
    }

    fn registered(&mut self, net: &mut Network) {
        self.link = Link::Up;
        net.judge.recovered(self.me, net.now);
        if self.is_host() {
            let (oid, _) = self.ids.clone().expect("it has ids");
            net.lobby.insert(self.plan.id, oid);
            if self.ends_at == Time::MAX {
                self.ends_at = net.now + Time::from(self.plan.play_s) * SECOND;
            }
        }
        if let Some(plan) = &self.plan.breaks
            && self.breaks_at.is_none()
            && !self.plan.hangs_up
        {
            self.breaks_at = Some(net.now + Time::from(plan.after_ms) * MS);
        }
        net.wake(self.me, net.now);
    }

    /// A client's game asks: the host's game answers where it came from.
    fn asked(&mut self, from: Addr, net: &mut Network) {
        let (now, starts) = (net.now, !self.partners.iter().any(|partner| partner.plays));
        match self.partners.iter_mut().find(|partner| partner.at == from) {
            Some(partner) => (partner.plays, partner.heard, partner.blasts_until) = (true, now, 0),
            None => {
                let partner = Partner { at: from, blasts_until: 0, plays: true, heard: now };
                self.partners.push(partner);
            }
        }
        net.send(self.me, 0, from, Kind::Verify, 40, 0);
        if starts {
            net.wake(self.me, now + MS);
        }
    }

    fn shaken(&mut self, from: Addr, read: bool, known: bool, net: &mut Network) {
        let Game::Shaking { to, by_relay, known: knew, .. } = self.game else { return };
        let knows = knew || read;
        if knows && known {
            net.send(self.me, 0, to, Kind::Handshake { read: true, known: true }, 4, 0);
            // The page's game goes on where it heard the host, if that is the same machine.
            let to = if self.plan.way != Way::AddOn && from.ip == to.ip { from } else { to };
            self.enter(net, to, by_relay);
        } else {
            self.game = Game::Shaking { to, by_relay, read: true, known: knows };
        }
    }

    fn verified(&mut self, from: Addr, net: &mut Network) {
        let Game::Entering { to, by_relay } = self.game else { return };
        let Role::Client(host) = self.plan.role else { return };
        if from != to {
            return;
        }
        self.game = Game::Playing { to };
        self.partners = vec![Partner { at: to, blasts_until: 0, plays: true, heard: net.now }];
        self.has_met = true;
        net.judge.met(self.me, host, by_relay, self.wanted.unwrap_or(net.now), net.now);
        self.ends_at = net.now + Time::from(self.plan.play_s) * SECOND;
        if self.plan.hangs_up {
            if let Some(connection) = self.connection.take() {
                net.close(connection);
            }
            self.link = Link::Done;
        }
        net.wake(self.me, net.now);
    }

    pub fn hear_server(&mut self, connection: u32, what: Down, net: &mut Network) {
        if let Down::Text(text) = &what {
            net.record_read(connection, text.len());
        }
        if self.connection != Some(connection) {
            return;
        }
        match what {
            Down::Connected => {
                self.link = Link::Naming;
                let line = match &self.ids {
                    Some((_, pid)) => format!("register-host {pid}\n"),
                    None => "register-host\n".to_owned(),
                };
                self.say(net, connection, &line);
            }
            Down::Refused | Down::Closed => {
                self.connection = None;
                if self.link != Link::Done {
                    net.judge.line_broke(self.me, net.now);
                    self.link = Link::Down(net.now + 2 * SECOND + self.random.below(SECOND));
                    if matches!(self.game, Game::Asking { .. }) {
                        self.game = Game::None(net.now + SECOND);
                    }
                }
            }
            Down::Text(text) => {
                self.text.push_str(&text);
                while let Some(end) = self.text.find('\n') {
                    let line: String = self.text.drain(..=end).collect();
                    self.hear_line(line.trim_end(), net);
                }
            }
        }
        if self.game != Game::Over {
            net.wake(self.me, net.now);
        }
    }

    fn hear_line(&mut self, line: &str, net: &mut Network) {
        let (command, data) = line.split_once(' ').unwrap_or((line, ""));
        match command {
            "set-oid" => self.ids = Some((data.to_owned(), String::new())),
            "set-pid" => {
                if let Some((_, pid)) = &mut self.ids {
                    *pid = data.to_owned();
                }
                self.link = Link::Registering(net.now);
            }
            "connect" | "connect-relay" => self.introduced(command, data, net),
            "connect-error" | "connect-relay-error" => {
                let code = data.split(' ').next().unwrap_or(data);
                let Role::Client(host) = self.plan.role else { return };
                net.judge.refused(self.me, host, code, net.now);
                if matches!(self.game, Game::Asking { .. }) {
                    self.game = Game::None(net.now + SECOND);
                }
            }
            _ => {}
        }
    }

    fn introduced(&mut self, command: &str, data: &str, net: &mut Network) {
        let is_relay = command == "connect-relay";
        let to = if is_relay {
            data.parse().ok().map(|port| net.server_at(self.me, port))
        } else {
            data.parse().ok().and_then(|address| net.ips.find(address))
        };
        let Some(to) = to else { return };
        let by_relay = is_relay || net.server_ips.contains(&to.ip);
        if self.is_host() {
            let blasts_until = net.now + BLAST;
            if let Some(partner) = self.partners.iter_mut().find(|partner| partner.at == to) {
                partner.blasts_until = blasts_until;
            } else {
                let partner = Partner { at: to, blasts_until, plays: false, heard: net.now };
                self.partners.push(partner);
            }
        } else if matches!(self.game, Game::Asking { .. }) {
            self.game = Game::Shaking { to, by_relay, read: false, known: false };
            self.since = net.now;
        }
    }
}
