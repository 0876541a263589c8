//! The limits of relays: how much each pair and all pairs together may carry.

use std::time::Duration;

use crate::limits::share::HardCap;
use crate::limits::token_bucket::RateLimit;

/// The limits of relays. Rates and sizes are in [`charged_bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayLimits {
    /// Bytes per second in each direction of each pair; at least 1.
    pub pair_rate: u64,
    /// Bytes per second of all relays together; at least 1.
    pub global_rate: u64,
    /// The depth of the token buckets: a burst may have as many bytes as the rate allows in this time.
    pub burst: Duration,
    /// How long a pair may live.
    pub lifetime: Duration,
    /// How many bytes a pair may carry in its life, both directions together.
    pub lifetime_traffic: u64,
    /// A pair that forwards nothing for this time is closed. A player that is silent for this time is sent nothing.
    pub idle_timeout: Duration,
    /// How many live pairs one network may have asked for, beside its share.
    pub max_per_network: HardCap,
    /// With more pairs than this, all that a host's askers send it is limited to what so many pairs may carry.
    pub crowd: usize,
}

/// After this time a pair ends if one of its players has not been heard at all: there is no game. A client may take 20 s
/// from the introduction to its first datagram.
pub const UNHEARD_LIFETIME: Duration = Duration::from_secs(30);

/// A host that was not heard for this time is silent towards the asker. Games send several times a second.
pub const HOST_SILENCE: Duration = Duration::from_secs(3);

/// The usual [`RelayLimits::crowd`]. Whoever has a leaked code could otherwise fill a home's line with pairs of its own.
/// By default so many pairs may carry 2 MB/s, enough for 100 clients that send 20 kB/s each.
pub const CROWD: usize = 16;

impl RelayLimits {
    /// What may be sent to a host with more pairs than [`Self::crowd`], in bytes.
    pub fn crowd_limit(&self) -> RateLimit {
        let per_second = self.pair_rate.saturating_mul(self.crowd as u64);
        RateLimit { per_second, burst: Duration::from_secs(1) }
    }

    /// What is shared of the rate of all relays together: the lower half of its bucket, in bytes.
    pub fn shared_limit(&self) -> RateLimit {
        RateLimit { per_second: self.global_rate, burst: self.burst / 2 }
    }
}

/// How many [`charged_bytes`] a pair may send to a player that was not heard yet. It is enough for any handshake, and
/// too little for an attacker to forge a registration for it (compare consent, RFC 7675).
pub const UNHEARD_ALLOWANCE: u64 = 64 * 1024;

/// The bytes that a datagram with a payload of `length` bytes is charged: 28 more, for its IPv4 and UDP headers.
pub const fn charged_bytes(length: usize) -> u64 {
    length as u64 + 28
}
