//! The kernel's path of a program that was built without it: it cannot be opened.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;

use super::api::Kernel;
use super::interfaces::Interface;

/// The kernel's path, open but not yet used. There is none.
pub struct Opened {
    /// Where the program is attached, and how.
    pub words: String,
    never: Infallible,
}

/// The thread that follows the interfaces. There is none.
pub enum Watching {}

/// Opens nothing.
///
/// # Errors
/// Always.
pub fn open(_: IpAddr, _: usize, _: &[String]) -> Result<Opened, String> {
    Err("this noray was built without it; Debian's package and `cargo build --features kernel` have it".to_owned())
}

/// There is nothing to clean up.
pub fn clean_up() {}

impl Opened {
    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub fn watch<E>(
        watch: Self,
        _: impl Fn(Vec<Interface>) -> Result<(), E> + Send + 'static,
    ) -> io::Result<(Box<dyn Kernel>, Watching)> {
        match watch.never {}
    }
}
