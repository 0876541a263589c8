//! The rate limits that are constants, each with its reason.

use std::time::Duration;

use crate::limits::token_bucket::RateLimit;

/// New connections of one network: each comes with a burst of commands. As many at once as it may have, by default, and
/// then those of players who come and go.
pub const NEW_CONNECTIONS: RateLimit = RateLimit { per_second: 50, burst: Duration::from_secs(21) };

/// Introductions to one host: each makes it send for seconds. 128 at once, as when a full lobby starts.
pub const INTRODUCTIONS: RateLimit = RateLimit { per_second: 8, burst: Duration::from_secs(16) };

/// Of them, those that one network asks for: an eighth in the long run, so that a few strangers do not keep all
/// others away from a host. 64 at once, as when a school joins its teacher.
pub const INTRODUCTIONS_PER_NETWORK: RateLimit =
    RateLimit { per_second: 1, burst: Duration::from_secs(64) };

/// Wrong OpenIDs that one network names. A thousand players behind one carrier's IP who each mistype one in a
/// quarter of an hour are just within it, and 120 at once, as when a whole school mistypes.
pub const WRONG_OPEN_IDS: RateLimit = RateLimit { per_second: 1, burst: Duration::from_secs(120) };

/// `connect` of players of one network whose UDP comes from elsewhere. Their address may be forged, and each time a
/// host sends there for seconds. Few of them are honest: their carrier has several IPs.
pub const UNCONFIRMED_CONNECTS: RateLimit =
    RateLimit { per_second: 1, burst: Duration::from_secs(16) };

/// Changes of one player's address: routers do it seldom, and each of its relays follows.
pub const ADDRESS_CHANGES: RateLimit = RateLimit { per_second: 2, burst: Duration::from_secs(10) };

/// Answers of the registrar to what is no PrivateID, to all senders together. Honest players need them only after a
/// restart of the server, when a late answer is as good as none.
pub const UNKNOWN_ANSWERS: RateLimit = RateLimit { per_second: 100, burst: Duration::from_secs(1) };
