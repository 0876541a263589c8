//! An honest player: it does what a game with the stock client does, or with docs/noray_game.gd.
//!
//! It connects, registers, sends its PrivateID until it hears `OK`, and hosts or joins. A client punches as its kind of
//! game does, falls back to the relay and plays. What stands for ENet has only its rules for addresses: a host answers
//! where it was asked from, and a client takes datagrams only from the address to which it connects.

mod hearing;

use super::net::{Addr, Kind, MS, SECOND, Time};
use super::network::Network;
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
}
