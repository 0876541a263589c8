//! How much strangers may use up: rate limits, capacities, and their names in the metrics.
//!
//! | module | what it limits |
//! |---|---|
//! | [`admission`] | how many connections there may be, in all and of one network |
//! | [`bounds`] | names of the limits, each with a counter |
//! | [`share`] | what each network may have of things that are scarce |
//! | [`token_bucket`] | how often one player, pair or network may do something |
//! | [`network`], [`network_rate`] | whose an IP address is; a rate limit for each of them |
//! | [`rates`] | the rate limits that are constants |
//! | [`connection_policy`] | what a player may do on its connection |
//! | [`relay`] | what relays may carry |
//! | [`pruning`] | when a table looks for entries that it can forget |

pub mod admission;
pub mod bounds;
pub mod connection_policy;
pub mod network;
pub mod network_rate;
pub mod pruning;
pub mod rates;
pub mod relay;
pub mod share;
pub mod token_bucket;
