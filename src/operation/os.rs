//! What the server asks of the operating system, besides sockets and files: random bytes, environment variables, priorities,
//! the machine's addresses, the limit on open files.

use std::io;
use std::net::IpAddr;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::core::id::Random;

/// The kernel's random source, read in larger pieces than ids need.
#[derive(Default)]
pub struct KernelRandom {
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

/// The value of a variable that another program sets for this process, such as systemd; no configuration.
#[expect(
    clippy::disallowed_methods,
    reason = "what systemd tells this process is no configuration"
)]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Has the kernel make room for `count` open files at once, as far as that is allowed.
///
/// This costs nothing while the process has one thread. Later the kernel waits for all processors each time the table
/// doubles: 46 ms in all for 2,049 relay ports.
pub fn make_room_for_files(count: usize) {
    if let Ok(highest) = i32::try_from(count.saturating_sub(1)) {
        // It is closed at once, but the table does not shrink. If this fails, the table grows later, as usual.
        let _ = rustix::io::fcntl_dupfd_cloexec(io::stderr(), highest);
    }
}

/// How much lower the priority of players' and requests' threads is, as nice(1) counts. So the loop runs before hundreds of
/// them that have something to do at once. Without this, a thousand connections a second with 100 commands each delayed
/// datagrams by 50 ms to 3.7 s.
const NICENESS: i32 = 15;

/// Lowers the priority of this thread, and so of those that it starts.
pub fn step_back() {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        log::warn!(
            "the threads of players cannot step back behind the relay: {error}; allow setpriority, under systemd with \
             `SystemCallFilter=setpriority`"
        );
    }
}

/// The addresses of this machine's interfaces, now. The kernel may make the caller wait while interfaces change.
///
/// # Errors
/// If the kernel does not report them.
pub fn local_ips() -> io::Result<Vec<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    let addresses = interfaces.filter_map(|interface| interface.address);
    let ips = addresses.filter_map(|address| {
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    Ok(ips.collect())
}

/// Raises the soft limit on open files to the hard one, if that is allowed. Returns the limit that holds now.
pub fn raise_open_file_limit() -> u64 {
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::core::id::{Alphabet, OpenIdScheme};

    /// How far the counts are from what the same probability for each of `size` values would give, in standard
    /// deviations: Pearson's chi-square, made normal as Wilson and Hilferty do.
    fn deviation<T>(counts: &HashMap<T, u32>, size: usize) -> f64 {
        let drawn: u32 = counts.values().sum();
        let expected = f64::from(drawn) / size as f64;
        let of_count = |count: f64| (count - expected).powi(2) / expected;
        let never_drawn = (size - counts.len()) as f64 * of_count(0.0);
        let chi_square =
            never_drawn + counts.values().map(|count| of_count(f64::from(*count))).sum::<f64>();
        let freedom = (size - 1) as f64;
        let variance = 2.0 / (9.0 * freedom);
        ((chi_square / freedom).cbrt() - (1.0 - variance)) / variance.sqrt()
    }

    fn count<T: Eq + std::hash::Hash>(values: impl IntoIterator<Item = T>) -> HashMap<T, u32> {
        let mut counts = HashMap::new();
        values.into_iter().for_each(|value| *counts.entry(value).or_default() += 1);
        counts
    }

    /// By chance once in a thousand million runs.
    const TOO_FAR: f64 = 6.0;

    const DRAWS: usize = 200_000;

    #[test]
    fn ids_are_drawn_without_bias() {
        let printable: String = ('!'..='~').collect();
        for size in [2, 3, 10, 26, 62, 64, 65, 94] {
            let alphabet: Alphabet = printable[..size].parse().unwrap();
            let text = alphabet.sample(DRAWS, &mut KernelRandom::default());
            let deviation = deviation(&count(text.bytes()), size);
            assert!(deviation.abs() < TOO_FAR, "{size} characters: {deviation}");
        }
        let words = OpenIdScheme::words(String::new(), 1);
        let mut random = KernelRandom::default();
        let ids = (0..DRAWS).map(|_| words.sample(&mut random).as_str().to_owned());
        let deviation = deviation(&count(ids), 7772);
        assert!(deviation.abs() < TOO_FAR, "words: {deviation}");
    }

    #[test]
    fn successive_characters_do_not_depend_on_each_other() {
        let alphabet: Alphabet = "0123456789abcdefghijklmnopqrstuv".parse().unwrap();
        let text = alphabet.sample(2 * DRAWS, &mut KernelRandom::default());
        let pairs = text.as_bytes().chunks_exact(2);
        let deviation = deviation(&count(pairs), 32 * 32);
        assert!(deviation.abs() < TOO_FAR, "{deviation}");
    }

    #[test]
    fn a_bias_as_of_a_remainder_would_be_seen() {
        let mut bytes = vec![0; DRAWS];
        KernelRandom::default().fill(&mut bytes);
        let biased = count(bytes.iter().map(|byte| byte % 94));
        assert!(deviation(&biased, 94) > TOO_FAR);
        // One of 64 characters a quarter too often, another too seldom.
        let spoilt = bytes.iter().map(|byte| if *byte == 65 { 0 } else { byte % 64 });
        assert!(deviation(&count(spoilt), 64) > TOO_FAR);
    }
}
