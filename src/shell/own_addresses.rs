//! The addresses of the server's own UDP sockets, and the thread that reads them again while interfaces come and go.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::core::relay::OwnAddresses;
use crate::operation::os;

/// How often the machine's addresses are read. A new address can be the target of a relay until it is read.
const INTERVAL: Duration = Duration::from_secs(30);

/// The addresses of these sockets. Sockets that are bound to all addresses have all of the machine's current ones.
///
/// # Errors
/// If the kernel does not report the machine's addresses.
pub(crate) fn read(
    registrar: SocketAddr,
    relay_ports: impl IntoIterator<Item = u16>,
) -> io::Result<OwnAddresses> {
    let ports = relay_ports.into_iter().chain([registrar.port()]);
    if registrar.ip().is_unspecified() {
        Ok(OwnAddresses::new(os::local_ips()?, ports).and_loopback())
    } else {
        Ok(OwnAddresses::new([registrar.ip()], ports))
    }
}

/// The body of the thread: posts the addresses whenever they have changed, until the sender of `stop` is dropped or nobody
/// wants them any more.
pub(crate) fn watch<E>(
    read: impl FnMut() -> io::Result<OwnAddresses>,
    stop: &Receiver<Infallible>,
    post: impl FnMut(OwnAddresses) -> Result<(), E>,
) {
    watch_every(INTERVAL, read, stop, post);
}

fn watch_every<E>(
    interval: Duration,
    mut read: impl FnMut() -> io::Result<OwnAddresses>,
    stop: &Receiver<Infallible>,
    mut post: impl FnMut(OwnAddresses) -> Result<(), E>,
) {
    let mut known = None;
    while stop.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        match read() {
            Ok(own) if known.as_ref() != Some(&own) => {
                known = Some(own.clone());
                if post(own).is_err() {
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
    use std::net::IpAddr;

    use crossbeam_channel::bounded;

    use super::*;

    #[test]
    fn addresses_are_posted_when_they_change() {
        let machine = |ip: IpAddr| OwnAddresses::new([ip], [8809]);
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|ip| machine(ip.parse().unwrap()));
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
        watch_every(Duration::ZERO, read, &stop, |own| {
            posted.push(own);
            Ok::<(), &str>(())
        });
        assert_eq!(posted.iter().collect::<Vec<_>>(), [&one, &other, &one]);
    }

    #[test]
    fn the_thread_ends_with_the_loop() {
        let (_end, stop) = bounded(0);
        watch_every(Duration::ZERO, || Ok(OwnAddresses::default()), &stop, |_| Err("gone"));
    }
}
