//! The plan of a world: who is there and what each does. A seed makes one, and a failure is shrunk by removing parts.

use serde::{Deserialize, Serialize};

use super::net::Line;
use super::random::Rng;
use super::router::RouterKind;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub seed: u64,
    /// The server's configuration, as in its file.
    pub config: Vec<String>,
    /// When everybody who is left leaves.
    pub seconds: u32,
    pub sites: Vec<Site>,
    pub players: Vec<PlayerPlan>,
    pub strangers: Vec<StrangerPlan>,
    pub acts: Vec<Act>,
}

/// A router with a line to the internet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Site {
    pub id: u16,
    pub kind: RouterKind,
    /// Its public IPv4 addresses.
    pub ipv4: u16,
    /// The /64 of its IPv6 addresses, if it has any. They are not translated.
    pub ipv6: Option<u16>,
    /// After how long it forgets a mapping.
    pub timeout_s: u16,
    pub line: Line,
}

/// By which family a player reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    V4,
    V6,
    /// The connection by IPv6, datagrams by IPv4.
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    Host,
    /// A client of the host with that id.
    Client(u16),
}

/// How a client wants to meet its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// As docs/noray_game.gd: punches, also where the handshake heard nothing, then relays.
    Page,
    /// As the add-on's example: punches, no game without a handshake, then relays.
    AddOn,
    Relay,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlayerPlan {
    pub id: u16,
    pub site: u16,
    pub family: Family,
    pub start_ms: u32,
    pub role: Role,
    pub way: Way,
    /// Datagrams a second, and the bytes of each.
    pub rate: u16,
    pub size: u16,
    pub play_s: u16,
    /// Closes its connection once it plays, as many games do.
    pub hangs_up: bool,
    /// Its commands come in pieces.
    pub in_pieces: bool,
    /// Writes join codes with other case, spaces and hyphens.
    pub writes_freely: bool,
    pub breaks: Option<Break>,
}

/// A connection that breaks, and comes back with its PrivateID.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Break {
    /// After it has registered.
    pub after_ms: u32,
    /// Nobody tells the server.
    pub vanishes: bool,
    pub back_after_ms: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StrangerPlan {
    pub id: u16,
    pub site: u16,
    pub start_ms: u32,
    pub for_s: u16,
    /// Deeds a second.
    pub rate: u16,
    pub deed: Deed,
    /// Whom it is after.
    pub victim: Option<u16>,
}

/// What a stranger does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deed {
    /// Sends to all ports of the server in turn.
    Scan,
    /// Sends to the victim's relay port, which it somehow knows, once the game is settled.
    KnownPort,
    /// Sends to random ports with random sources.
    ForgeSources,
    /// Two players of its own, one of which registers a bystander's address and is sent to.
    ForgeAddress,
    /// The same, and forges that bystander's datagrams at the relay port for a while.
    ForgeAlive,
    /// Sends what is no PrivateID to the registrar.
    Registrar,
    /// The same from random forged sources.
    RegistrarForged,
    /// Registers an address that it cannot have.
    Implausible,
    /// Changes its address all the time.
    Moves,
    /// Names wrong join codes.
    Guess,
    /// Asks for the victim all the time.
    AskForHost,
    /// Opens connections, and registers on each.
    Connections,
    /// Opens connections, and says nothing.
    Silent,
    /// Takes relays between players of its own.
    Relays,
    /// Two players of its own, one of which sends far too much.
    Flood,
    /// Asks for a relay to the victim, and sends far too much to it.
    FloodHost,
    /// Registers for new ids all the time.
    Ids,
    /// Asks, and does not read.
    SlowReader,
    HalfLine,
    LongLine,
    TooMany,
    /// Makes every mistake that a client can make.
    Fumble,
    /// Its datagrams come from another IP than its connection: registers and asks for the victim.
    Unconfirmed,
    /// Two such players with each other.
    BothUnconfirmed,
    /// Many players of its own who all send to one, which answers.
    Crowd,
    /// Two such players, who have registered at the IP of their connection before.
    Drift,
    /// Asks for a relay to the victim, and the victim's datagrams go nowhere: it never sends.
    Mute,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Act {
    pub at_ms: u32,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum What {
    Reload(Vec<String>),
    HandOver,
    /// The server drains, and is started again so long after its end.
    Restart {
        after_ms: u32,
    },
    /// The process stands still. Datagrams wait in the sockets, or are lost as when the whole machine is paused.
    StandStill {
        ms: u32,
        loses: bool,
    },
    /// A router forgets its mappings.
    Forget {
        site: u16,
    },
    /// A player goes on at another site.
    Move {
        player: u16,
        site: u16,
    },
    /// The system gives no threads for a while.
    NoThreads {
        ms: u32,
    },
    /// Somebody's datagrams reach every socket of the server from the server's own address.
    FromItself,
}

impl Plan {
    pub fn player(&self, id: u16) -> Option<&PlayerPlan> {
        self.players.iter().find(|player| player.id == id)
    }

    /// Whether the machine stands still in it. How much of that time counts depends on when the loop turned last, so that a
    /// handover shows in such a world.
    pub fn stands_still(&self) -> bool {
        self.acts.iter().any(|act| matches!(act.what, What::StandStill { .. }))
    }

    /// The same with that act at some more moments.
    pub fn with(&self, what: &What, random: &mut Rng) -> Self {
        let mut with = self.clone();
        for _ in 0..random.within(1, 5) {
            let at_ms = random.below(u64::from(self.seconds) * 1000 + 30_000) as u32;
            with.acts.push(Act { at_ms, what: what.clone() });
        }
        with
    }

    /// The same without such acts.
    pub fn without(&self, is_left_out: fn(&What) -> bool) -> Self {
        let mut without = self.clone();
        without.acts.retain(|act| !is_left_out(&act.what));
        without
    }

    pub fn site(&self, id: u16) -> &Site {
        self.sites.iter().find(|site| site.id == id).expect("the plan has the site")
    }
}
