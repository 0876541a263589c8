//! What the server asks of the operating system besides sockets: random bytes, environment variables, priorities, the
//! process's user, the machine's addresses, the limit on open files, numbers in `/proc`.

use std::io;
use std::net::IpAddr;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::geteuid;

use crate::core::id::Random;

/// The kernel's random source. It is read 1 KiB at a time, which is more than an id needs.
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

/// An environment variable that another program, such as systemd, sets for this process. It is no configuration.
#[expect(
    clippy::disallowed_methods,
    reason = "what systemd tells this process is no configuration"
)]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Who this process is: the user's id, and the name if /etc/passwd has it. (Other sources of names need shared libraries,
/// which a static binary has not.)
pub(crate) fn user() -> String {
    let id = geteuid().to_string();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = accounts.lines().find_map(|account| {
        let mut fields = account.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then_some(name)
    });
    name.map_or(format!("user id {id}"), |name| format!("user {name} (id {id})"))
}

/// The machine's name, as hostname(1) shows it.
pub(crate) fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Lets the kernel grow the process's table of files to `count`, as far as the limit allows.
///
/// This costs nothing while the process has one thread. Later, the kernel waits for all processors each time the table
/// doubles: 46 ms in all for 2,049 relay ports.
pub(crate) fn grow_file_table(count: usize) {
    if let Ok(highest) = i32::try_from(count.saturating_sub(1)) {
        // The copy of stderr is closed at once, but the table does not shrink. If this fails, the table grows later.
        let _ = rustix::io::fcntl_dupfd_cloexec(io::stderr(), highest);
    }
}

/// How much lower the priority of players' and requests' threads is, in nice(1)'s unit. So the event loop runs first, even
/// if hundreds of them have something to do. Without this, a thousand connections a second with 100 commands each delayed
/// datagrams by 50 ms to 3.7 s.
const NICENESS: i32 = 15;

/// Lowers the priority of this thread, and of those that it starts from now on.
pub(crate) fn lower_priority() {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        log::warn!(
            "cannot lower the priority of players' threads, so they may delay relays: {error}; allow setpriority, under \
             systemd with `SystemCallFilter=setpriority`"
        );
    }
}

/// The addresses that this machine's interfaces have now. The kernel may make the caller wait while interfaces change.
///
/// # Errors
/// If the kernel does not report them.
pub(crate) fn local_ips() -> io::Result<Vec<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    let addresses = interfaces.filter_map(|interface| interface.address);
    let ips = addresses.filter_map(|address| {
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    Ok(ips.collect())
}

/// The first number after `key`, which begins a line, in a text such as that of `/proc/meminfo`.
pub(crate) fn number_after(key: &str, text: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// How many files this process may have open.
pub(crate) fn open_file_limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

/// Raises the soft limit on open files to the hard one, if that is allowed. Returns the limit that holds now.
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::core::id::{Alphabet, OpenIdScheme};

    /// How far the counts deviate from an equal probability of each of `size` values, in standard deviations: Pearson's
    /// chi-square, made normal by the formula of Wilson and Hilferty.
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

    /// Chance alone exceeds this once in a thousand million runs.
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
    fn a_biased_sample_is_noticed() {
        let mut bytes = vec![0; DRAWS];
        KernelRandom::default().fill(&mut bytes);
        let biased = count(bytes.iter().map(|byte| byte % 94));
        assert!(deviation(&biased, 94) > TOO_FAR);
        // One of 64 characters a quarter too often, another too seldom.
        let spoilt = bytes.iter().map(|byte| if *byte == 65 { 0 } else { byte % 64 });
        assert!(deviation(&count(spoilt), 64) > TOO_FAR);
    }
}
