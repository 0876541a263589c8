//! What relays may carry: the limits of each pair and of all pairs together.

use std::time::Duration;

/// Limits of relays. Rates and sizes count [`charge`]d bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayLimits {
    /// Bytes per second in each direction of each pair; at least 1.
    pub pair_rate: u64,
    /// Bytes per second of all relays together; at least 1.
    pub global_rate: u64,
    /// How long a burst at full rate may be: the depth of the token buckets.
    pub burst: Duration,
    /// How old a pair may become.
    pub lifetime: Duration,
    /// How many bytes a pair may carry in its life, both directions together.
    pub lifetime_traffic: u64,
    /// After how long without a forwarded datagram a pair is freed, and after how long a silent player is sent
    /// nothing.
    pub idle_timeout: Duration,
    /// How many pairs one network may have asked for while few ports are left.
    pub max_per_network: usize,
}

/// How many [`charge`]d bytes are sent to an address that was not heard yet. Enough for any handshake, and too
/// little to be worth a forged registration (in the spirit of consent, RFC 7675).
pub const UNHEARD_ALLOWANCE: u64 = 64 * 1024;

/// What a datagram with a payload of `length` bytes costs: with the 28 bytes of its IPv4 and UDP headers.
pub const fn charge(length: usize) -> u64 {
    length as u64 + 28
}
