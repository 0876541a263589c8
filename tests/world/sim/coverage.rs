//! What the worlds have covered: how often each effect, reply, error, bound and reason occurred.

use std::collections::BTreeMap;
use std::fmt;

use noray::core::effect::Effect;
use noray::core::players::AddressRegistration;
use noray::core::protocol::{ErrorCode, Reply};
use noray::core::relay::{DropReason, RelayLimit};
use noray::label::Label;
use noray::limits::bounds::Bound;
use noray::limits::connection_policy::DisconnectReason;

/// Counters by kind and name.
#[derive(Clone, Default)]
pub struct Coverage {
    counts: BTreeMap<(&'static str, &'static str), u64>,
    drops: [u64; DropReason::ALL.len()],
    pub forwarded: u64,
    pub handovers: u64,
}

/// What only the shell gives, and the test that shows it.
pub const OF_THE_SHELL: [(&str, &str, &str); 4] = [
    ("bound", "requests", "tests/http.rs"),
    ("drop", "send-buffer-full", "tests/nat_lab/faults.rs"),
    ("drop", "too-large", "tests/nat_lab/faults.rs"),
    ("drop", "send-failed", "tests/nat_lab/faults.rs"),
];

impl Coverage {
    pub fn count(&mut self, kind: &'static str, name: &'static str) {
        *self.counts.entry((kind, name)).or_default() += 1;
    }

    pub fn of(&self, kind: &'static str, name: &'static str) -> u64 {
        self.counts.get(&(kind, name)).copied().unwrap_or(0)
    }

    pub fn drop(&mut self, reason: DropReason) {
        self.drops[reason.index()] += 1;
    }

    /// Whether a rate of relays was reached.
    pub fn has_reached_rates(&self) -> bool {
        use DropReason::{GlobalBandwidth, HostBandwidth, PairBandwidth, SilentHost};
        let rates = [GlobalBandwidth, HostBandwidth, PairBandwidth, SilentHost];
        rates.iter().any(|reason| self.drops[reason.index()] > 0)
    }

    pub fn bound(&mut self, bound: Bound) {
        self.count("bound", bound.label());
    }

    pub fn reply(&mut self, reply: &Reply) {
        let name = match reply {
            Reply::SetIds(..) => "SetIds",
            Reply::Connect(_) => "Connect",
            Reply::ConnectServer(..) => "ConnectServer",
            Reply::ConnectRelay(_) => "ConnectRelay",
            Reply::Echo(_) => "Echo",
            Reply::Failed(_, code) => {
                self.count("error", code.label());
                "Failed"
            }
            Reply::UnknownCommand(_) => "UnknownCommand",
            Reply::NotUtf8 => "NotUtf8",
            Reply::Disconnect(_) => "Disconnect",
            Reply::ServerFull => "ServerFull",
            Reply::RelayLimit(limit) => {
                self.count("relay limit", limit.label());
                "RelayLimit"
            }
        };
        self.count("reply", name);
    }

    pub fn effect(&mut self, effect: &Effect) {
        let name = match effect {
            Effect::Tell(..) => "Tell",
            Effect::Close(..) => "Close",
            Effect::Answer { .. } => "Answer",
            Effect::PlayerRegistered(..) => "PlayerRegistered",
            Effect::PlayerResumed(..) => "PlayerResumed",
            Effect::PlayerLeft(_) => "PlayerLeft",
            Effect::PlayerForgotten(_) => "PlayerForgotten",
            Effect::AddressRegistration { registration, .. } => {
                self.count("registration", registration_name(registration));
                "AddressRegistration"
            }
            Effect::PairOpened { .. } => "PairOpened",
            Effect::PairClosed(_) => "PairClosed",
            Effect::CommandFailed { .. } => "CommandFailed",
            Effect::BoundReached(_) => "BoundReached",
            Effect::Disconnect(_, reason) => {
                self.count("disconnect", reason.label());
                "Disconnect"
            }
            Effect::RelayLimitReached { .. } => "RelayLimitReached",
            Effect::PartnerElsewhere { .. } => "PartnerElsewhere",
            Effect::PlayersUnconfirmed { .. } => "PlayersUnconfirmed",
            Effect::DrainStarted { .. } => "DrainStarted",
            Effect::DrainEnded => "DrainEnded",
            Effect::PairChanged(_) => "PairChanged",
        };
        self.count("effect", name);
    }

    pub fn add(&mut self, other: &Self) {
        for (key, count) in &other.counts {
            *self.counts.entry(*key).or_default() += count;
        }
        self.drops.iter_mut().zip(other.drops).for_each(|(sum, more)| *sum += more);
        self.forwarded += other.forwarded;
        self.handovers += other.handovers;
    }

    /// All counters, with those that are zero.
    fn all(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        let mut all = self.counts.clone();
        for (kind, names) in expected() {
            for name in names {
                all.entry((kind, name)).or_default();
            }
        }
        for reason in DropReason::ALL {
            all.insert(("drop", reason.label()), self.drops[reason.index()]);
        }
        all
    }

    /// What the core can give and has not.
    pub fn holes(&self) -> Vec<String> {
        let is_of_shell = |kind: &str, name: &str| {
            OF_THE_SHELL.iter().any(|(of_kind, of_name, _)| (*of_kind, *of_name) == (kind, name))
        };
        let all = self.all();
        let missing = all.iter().filter(|((kind, name), n)| **n == 0 && !is_of_shell(kind, name));
        missing.map(|((kind, name), _)| format!("{kind} {name}")).collect()
    }
}

fn registration_name(registration: &AddressRegistration) -> &'static str {
    match registration {
        AddressRegistration::First(..) => "First",
        AddressRegistration::Changed(..) => "Changed",
        AddressRegistration::Repeated(_) => "Repeated",
        AddressRegistration::TooManyChanges => "TooManyChanges",
        AddressRegistration::Implausible(..) => "Implausible",
        AddressRegistration::Unknown => "Unknown",
    }
}

/// All kinds with all their names.
fn expected() -> Vec<(&'static str, Vec<&'static str>)> {
    fn labels<L: Label>() -> Vec<&'static str> {
        L::ALL.iter().map(|label| label.label()).collect()
    }
    let effects = "Tell Close Answer PlayerRegistered PlayerResumed PlayerLeft PlayerForgotten \
        AddressRegistration PairOpened PairClosed CommandFailed BoundReached Disconnect \
        RelayLimitReached PartnerElsewhere PlayersUnconfirmed DrainStarted DrainEnded PairChanged";
    let replies = "SetIds Connect ConnectServer ConnectRelay Echo Failed UnknownCommand NotUtf8 \
        Disconnect ServerFull RelayLimit";
    let registrations = "First Changed Repeated TooManyChanges Implausible Unknown";
    vec![
        ("error", labels::<ErrorCode>()),
        ("bound", labels::<Bound>()),
        ("disconnect", labels::<DisconnectReason>()),
        ("relay limit", labels::<RelayLimit>()),
        ("effect", effects.split_whitespace().collect()),
        ("reply", replies.split_whitespace().collect()),
        ("registration", registrations.split_whitespace().collect()),
    ]
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "forwarded {}, handovers {}", self.forwarded, self.handovers)?;
        let mut last = "";
        for ((kind, name), count) in self.all() {
            if kind != last {
                write!(f, "{}{kind}:", if last.is_empty() { "" } else { "\n" })?;
                last = kind;
            }
            write!(f, " {name} {count}")?;
        }
        writeln!(f)
    }
}
