//! The judge: it keeps its own books of what was sent, by whom and from where, and holds the server to what the pages
//! promise. It never asks the server.
//!
//! | file | what it holds the server to |
//! |---|---|
//! | `ids` | whose id is whose, and until when |
//! | `pairs` | who is sent what through the relay, and from which port |
//! | `meetings` | that players meet, in time, and stay together |
//! | `weapons` | that nobody is sent what nobody there asked for |
//! | `grammar` | that each line is one that docs/protocol.md names |

mod grammar;
mod ids;
mod meetings;
mod pairs;
mod weapons;

use std::collections::BTreeMap;

use noray::config::Config;

use super::coverage::Coverage;
use super::net::{Addr, Datagram, MS, SECOND, Time};
use super::plan::{Deed, Plan, StrangerPlan};
use super::random::{Rng, mix};
use super::trace::Trace;

use ids::Ids;
use meetings::Meetings;
use pairs::Pairs;
use weapons::Weapons;

/// What the pages promise in numbers, and what the configuration says. The judge uses none of the server's constants.
#[derive(Clone, Copy)]
pub struct Promises {
    pub resume_window: Time,
    pub idle: Time,
    pub lifetime: Time,
    pub lifetime_traffic: u64,
    /// What is in force of each now.
    pub current_lifetime: Time,
    pub current_lifetime_traffic: u64,
    pub pair_rate: u64,
    pub global_rate: u64,
    pub burst: Time,
    pub has_any_latching: bool,
    pub has_no_latching: bool,
    pub relay_only: bool,
    /// How people may write join codes.
    pub codes_have_hyphens: bool,
    pub codes_have_both_cases: bool,
}

impl Promises {
    pub fn of(config: &Config) -> Self {
        use noray::core::relay::Latching;
        let nanos = |span: noray::config::units::TimeSpan| span.0.as_nanos() as Time;
        let charset = config.oid_charset.to_string();
        Self {
            resume_window: nanos(config.resume_window),
            idle: nanos(config.relay_timeout),
            lifetime: nanos(config.relay_max_lifetime_duration),
            lifetime_traffic: config.relay_max_lifetime_traffic.0,
            current_lifetime: nanos(config.relay_max_lifetime_duration),
            current_lifetime_traffic: config.relay_max_lifetime_traffic.0,
            pair_rate: config.relay_max_individual_traffic.0,
            global_rate: config.relay_max_global_traffic.0,
            burst: nanos(config.relay_traffic_interval),
            has_any_latching: config.relay_latching == Latching::Any,
            has_no_latching: config.relay_latching == Latching::Off,
            relay_only: config.relay_only,
            codes_have_hyphens: !config.enable_words_oid && charset.contains('-'),
            codes_have_both_cases: !config.enable_words_oid
                && charset.contains(char::is_lowercase)
                && charset.contains(char::is_uppercase),
        }
    }

    /// The narrower of both, as both were in force for a while.
    fn narrowed(self, other: Self) -> Self {
        Self {
            resume_window: self.resume_window.min(other.resume_window),
            idle: self.idle.min(other.idle),
            lifetime: self.lifetime.min(other.lifetime),
            lifetime_traffic: self.lifetime_traffic.min(other.lifetime_traffic),
            current_lifetime: other.current_lifetime,
            current_lifetime_traffic: other.current_lifetime_traffic,
            pair_rate: self.pair_rate.min(other.pair_rate),
            global_rate: self.global_rate.min(other.global_rate),
            burst: self.burst.max(other.burst),
            has_any_latching: self.has_any_latching || other.has_any_latching,
            has_no_latching: self.has_no_latching || other.has_no_latching,
            relay_only: self.relay_only && other.relay_only,
            codes_have_hyphens: self.codes_have_hyphens,
            codes_have_both_cases: self.codes_have_both_cases,
        }
    }
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The promise.
    pub promise: &'static str,
    pub at: Time,
    pub what: String,
}

/// What the judge knows of a peer.
pub struct Peer {
    pub is_honest: bool,
    pub id: u16,
    /// The number of its router.
    pub site: u16,
    pub kind: super::router::RouterKind,
    pub is_ipv6: bool,
    /// Its connection and its datagrams come from different IPs.
    pub is_split: bool,
    /// When its router forgot the mapping that it registered.
    pub stale: Option<Time>,
    /// Times in which nothing is expected of it.
    pub disturbed: Vec<(Time, Time)>,
    pub has_left: Option<Time>,
}

pub struct Judge {
    pub violation: Option<Violation>,
    pub coverage: Coverage,
    /// Of the servers that have ended.
    pub hash: u64,
    pub text: Option<Vec<String>>,
    pub peers: Vec<Peer>,
    by_id: BTreeMap<u16, u16>,
    promises: Promises,
    /// What strangers may do that the plan has, and that takes something from honest players.
    deeds: Vec<(Deed, u16)>,
    /// Times in which the server was away, and in which it stood still.
    outages: Vec<(Time, Time)>,
    stalls: Vec<(Time, Time)>,
    /// When a server began in the place of another one.
    restarted: Option<Time>,
    ordinary_ips: Vec<u16>,
    bystanders: Vec<u16>,
    ids: Ids,
    pairs: Pairs,
    meetings: Meetings,
    weapons: Weapons,
    /// The relay ports that are or were configured.
    ports: Vec<bool>,
    server_ips: Vec<String>,
    ips: Vec<String>,
    is_draining: bool,
}

impl Judge {
    pub fn new(plan: &Plan, config: &Config) -> Self {
        let number =
            |id| plan.sites.iter().position(|site| site.id == id).expect("it has the site");
        let site_of = |stranger: &StrangerPlan| (stranger.deed, number(stranger.site) as u16);
        let mut this = Self {
            violation: None,
            coverage: Coverage::default(),
            hash: 0,
            text: None,
            peers: Vec::new(),
            by_id: BTreeMap::new(),
            promises: Promises::of(config),
            deeds: plan.strangers.iter().map(site_of).collect(),
            outages: Vec::new(),
            stalls: Vec::new(),
            restarted: None,
            ordinary_ips: Vec::new(),
            bystanders: Vec::new(),
            ids: Ids::default(),
            pairs: Pairs::default(),
            meetings: Meetings::default(),
            weapons: Weapons::default(),
            ports: vec![false; 1 << 16],
            server_ips: Vec::new(),
            ips: Vec::new(),
            is_draining: false,
        };
        this.add_ports(config);
        this
    }

    fn add_ports(&mut self, config: &Config) {
        for port in config.relay_ports.as_slice() {
            self.ports[usize::from(*port)] = true;
        }
    }

    /// The IPs as text, the server's first, and which of them belong to ordinary people.
    pub fn set_ips(
        &mut self,
        ips: Vec<String>,
        server: usize,
        ordinary: Vec<u16>,
        bystanders: Vec<u16>,
    ) {
        self.server_ips = ips[..server].to_vec();
        (self.ips, self.ordinary_ips, self.bystanders) = (ips, ordinary, bystanders);
    }

    pub fn add_peer(&mut self, peer: Peer) {
        self.by_id.insert(peer.id, self.peers.len() as u16);
        self.peers.push(peer);
    }

    pub fn peer(&self, peer: u16) -> &Peer {
        &self.peers[usize::from(peer)]
    }

    pub fn peer_of(&self, id: u16) -> Option<u16> {
        self.by_id.get(&id).copied()
    }

    pub fn ordinary_ips(&self) -> &[u16] {
        &self.ordinary_ips
    }

    /// A promise was broken. Only the first counts: the others may follow from it.
    fn accuse(&mut self, promise: &'static str, at: Time, what: String) {
        self.violation.get_or_insert(Violation { promise, at, what });
    }

    fn has_deed(&self, deeds: &[Deed]) -> bool {
        self.deeds.iter().any(|(deed, _)| deeds.contains(deed))
    }

    fn has_deed_at(&self, deeds: &[Deed], site: u16) -> bool {
        self.deeds.iter().any(|(deed, at)| *at == site && deeds.contains(deed))
    }

    /// Nothing is expected of that peer in that time.
    pub fn disturb(&mut self, peer: u16, from: Time, until: Time) {
        self.peers[usize::from(peer)].disturbed.push((from, until));
    }

    /// The server stands still.
    pub fn stalls(&mut self, from: Time, until: Time) {
        self.stalls.push((from, until));
    }

    /// The server is away, or serves nobody new.
    pub fn outage(&mut self, from: Time, until: Time) {
        self.outages.push((from, until));
    }

    /// Whether the server was away or drained, or a peer was disturbed, in that time or shortly before.
    fn is_excused(&self, peers: &[u16], from: Time, until: Time) -> bool {
        self.is_draining || self.is_disturbed(peers, from, until)
    }

    /// The same, where a drain counts for nothing: games that are on go on.
    fn is_disturbed(&self, peers: &[u16], from: Time, until: Time) -> bool {
        self.was_away(peers, from, until)
            || self.stalls.iter().any(|(start, end)| *start <= until && from <= end + 7 * SECOND)
    }

    /// The same, where it counts for nothing that the server stood still.
    fn was_away(&self, peers: &[u16], from: Time, until: Time) -> bool {
        let overlaps =
            |(start, end): &(Time, Time)| *start <= until && from <= end.saturating_add(5 * SECOND);
        self.outages.iter().any(overlaps)
            || peers.iter().any(|peer| self.peer(*peer).disturbed.iter().any(overlaps))
    }

    /// For how much of that time the server stood still or was away.
    fn outage_within(&self, from: Time, until: Time) -> Time {
        let overlap =
            |(start, end): &(Time, Time)| (*end).min(until).saturating_sub((*start).max(from));
        self.outages.iter().chain(&self.stalls).map(overlap).sum()
    }

    pub fn reloaded(&mut self, config: &Config, now: Time) {
        self.promises = self.promises.narrowed(Promises::of(config));
        self.add_ports(config);
        self.pairs.note_reload(now);
    }

    /// Nobody new is introduced from now on.
    pub fn drain_began(&mut self) {
        self.is_draining = true;
    }

    pub fn server_ended(&mut self, now: Time) {
        self.ids = Ids::default();
        self.pairs = Pairs::default();
        self.weapons.forget_pairs();
        self.coverage.count("world", "server ended");
        self.outages.push((now, Time::MAX));
    }

    pub fn server_began(&mut self, now: Time) {
        self.is_draining = false;
        for (_, end) in &mut self.outages {
            *end = (*end).min(now);
        }
        self.disturb_all(now, now + 8 * SECOND);
        for peer in self.peers.iter_mut().filter(|peer| now > 0 && peer.kind.maps_by_destination())
        {
            // It goes on sending to the relays of the former process. Whoever is heard at a port within a minute before a
            // pair begins there cannot be the first, and the pair ends after half a minute more.
            peer.disturbed.push((now, now + 100 * SECOND));
        }
        self.restarted = (now > 0).then_some(now);
    }

    /// A peer's router has forgotten its mappings: what it sends comes from other ports, while the server knows the old one.
    pub fn mapping_lost(&mut self, peer: u16, now: Time) {
        self.peers[usize::from(peer)].stale = Some(now);
        // A host that goes on sending to the relays of a former process, from an address that it has not registered, looks
        // like a sprayer for a minute.
        let is_like_a_sprayer = self.restarted.is_some_and(|at| now - at < 60 * SECOND);
        let lasts = if is_like_a_sprayer { 70 * SECOND } else { 3 * SECOND };
        self.disturb(peer, now, now + lasts);
    }

    /// A datagram came while the server did not read, and the socket was full.
    pub fn note_lost_in_socket(&mut self, _datagram: &Datagram, _now: Time) {
        self.coverage.count("world", "lost in a full socket");
    }

    fn disturb_all(&mut self, from: Time, until: Time) {
        self.peers.iter_mut().for_each(|peer| peer.disturbed.push((from, until)));
    }

    pub fn note_trace(&mut self, trace: &Trace) {
        self.hash = mix(self.hash, trace.hash);
        if let Some(text) = &trace.text {
            self.text.get_or_insert_default().extend(text.iter().cloned());
        }
    }

    /// A join code as somebody writes it who was told it.
    pub fn as_written(&self, code: &str, random: &mut Rng) -> String {
        let Promises { codes_have_hyphens, codes_have_both_cases, .. } = self.promises;
        let mut written = String::new();
        for c in code.chars() {
            let is_changed = !codes_have_both_cases && random.is_hit(500);
            written.push(if is_changed { c.to_ascii_lowercase() } else { c });
            if random.is_hit(100) {
                written.push(if codes_have_hyphens { ' ' } else { *random.pick(&['-', ' ']) });
            }
        }
        written.trim().to_owned()
    }

    pub fn left(&mut self, peer: u16, now: Time) {
        self.peers[usize::from(peer)].has_left.get_or_insert(now);
    }

    fn is_gone(&self, peer: u16, before: Time) -> bool {
        self.peer(peer).has_left.is_some_and(|at| at <= before)
    }

    pub fn sent_to_itself(&mut self, datagram: &Datagram, now: Time) {
        let what = format!("a datagram to port {}", datagram.to.port);
        self.accuse("the server sends nothing to its own sockets", now, what);
    }
}

/// An address for people.
fn shown(ips: &[String], addr: Addr) -> String {
    let ip = ips.get(usize::from(addr.ip)).map_or("?", String::as_str);
    if ip.contains(':') { format!("[{ip}]:{}", addr.port) } else { format!("{ip}:{}", addr.port) }
}

/// How far the world's own timing may be off.
const SLACK: Time = 300 * MS;
