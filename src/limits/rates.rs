//! The rate limits that are constants, with their reasons.

use std::time::Duration;

use crate::limits::token_bucket::RateLimit;

/// New connections of one network. They are limited because each connection may send a burst of commands. 1,050 at
/// once, as many as a network may have by default; then 50 a second for players who come and go.
pub const NEW_CONNECTIONS: RateLimit = RateLimit { per_second: 50, burst: Duration::from_secs(21) };

/// Introductions to one host. They are limited because each makes the host send for seconds. 128 at once, for a full
/// lobby that starts.
pub const INTRODUCTIONS: RateLimit = RateLimit { per_second: 8, burst: Duration::from_secs(16) };

/// Introductions to one host that one network asks for. A network gets an eighth of [`INTRODUCTIONS`] in the long run,
/// so that a few strangers do not keep all others away from a host. 64 at once, for a class that joins its teacher.
pub const INTRODUCTIONS_PER_NETWORK: RateLimit =
    RateLimit { per_second: 1, burst: Duration::from_secs(64) };

/// Wrong OpenIDs that one network names. A thousand players behind one carrier's IP may each mistype one in 17
/// minutes. 120 at once, for a whole school that mistypes.
pub const WRONG_OPEN_IDS: RateLimit = RateLimit { per_second: 1, burst: Duration::from_secs(120) };

/// `connect` of unconfirmed players of one network. Their addresses may be forged, and each `connect` makes a host
/// send there for seconds. Few unconfirmed players are honest: those of a carrier that uses several IPs for one
/// player.
pub const UNCONFIRMED_CONNECTS: RateLimit =
    RateLimit { per_second: 1, burst: Duration::from_secs(16) };

/// Changes of one player's address. Routers seldom change it. Each change must reach all the player's relays.
pub const ADDRESS_CHANGES: RateLimit = RateLimit { per_second: 2, burst: Duration::from_secs(10) };

/// Answers of the registrar to datagrams that are no known PrivateID, for all senders together. Honest players get
/// them only after a restart of the server, and can do without.
pub const UNKNOWN_ANSWERS: RateLimit = RateLimit { per_second: 100, burst: Duration::from_secs(1) };
