//! What the person who runs the server sees of it, and what the operating system allows.

pub mod clock;
pub mod logging;
pub mod machine;
pub mod metrics;
pub mod os;
pub mod supervisor;
