//! The IPs of the server's own sockets, and the thread that reads them again while interfaces come and go.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::operation::os;

/// How often the machine's IPs are read. A new one can be the target of a relay until it is read.
const INTERVAL: Duration = Duration::from_secs(30);

/// The IPs of sockets that are bound to `host`: if that is unspecified, all that the machine has now.
///
/// # Errors
/// If the kernel does not report the machine's IPs.
pub(crate) fn read(host: IpAddr) -> io::Result<BTreeSet<IpAddr>> {
    if host.is_unspecified() {
        Ok(os::local_ips()?.into_iter().collect())
    } else {
        Ok(BTreeSet::from([host]))
    }
}

/// The body of the thread: posts the IPs whenever they have changed, until the sender of `stop` is dropped or nobody
/// wants them any more.
pub(crate) fn watch<E>(
    read: impl FnMut() -> io::Result<BTreeSet<IpAddr>>,
    stop: &Receiver<Infallible>,
    post: impl FnMut(BTreeSet<IpAddr>) -> Result<(), E>,
) {
    watch_every(INTERVAL, read, stop, post);
}

fn watch_every<E>(
    interval: Duration,
    mut read: impl FnMut() -> io::Result<BTreeSet<IpAddr>>,
    stop: &Receiver<Infallible>,
    mut post: impl FnMut(BTreeSet<IpAddr>) -> Result<(), E>,
) {
    let mut known = None;
    while stop.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        match read() {
            Ok(ips) if known.as_ref() != Some(&ips) => {
                known = Some(ips.clone());
                if post(ips).is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => log::debug!("cannot read the machine's addresses: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;

    #[test]
    fn ips_are_posted_when_they_change() {
        let [one, other] =
            ["192.0.2.1", "192.0.2.2"].map(|ip| BTreeSet::from([ip.parse().unwrap()]));
        let readings = [Some(&one), Some(&one), None, Some(&other), Some(&other), Some(&one)];
        let mut readings = readings.into_iter();
        let (end, stop) = bounded(0);
        let mut end = Some(end);
        let mut posted = Vec::new();
        let read = || {
            let reading = readings.next().expect("nothing is read after the end");
            if readings.len() == 0 {
                end = None;
            }
            reading.cloned().ok_or(io::ErrorKind::Other.into())
        };
        watch_every(Duration::ZERO, read, &stop, |ips| {
            posted.push(ips);
            Ok::<(), &str>(())
        });
        assert_eq!(posted.iter().collect::<Vec<_>>(), [&one, &other, &one]);
    }

    #[test]
    fn the_thread_ends_with_the_loop() {
        let (_end, stop) = bounded(0);
        watch_every(Duration::ZERO, || Ok(BTreeSet::new()), &stop, |_| Err("gone"));
    }
}
