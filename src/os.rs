//! Holds no state of the server: what it asks the operating system for, besides sockets.

use std::io;
use std::net::IpAddr;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::id::Random;

/// The kernel's random source, read in larger pieces than ids need.
#[derive(Default)]
pub(crate) struct KernelRandom {
    unused: Vec<u8>,
}

impl Random for KernelRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.unused.pop().unwrap_or_else(|| {
                self.unused.resize(1024, 0);
                getrandom::fill(&mut self.unused).expect("the kernel always has random bytes");
                self.unused.pop().expect("it was just filled")
            });
        }
    }
}

/// The addresses of this machine's interfaces, now.
pub(crate) fn local_ips() -> io::Result<Vec<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    let addresses = interfaces.filter_map(|interface| interface.address);
    let ips = addresses.filter_map(|address| {
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    Ok(ips.collect())
}

/// Raises the soft limit on open files to the hard one, if that is allowed; the limit that holds now.
pub(crate) fn raise_open_file_limit() -> u64 {
    /// What every system allows.
    const MINIMUM: u64 = 256;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return MINIMUM;
    };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            log::warn!("the limit on open files stays at {soft}: {error}");
            soft
        }
    }
}
