//! What the person who runs the server sees of it, and what the operating system allows.

pub mod capacity;
pub mod clock;
pub mod config_source;
pub mod logging;
pub mod machine;
pub mod metrics;
pub mod os;
pub mod reload_request;
pub mod supervisor;
pub mod threads;
