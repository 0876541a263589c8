//! The rate limits that are constants, with their reasons.

use std::time::Duration;

use crate::limits::token_bucket::RateLimit;

/// Introductions to one host. They are limited because each makes the host send for seconds. 128 at once, for a full
/// lobby that starts.
pub const INTRODUCTIONS: RateLimit = RateLimit { per_second: 8, burst: Duration::from_secs(16) };

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

/// The time between two registrations of a player's same address that its relays hear of. Players repeat them ten times
/// a second until they are answered, and each must reach all the player's relays.
pub const REPETITION_INTERVAL: Duration = Duration::from_secs(2);

/// Answers of the registrar to datagrams that are no known PrivateID, for all senders together. Honest players get
/// them only after a restart of the server, and can do without.
pub const UNKNOWN_ANSWERS: RateLimit = RateLimit { per_second: 100, burst: Duration::from_secs(1) };

/// Charged bytes to a host from all askers to whom it is silent. Whoever has a leaked code could fill a home's line
/// otherwise. Enough for the handshakes of a lobby, and for a game whose host stalls.
pub const SILENT_HOST: RateLimit =
    RateLimit { per_second: 64 * 1024, burst: Duration::from_secs(1) };
