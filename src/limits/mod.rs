//! How much strangers may use up.

pub mod bounds;
pub mod budgets;
pub mod conduct;
pub mod network;
pub mod throttle;
pub mod token_bucket;
