//! What two players do once they are introduced: the handshake of the add-on `netfox.noray`, then ENet.
//!
//! Who hears whom is as in the add-on's example and in ENet, of which only the rules for addresses are played:
//!
//! - The client's handshake sends to the announced address, and takes what comes from anywhere.
//! - The host's game is a running ENet server. It ignores the handshake's bytes, and sends a finished handshake to
//!   the announced address without reading anything.
//! - An ENet server answers a request to connect where it came from. A client of ENet takes datagrams only from the
//!   address to which it connects.

#![allow(unreachable_pub, reason = "the other files of this test use it")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::players::{Player, now};
use crate::support::REPEAT;

/// How many datagrams go each way when two play.
pub const DATAGRAMS: usize = 50;

/// How long a player waits for an answer in the game before it is lost.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// What a client sends first, in place of ENet's own bytes. The stream's name follows.
const CONNECT: &str = "connect ";

/// What the host answers to it.
const VERIFY: &str = "verify ";

/// What a host saw of a stream: where it came from, and how many datagrams.
pub type Seen = BTreeMap<String, (SocketAddr, usize)>;

/// Sets a flag when it goes out of scope, also by a panic: or a failed client would leave its host playing.
pub struct SetAtEnd<'a>(pub &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The host's side, until `is_over`: a handshake to every address that it was told, and an ENet server that answers
/// who connects. A stream's datagrams are `STREAM:NUMBER`; each is answered once, and must come in order.
pub fn host_game(host: &Player, told: &[SocketAddr], is_over: &AtomicBool) -> Seen {
    let mut seen = Seen::new();
    let mut next_blast = now();
    while !is_over.load(Ordering::Relaxed) {
        if now() >= next_blast {
            told.iter().for_each(|address| host.send("$rwx", *address));
            next_blast += REPEAT;
        }
        let Some((text, from)) = host.receive_within(REPEAT / 10) else { continue };
        if let Some(stream) = text.strip_prefix(CONNECT) {
            host.send(&format!("{VERIFY}{stream}"), from);
            seen.entry(stream.to_owned()).or_insert((from, 0));
        } else if let Some((stream, number)) = text.split_once(':') {
            let (source, count) = seen.get_mut(stream).expect("it has connected");
            assert_eq!(*source, from, "{stream} is seen at one address");
            assert_eq!(number, count.to_string(), "{stream} comes in order");
            *count += 1;
            host.send(&format!("{stream}!{number}"), from);
        }
    }
    seen
}

/// What a client does with the address that it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// As the add-on's example: no ENet without a handshake, and ENet only to the announced address.
    AddOn,
    /// As `docs/noray_game.gd`: ENet also without a handshake, and where the handshake was heard.
    Page,
}

impl Client {
    pub const ALL: [Self; 2] = [Self::AddOn, Self::Page];
}

/// How far a client came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The handshake heard the host.
    pub hears: bool,
    /// ENet connected, and every datagram was answered.
    pub plays: bool,
}

impl Outcome {
    pub const PLAYS: Self = Self { hears: true, plays: true };
}

/// How often a client sends before it gives up, every [`REPEAT`].
///
/// Real ones take longer, which [`crate::matrix`] accounts for: here the ways are short.
const ATTEMPTS: usize = 20;

/// The client's side: shakes hands, connects, then sends [`DATAGRAMS`] and gets an answer to each.
///
/// # Panics
/// If an answer in the game does not come.
pub fn client_game(client: &Player, told: SocketAddr, stream: &str, kind: Client) -> Outcome {
    let heard = shake_hands(client, told);
    let outcome = |plays| Outcome { hears: heard.is_some(), plays };
    let to = match (kind, heard) {
        (Client::AddOn, None) => return outcome(false),
        (Client::Page, Some(heard)) if heard.ip() == told.ip() => heard,
        (Client::AddOn | Client::Page, _) => told,
    };
    if !connect_by_enet(client, to, stream) {
        return outcome(false);
    }
    for number in 0..DATAGRAMS {
        client.send(&format!("{stream}:{number}"), to);
        let answer = receive_from(client, to, ANSWER_TIME, |text| text.contains('!'));
        assert_eq!(answer.as_deref(), Some(format!("{stream}!{number}").as_str()));
    }
    outcome(true)
}

/// Where the host was heard, if the handshake succeeds.
fn shake_hands(client: &Player, told: SocketAddr) -> Option<SocketAddr> {
    let (mut has_read, mut is_shaken) = (false, false);
    for _ in 0..ATTEMPTS {
        let mark = |is_set, mark| if is_set { mark } else { '-' };
        client.send(&format!("${}w{}", mark(has_read, 'r'), mark(is_shaken, 'x')), told);
        let repeat = now() + REPEAT;
        while let Some((text, from)) = client.receive_within(REPEAT) {
            has_read = true;
            is_shaken |= text.contains('r');
            if is_shaken && text.contains('x') {
                // The add-on sends what it knows once more before it stops.
                client.send("$rwx", told);
                return Some(from);
            }
            if now() >= repeat {
                break;
            }
        }
    }
    None
}

fn connect_by_enet(client: &Player, to: SocketAddr, stream: &str) -> bool {
    (0..ATTEMPTS).any(|_| {
        client.send(&format!("{CONNECT}{stream}"), to);
        receive_from(client, to, REPEAT, |text| text == format!("{VERIFY}{stream}")).is_some()
    })
}

/// The next datagram of that kind from that address. Others are lost on ENet.
fn receive_from(
    client: &Player,
    partner: SocketAddr,
    patience: Duration,
    is_wanted: impl Fn(&str) -> bool,
) -> Option<String> {
    let deadline = now() + patience;
    std::iter::from_fn(|| client.receive_within(patience))
        .take_while(|_| now() < deadline)
        .find(|(text, from)| *from == partner && is_wanted(text))
        .map(|(text, _)| text)
}
