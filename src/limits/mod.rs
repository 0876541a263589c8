//! The limits on what strangers may use: rate limits, capacities, and their names in the metrics.
//!
//! | module | what it limits |
//! |---|---|
//! | [`admission`] | how many connections there may be, in all and of one network |
//! | [`bounds`] | names of the limits, each with a counter |
//! | [`token_bucket`] | how often something may happen: the mechanism of all rate limits |
//! | [`network`] | which IP addresses count as one network |
//! | [`network_rate`] | how often something may happen, for each network |
//! | [`rates`] | the rate limits that are constants |
//! | [`connection_policy`] | how a player may use its connection |
//! | [`relay`] | what relays may carry |

pub mod admission;
pub mod bounds;
pub mod connection_policy;
pub mod network;
pub mod network_rate;
pub mod rates;
pub mod relay;
pub mod token_bucket;
