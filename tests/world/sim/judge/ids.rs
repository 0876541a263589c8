//! Whose id is whose, and until when: the judge's own book of players, made of what was said on the wire.

use std::collections::BTreeMap;

use super::{Judge, Promises, SLACK, shown};
use crate::world::net::{Addr, Datagram, SECOND, Time};
use crate::world::plan::Deed;

/// A player in the judge's book.
pub(super) struct Player {
    /// Who it really is.
    pub(super) peer: u16,
    pub(super) connection: Option<u64>,
    ids: Vec<(String, String)>,
    /// When its connection ended.
    away_since: Option<Time>,
    /// It gave its ids up for another player's.
    is_gone: bool,
    /// Where its PrivateID came from, and was answered.
    pub(super) address: Option<Addr>,
    /// All addresses that it ever had.
    pub(super) addresses: Vec<Addr>,
}

/// How sure the judge is that an id is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Validity {
    Valid,
    Unsure,
    Invalid,
}

#[derive(Default)]
pub(super) struct Ids {
    pub(super) players: Vec<Player>,
    by_oid: BTreeMap<String, usize>,
    by_pid: BTreeMap<String, usize>,
    /// The peer, and the player that has registered.
    connections: BTreeMap<u64, (u16, Option<usize>)>,
    /// The line to which the answers belong that come now.
    pub(super) cause: Option<Cause>,
    /// The PrivateID that the datagram had that is being handled.
    claim: Option<(usize, Addr)>,
    closed: Vec<u64>,
}

pub(super) struct Cause {
    from: u64,
    line: String,
    /// The first answer of an introduction.
    asker_told: Option<String>,
    oid: Option<String>,
}

impl Judge {
    pub fn connected(&mut self, connection: u64, peer: u16, _ip: u16) {
        self.ids.connections.insert(connection, (peer, None));
    }

    pub fn line_read(&mut self, from: u64, line: &[u8], _now: Time) {
        let line = String::from_utf8_lossy(line).into_owned();
        self.ids.cause = Some(Cause { from, line, asker_told: None, oid: None });
    }

    pub fn told(&mut self, to: u64, text: &str, now: Time) {
        for line in text.lines() {
            let (command, data) = line.split_once(' ').unwrap_or((line, ""));
            match command {
                "set-oid" => {
                    if let Some(cause) = &mut self.ids.cause {
                        cause.oid = Some(data.to_owned());
                    }
                }
                "set-pid" => self.named(to, data, now),
                "connect" | "connect-relay" => self.introduced(to, command, data, now),
                "connect-error" | "connect-relay-error" => {
                    self.refused_on_the_wire(to, data.split(' ').next().unwrap_or(data), now);
                }
                _ => {}
            }
        }
    }

    /// A connection was told its ids.
    fn named(&mut self, to: u64, pid: &str, now: Time) {
        let Some(Cause { from, line, oid: Some(oid), .. }) = self.ids.cause.take() else {
            return self.accuse("ids are told to who asks", now, "nobody asked".to_owned());
        };
        if from != to {
            return self.accuse(
                "ids are told to who asks",
                now,
                format!("{to} was told for {from}"),
            );
        }
        let claimed = line.strip_prefix("register-host").unwrap_or("").trim().to_owned();
        let known = self.ids.by_pid.get(&claimed).copied();
        let validity =
            known.map_or(Validity::Invalid, |player| self.validity(player, &claimed, now));
        let is_same = claimed == pid;
        match (validity, is_same) {
            (Validity::Valid, false) => {
                self.accuse(
                    "a player that comes back has its own ids",
                    now,
                    "it got others".into(),
                );
            }
            (Validity::Invalid, true) => {
                self.accuse("no id is valid after its time", now, "a PrivateID".into());
            }
            (Validity::Valid | Validity::Unsure, true) => {
                let player = known.expect("it is valid");
                let ids = (oid, pid.to_owned());
                if !self.ids.players[player].ids.contains(&ids) {
                    self.accuse("a player that comes back has its own ids", now, ids.0);
                }
                self.resumed(to, player);
            }
            (Validity::Unsure | Validity::Invalid, false) => self.new_ids(to, oid, pid, now),
        }
    }

    fn resumed(&mut self, connection: u64, player: usize) {
        let entry = self.ids.connections.get_mut(&connection).expect("it was told");
        let (peer, former) = (entry.0, entry.1.replace(player));
        if let Some(former) = former.filter(|former| *former != player) {
            self.ids.players[former].is_gone = true;
            self.ids.players[former].connection = None;
        }
        let of = &mut self.ids.players[player];
        let earlier = of.connection.replace(connection).filter(|earlier| *earlier != connection);
        (of.away_since, of.peer) = (None, peer);
        if let Some(earlier) = earlier.and_then(|earlier| self.ids.connections.get_mut(&earlier)) {
            earlier.1 = None;
        }
    }

    fn new_ids(&mut self, to: u64, oid: String, pid: &str, now: Time) {
        if let Some(other) = self.ids.by_oid.get(&oid).copied() {
            let (_, pid) = self.ids.players[other].ids.iter().find(|ids| ids.0 == oid).expect("it");
            let pid = pid.clone();
            if self.validity(other, &pid, now) == Validity::Valid {
                self.accuse("ids are unique", now, format!("{oid} was given twice"));
            }
        }
        if self.ids.by_pid.contains_key(pid) {
            self.accuse("ids are unique", now, "a PrivateID was given twice".to_owned());
        }
        let (peer, known) = self.ids.connections[&to];
        let player = known.unwrap_or_else(|| {
            self.ids.players.push(Player {
                peer,
                connection: Some(to),
                ids: Vec::new(),
                away_since: None,
                is_gone: false,
                address: None,
                addresses: Vec::new(),
            });
            self.ids.players.len() - 1
        });
        self.ids.connections.insert(to, (peer, Some(player)));
        self.ids.by_oid.insert(oid.clone(), player);
        self.ids.by_pid.insert(pid.to_owned(), player);
        self.ids.players[player].ids.push((oid, pid.to_owned()));
    }

    fn validity(&self, player: usize, pid: &str, now: Time) -> Validity {
        let of = &self.ids.players[player];
        let newer = of.ids.iter().rev().position(|ids| ids.1 == pid).unwrap_or(usize::MAX);
        if of.is_gone || newer >= 16 {
            return Validity::Invalid;
        }
        // Earlier ids lapse if a network has many, and so do those of who is away.
        let is_crowded = self.has_deed(&[Deed::Ids, Deed::Connections, Deed::Relays]);
        let is_first = newer == 0;
        match of.away_since {
            None if is_first || !is_crowded => Validity::Valid,
            None => Validity::Unsure,
            Some(since) => {
                let window = self.promises.resume_window;
                let stood = self.outage_within(since, now);
                let least = (now - since).saturating_sub(stood);
                // Of a time in which it stood still, no more counts than the server would have waited anyway.
                let most = least + stood.min(31 * SECOND);
                if window == 0 || least > window + SECOND + SLACK {
                    Validity::Invalid
                } else if most + SLACK < window && !is_crowded {
                    Validity::Valid
                } else {
                    Validity::Unsure
                }
            }
        }
    }

    /// A connection was closed. It counts when the turn ends: its player may go on on another one.
    pub fn closed(&mut self, connection: u64, _now: Time) {
        self.ids.closed.push(connection);
    }

    /// The server has put out all that an input led to.
    pub fn turn_ended(&mut self, now: Time) {
        self.ids.cause = None;
        while let Some(connection) = self.ids.closed.pop() {
            self.ended(connection, now);
        }
    }

    fn ended(&mut self, connection: u64, now: Time) {
        let Some((_, player)) = self.ids.connections.remove(&connection) else { return };
        if let Some(player) = player {
            let of = &mut self.ids.players[player];
            if of.connection == Some(connection) {
                (of.connection, of.away_since) = (None, Some(now));
            }
        }
    }

    /// The player that somebody means with a join code, and how sure it is that it is valid.
    fn meant(&self, written: &str, now: Time) -> Option<(usize, Validity)> {
        let Promises { codes_have_hyphens, codes_have_both_cases, .. } = self.promises;
        let simple = |code: &str| -> String {
            let is_kept = |c: &char| !c.is_whitespace() && (*c != '-' || codes_have_hyphens);
            let kept: String = code.chars().filter(is_kept).collect();
            if codes_have_both_cases { kept } else { kept.to_lowercase() }
        };
        let exact = self.ids.by_oid.get_key_value(written);
        let found = exact.or_else(|| {
            let mut all = self.ids.by_oid.iter();
            all.find(|(code, _)| simple(code) == simple(written))
        });
        let (code, player) = found?;
        let (_, pid) = self.ids.players[*player].ids.iter().find(|ids| ids.0 == *code)?;
        Some((*player, self.validity(*player, pid, now)))
    }

    /// Two are introduced: the asker is told first, and then the host.
    fn introduced(&mut self, to: u64, command: &str, data: &str, now: Time) {
        const TOLD: &str = "an introduction is told to the asker and to the host";
        let Some(cause) = &mut self.ids.cause else {
            return self.accuse(TOLD, now, format!("nobody asked: {command} {data}"));
        };
        let Some(asker_told) = cause.asker_told.take() else {
            if to != cause.from {
                self.accuse(
                    TOLD,
                    now,
                    format!("the first told is not who asked: {command} {data}"),
                );
            } else {
                cause.asker_told = Some(format!("{command} {data}"));
            }
            return;
        };
        let (from, line) = (cause.from, cause.line.clone());
        let (asked, code) = line.split_once(' ').unwrap_or((&line, ""));
        let Some((host, validity)) = self.meant(code.trim(), now) else {
            return self.accuse(
                "nobody is found by a code that was never given",
                now,
                code.to_owned(),
            );
        };
        let asker = self.ids.connections.get(&from).and_then(|of| of.1);
        let of_host = &self.ids.players[host];
        if validity == Validity::Invalid {
            self.accuse("no id is valid after its time", now, code.to_owned());
        } else if of_host.connection != Some(to) || asker.is_none() {
            self.accuse(TOLD, now, format!("another one was told: {command} {data}"));
        } else if let Some(asker) = asker {
            let is_relay = asked == "connect-relay" || self.promises.relay_only;
            if self.is_draining {
                self.accuse("nobody is introduced during a drain", now, line.clone());
            }
            self.check_introduction([asker, host], is_relay, [&asker_told, data], now);
        }
    }

    fn check_introduction(
        &mut self,
        players: [usize; 2],
        is_relay: bool,
        told: [&str; 2],
        now: Time,
    ) {
        let data = told.map(|told| told.rsplit_once(' ').map_or(told, |(_, data)| data));
        let [asker, host] = players.map(|player| self.ids.players[player].address);
        let (Some(asker), Some(host)) = (asker, host) else {
            return self.accuse("only registered players are introduced", now, data.join(" and "));
        };
        let relayed = data.map(|data| match data.rsplit_once(':') {
            None => data.parse().ok(),
            Some((server, port))
                if self.server_ips.iter().any(|ip| server.contains(ip.as_str())) =>
            {
                port.parse().ok()
            }
            Some(_) => None,
        });
        if let [Some(host_port), Some(asker_port)] = relayed {
            return self.paired(players, [host_port, asker_port], now);
        }
        let expected = [host, asker].map(|address| shown(&self.ips, address));
        if is_relay && self.promises.relay_only {
            self.accuse("no player learns another's IP", now, data.join(" and "));
        } else if data != [expected[0].as_str(), expected[1].as_str()] {
            let what = format!("{data:?} instead of {expected:?}");
            self.accuse("players are told each other's registered addresses", now, what);
        }
    }

    /// Whoever asks for a host that is there must not hear that it is not.
    fn refused_on_the_wire(&mut self, to: u64, code: &str, now: Time) {
        let Some(cause) = &self.ids.cause else { return };
        let written = cause.line.split_once(' ').map_or("", |(_, code)| code.trim()).to_owned();
        let meant = self.meant(&written, now);
        let is_there = |player: usize| self.ids.players[player].connection.is_some();
        let is_wrong = match (code, meant) {
            ("unknown-oid", Some((_, Validity::Valid))) => true,
            ("host-away", Some((host, _))) => is_there(host),
            ("host-away", None) => true,
            ("not-registered", _) => {
                self.ids.connections.get(&to).is_some_and(|(_, player)| player.is_some())
            }
            ("host-no-address", Some((host, _))) => self.ids.players[host].address.is_some(),
            ("draining", _) => !self.is_draining,
            _ => false,
        };
        if is_wrong {
            self.accuse("errors are true", now, format!("{code} for {written}"));
        }
    }

    /// A datagram with bytes comes to the server.
    pub fn datagram_with_bytes(&mut self, datagram: &Datagram, bytes: &[u8], _now: Time) {
        let text = std::str::from_utf8(bytes.trim_ascii_end()).unwrap_or("");
        let player = self.ids.by_pid.get(text).copied();
        self.ids.claim = player.map(|player| (player, datagram.from));
    }

    /// The registrar answers.
    pub fn answered(&mut self, cause: Option<&Datagram>, to: Addr, answer: &[u8], now: Time) {
        let Some(cause) = cause else {
            return self.accuse("the registrar only answers", now, "nobody sent".to_owned());
        };
        if cause.from != to || answer.len() > cause.length.into() {
            let what = format!("{} bytes for {}", answer.len(), cause.length);
            self.accuse("an answer is no longer than what it answers", now, what);
        }
        self.sent_to(to, answer.len(), false, now);
        if answer != b"OK" {
            return;
        }
        let Some((player, from)) = self.ids.claim.take() else {
            return self.accuse("only PrivateIDs are accepted", now, "another datagram".to_owned());
        };
        let (_, pid) = self.ids.players[player].ids.last().expect("it has ids").clone();
        if self.validity(player, &pid, now) == Validity::Invalid {
            self.accuse("no id is valid after its time", now, "at the registrar".to_owned());
        }
        self.address_registered(player, from, now);
    }

    fn address_registered(&mut self, player: usize, from: Addr, now: Time) {
        self.note_alive(player, now);
        let of = &mut self.ids.players[player];
        let is_new = of.address.replace(from) != Some(from);
        if is_new {
            if !of.addresses.contains(&from) {
                of.addresses.push(from);
            }
            self.pairs_follow(player, from, now);
        }
    }
}
