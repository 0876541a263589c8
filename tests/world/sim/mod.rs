//! A world for the server's rules: simulated players with their games, routers and lines, strangers, an operator, and a
//! judge. One seed decides everything.
//!
//! ```text
//! Plan --> World: players, strangers, operator --> Network: routers, lines, connections --> Server: the real rules
//!                                                     |                                        |
//!                                                   Judge: its own books of what was sent, told and delivered
//! ```

#![allow(
    dead_code,
    unreachable_pub,
    reason = "the test, the bench and the fuzz target use their parts of this"
)]

pub mod coverage;
pub mod generate;
pub mod judge;
pub mod net;
pub mod network;
mod operator;
pub mod plan;
pub mod player;
pub mod random;
pub mod router;
pub mod server;
pub mod shrink;
pub mod stranger;
pub mod trace;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use coverage::Coverage;
use judge::{Judge, Peer, Violation};
use net::{Addr, Ips, MS, Owner, SECOND, Time};
use network::{Event, Network};
use plan::{Family, Plan, Role};
use player::Player;
use random::Rng;
use router::{Router, RouterKind};
use server::{REGISTRAR, Server, read_config};
use stranger::Stranger;

/// How often the tables are checked.
const CHECK: Time = 5 * SECOND;

enum Someone {
    Player(Box<Player>),
    Stranger(Box<Stranger>),
}

/// What became of a world.
#[derive(Default)]
pub struct Outcome {
    pub violation: Option<Violation>,
    /// The hash of all inputs and effects.
    pub hash: u64,
    pub coverage: Coverage,
    pub events: u64,
    pub datagrams: u64,
    pub time: Time,
    /// If it was asked for.
    pub text: Vec<String>,
}

pub struct World {
    plan: Plan,
    net: Network,
    peers: Vec<Someone>,
    sites: BTreeMap<u16, u16>,
    config: Vec<String>,
    starts: u64,
    has_ended: bool,
    is_told: bool,
}

impl World {
    pub fn new(plan: Plan, is_told: bool) -> Self {
        let config = read_config(&plan.config);
        let mut ips = Ips::default();
        let has_ipv6 = config.udp_host.is_ipv6();
        let mut server_ips = vec![ips.add_v4(Owner::Server)];
        if has_ipv6 {
            server_ips.push(ips.add_v6(0xff00, Owner::Server));
        }
        let bystanders = [0, 1, 2].map(|_| ips.add_v4(Owner::Bystander));
        let (mut sites, mut routers, mut ordinary) = (BTreeMap::new(), Vec::new(), Vec::new());
        for (number, site) in (0..).zip(&plan.sites) {
            let owner = Owner::Router(number);
            let own: Vec<u16> = (0..site.ipv4.max(1)).map(|_| ips.add_v4(owner)).collect();
            ordinary.extend(&own);
            let random = Rng::of(plan.seed, "router", site.id.into());
            routers.push((Router::new(site.kind, own, site.timeout_s, random), site.line));
            sites.insert(site.id, number);
        }
        let judge = Judge::new(&plan, &config);
        let net = Network::new(plan.seed, ips, server_ips, judge, routers);
        let mut world = Self {
            config: plan.config.clone(),
            plan,
            net,
            peers: Vec::new(),
            sites,
            starts: 0,
            has_ended: false,
            is_told,
        };
        world.add_peers(bystanders, config.relay_ports.as_slice());
        let shown = (0..).map_while(|n| world.net.ips.get(n)).map(|ip| ip.to_string()).collect();
        let server = world.net.server_ips.len();
        world.net.judge.set_ips(shown, server, ordinary, bystanders.to_vec());
        world.start_server();
        world.plan_events();
        world
    }

    fn add_peers(&mut self, bystanders: [u16; 3], ports: &[u16]) {
        let seed = self.plan.seed;
        for plan in self.plan.players.clone() {
            let site = self.sites[&plan.site];
            let of_site = self.plan.site(plan.site).clone();
            let is_ipv6 = plan.family == Family::V6;
            let connects = if plan.family == Family::V4 { 0 } else { u16::MAX };
            let me = self.net.add_peer(site, connects, is_ipv6);
            if plan.family != Family::V4 {
                let network = of_site.ipv6.expect("the site has IPv6");
                let ip = self.net.ips.add_v6(network, Owner::Peer(me));
                self.net.ipv6.insert(me, ip);
            }
            self.net.judge.add_peer(Peer {
                is_honest: true,
                id: plan.id,
                site,
                kind: if is_ipv6 { RouterKind::None } else { of_site.kind },
                is_ipv6,
                is_split: plan.family == Family::Both,
                stale: None,
                disturbed: Vec::new(),
                has_left: None,
            });
            let player = Player::new(me, plan, seed);
            self.net.wake(me, player.start());
            self.peers.push(Someone::Player(Box::new(player)));
        }
        let range = (ports[0], ports[ports.len() - 1]);
        for plan in self.plan.strangers.clone() {
            let site = self.sites[&plan.site];
            let me = self.net.add_peer(site, 0, false);
            self.net.judge.add_peer(Peer {
                is_honest: false,
                id: plan.id,
                site,
                kind: self.plan.site(plan.site).kind,
                is_ipv6: false,
                is_split: false,
                stale: None,
                disturbed: Vec::new(),
                has_left: None,
            });
            let bystander = Addr { ip: bystanders[usize::from(plan.id % 3)], port: 2000 + plan.id };
            let stranger = Stranger::new(me, plan, seed, range, bystander);
            self.net.wake(me, stranger.start());
            self.peers.push(Someone::Stranger(Box::new(stranger)));
        }
    }

    fn plan_events(&mut self) {
        for (number, act) in (0..).zip(&self.plan.acts) {
            self.net.plan(Time::from(act.at_ms) * MS, Event::Act(number));
        }
        self.net.plan(Time::from(self.plan.seconds) * SECOND, Event::AllLeave);
        self.net.plan(CHECK, Event::Check);
    }

    fn start_server(&mut self) {
        let ips = self.net.server_ips.iter().map(|ip| self.net.ips.ip(*ip)).collect();
        let random = Rng::of(self.plan.seed, "server", self.starts);
        let mut server = Server::new(&self.config, ips, random, self.net.now);
        server.trace.text = self.is_told.then(Vec::new);
        self.starts += 1;
        self.net.server = Some(server);
        (self.net.is_listening, self.net.drained_at) = (true, None);
        self.net.judge.server_began(self.net.now);
        self.net.carry_out(None);
    }

    /// How long after everybody has left all must be gone: the longest of all times that the pages name, and some more.
    fn quiet_time(&self) -> Time {
        let config = read_config(&self.config);
        let nanos = |span: noray::config::units::TimeSpan| span.0.as_nanos() as Time;
        90 * SECOND
            + nanos(config.resume_window)
            + nanos(config.relay_timeout)
            + 2 * nanos(config.relay_cleanup_interval)
            + 480 * SECOND
    }

    /// Lets everything happen, until the end or the first broken promise.
    pub fn run(mut self) -> Outcome {
        let end = Time::from(self.plan.seconds) * SECOND + self.quiet_time();
        while self.net.judge.violation.is_none() && !self.has_ended {
            let Some(event) = self.net.next_event() else { break };
            if self.net.now > end {
                break;
            }
            self.happen(event);
        }
        if self.net.judge.violation.is_none() {
            self.check_end();
        }
        self.outcome()
    }

    fn outcome(mut self) -> Outcome {
        let mut coverage = std::mem::take(&mut self.net.judge.coverage);
        if let Some(server) = self.net.server.take() {
            coverage.add(&server.coverage);
            self.net.judge.note_trace(&server.trace);
        }
        Outcome {
            violation: self.net.judge.violation.take(),
            hash: self.net.judge.hash,
            coverage,
            events: self.net.events,
            datagrams: self.net.datagrams,
            time: self.net.now,
            text: self.net.judge.text.take().unwrap_or_default(),
        }
    }

    fn check_end(&mut self) {
        let Some(server) = &self.net.server else { return };
        let left = server.leftovers();
        if !left.is_empty() {
            let (promise, at) = ("everything ends", self.net.now);
            self.net.judge.violation = Some(Violation { promise, at, what: left.join(", ") });
        }
    }

    fn happen(&mut self, event: Event) {
        let is_servers = match &event {
            Event::Datagram(datagram) => self.net.ips.owner(datagram.to.ip) == Owner::Server,
            Event::ToServer { .. } | Event::Deadline | Event::Reader { .. } => true,
            Event::Tick { .. }
            | Event::ToPeer { .. }
            | Event::Act(_)
            | Event::AllLeave
            | Event::Check
            | Event::Start
            | Event::Threads => false,
        };
        if is_servers {
            let Some(event) = self.net.is_deferred(event) else { return };
            return self.at_server(event);
        }
        match event {
            Event::Datagram(datagram) => {
                let Some(peer) = self.net.receiver(&datagram) else { return };
                if self.net.server_ips.contains(&datagram.from.ip)
                    && datagram.from.port != REGISTRAR
                {
                    self.net.judge.delivered(peer, &datagram, self.net.now);
                }
                if let Someone::Player(player) = &mut self.peers[usize::from(peer)] {
                    player.receive(&datagram, &mut self.net);
                }
            }
            Event::Tick { peer, generation } if self.net.is_current(peer, generation) => {
                let next = match &mut self.peers[usize::from(peer)] {
                    Someone::Player(player) => player.tick(&mut self.net),
                    Someone::Stranger(stranger) => stranger.tick(&mut self.net),
                };
                // It may have been woken by what it did.
                if let Some(next) = next {
                    self.net.wake(peer, next);
                }
            }
            Event::Tick { .. } => {}
            Event::ToPeer { connection, what } => {
                let peer = self.net.connections[connection as usize].peer;
                match &mut self.peers[usize::from(peer)] {
                    Someone::Player(player) => player.hear_server(connection, what, &mut self.net),
                    Someone::Stranger(other) => other.hear_server(connection, what, &mut self.net),
                }
            }
            Event::Act(number) => self.act(number),
            Event::AllLeave => self.all_leave(),
            Event::Check => self.check(),
            Event::Start => {
                if !self.has_ended {
                    self.start_server();
                }
            }
            Event::Threads => {
                if let Some(server) = &mut self.net.server {
                    server.set_threads(true);
                }
            }
            Event::ToServer { .. } | Event::Deadline | Event::Reader { .. } => {}
        }
    }

    fn at_server(&mut self, event: Event) {
        match event {
            Event::Datagram(datagram) => self.net.arrive_at_server(datagram),
            Event::ToServer { connection, what } => self.net.tcp_at_server(connection, what),
            Event::Reader { connection } => self.net.check_reader(connection),
            Event::Deadline => self.net.deadline(),
            Event::Tick { .. }
            | Event::ToPeer { .. }
            | Event::Act(_)
            | Event::AllLeave
            | Event::Check
            | Event::Start
            | Event::Threads => {}
        }
    }

    fn all_leave(&mut self) {
        for someone in &mut self.peers {
            match someone {
                Someone::Player(player) => player.leave(&mut self.net),
                Someone::Stranger(stranger) => stranger.leave(&mut self.net),
            }
        }
    }

    fn check(&mut self) {
        let now = self.net.now;
        for someone in &self.peers {
            if let Someone::Player(player) = someone
                && let (Some(wanted), Role::Client(host)) =
                    (player.is_waiting_since(), player.plan.role)
            {
                self.net.judge.check_waiting(player.me, host, wanted, now);
            }
        }
        if let Some(server) = &self.net.server {
            server.check_invariants();
        }
        self.net.plan(now + CHECK, Event::Check);
    }
}

/// Plays a plan to its end.
pub fn play(plan: &Plan) -> Outcome {
    play_and_tell(plan, false)
}

/// The same, with a readable trace if `is_told`. A panic of the rules is a broken promise too.
pub fn play_and_tell(plan: &Plan, is_told: bool) -> Outcome {
    let run = AssertUnwindSafe(|| World::new(plan.clone(), is_told).run());
    catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let what = text.unwrap_or_else(|| "without words".to_owned());
        let violation = Violation { promise: "the rules do not panic", at: 0, what };
        Outcome { violation: Some(violation), ..Outcome::default() }
    })
}
