//! Netlink messages to and from the kernel's routing (rtnetlink(7)), as bytes.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

/// A route to one machine beyond this one. Others lead to this machine itself, to many, or nowhere.
const RTN_UNICAST: u8 = 1;

/// Link, and addresses and routes of both families (`RTMGRP_*`).
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// Larger than any message that is asked for here; a dump comes in parts of at most 32 KiB.
const BUFFER: usize = 64 * 1024;

/// An interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mtu: u32,
    pub(super) is_up: bool,
    /// The kind of its hardware: `ARPHRD_*`.
    pub(super) kind: u16,
}

/// A route to one destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) interface: u32,
    /// The source address that the kernel chooses.
    pub(super) source: Option<IpAddr>,
    /// The path's MTU and hop limit, if they are not the interface's.
    pub(super) mtu: Option<u32>,
    pub(super) hop_limit: Option<u32>,
}

/// A socket for questions.
pub(super) struct Routing(OwnedFd);

impl Routing {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(open()?))
    }

    /// The route to a destination; `None` if there is none that leads to one other machine.
    pub(super) fn route(&self, to: IpAddr, from: Option<IpAddr>) -> io::Result<Option<Found>> {
        let (family, bits) = match to {
            IpAddr::V4(_) => (AddressFamily::Inet as u8, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6 as u8, 128),
        };
        // struct rtmsg: the destination's and the source's length in bits behind the family.
        let mut body = vec![family, bits, if from.is_some() { bits } else { 0 }];
        body.extend([0; 9]);
        add_attribute(&mut body, RTA_DST, &octets(to));
        if let Some(from) = from {
            add_attribute(&mut body, RTA_SRC, &octets(from));
        }
        ask(&self.0, RTM_GETROUTE, 0, &body)?;
        let mut buffer = vec![0; BUFFER];
        let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut messages = Messages(&buffer[..length]);
        match messages.next() {
            Some((RTM_NEWROUTE, body)) => Ok(read_route(body)),
            Some(_) | None => Ok(None),
        }
    }

    /// All interfaces.
    pub(super) fn links(&self) -> io::Result<Vec<Link>> {
        // struct ifinfomsg.
        ask(&self.0, RTM_GETLINK, NLM_F_DUMP, &[0; 16])?;
        let mut links = Vec::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            for (kind, body) in Messages(&buffer[..length]) {
                match kind {
                    NLMSG_DONE => return Ok(links),
                    NLMSG_ERROR => return Err(io::ErrorKind::Other.into()),
                    RTM_NEWLINK => links.extend(read_link(body)),
                    _ => {}
                }
            }
        }
    }
}

/// A socket that hears when interfaces, addresses or routes change.
pub(super) struct Changes(OwnedFd);

impl Changes {
    /// Waits at most `patience` at a time.
    pub(super) fn new(patience: Duration) -> io::Result<Self> {
        let socket = open()?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        let millis = i64::try_from(patience.as_millis()).unwrap_or(i64::MAX);
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(millis))?;
        Ok(Self(socket))
    }

    /// Waits for changes; whether there were some. If so, all that were reported are read.
    pub(super) fn wait(&self) -> bool {
        let mut buffer = vec![0; BUFFER];
        let mut flags = MsgFlags::empty();
        let mut has_changed = false;
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, flags) {
                Ok(_) => has_changed = true,
                // More has changed than the kernel could keep for us.
                Err(nix::errno::Errno::ENOBUFS) => has_changed = true,
                Err(_) => return has_changed,
            }
            flags = MsgFlags::MSG_DONTWAIT;
        }
    }
}

fn open() -> io::Result<OwnedFd> {
    let protocol = SockProtocol::NetlinkRoute;
    Ok(socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?)
}

fn ask(socket: &OwnedFd, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    // struct nlmsghdr: length, type, flags, sequence, sender.
    let length = u32::try_from(16 + body.len()).expect("a short message");
    let mut message = Vec::from(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    send(socket.as_raw_fd(), &message, MsgFlags::empty())?;
    Ok(())
}

const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTAX_MTU: u16 = 2;
const RTAX_HOPLIMIT: u16 = 10;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;

fn add_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("a short attribute");
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn read_route(body: &[u8]) -> Option<Found> {
    let (head, attributes) = body.split_at_checked(12)?;
    if head[7] != RTN_UNICAST {
        return None;
    }
    let mut found = Found::default();
    for (kind, value) in Attributes(attributes) {
        match kind {
            RTA_OIF => found.interface = number(value)?,
            RTA_PREFSRC => found.source = address(value),
            RTA_METRICS => {
                for (kind, value) in Attributes(value) {
                    match kind {
                        RTAX_MTU => found.mtu = number(value),
                        RTAX_HOPLIMIT => found.hop_limit = number(value),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(found)
}

fn read_link(body: &[u8]) -> Option<Link> {
    const IFF_UP: u32 = 1;
    // struct ifinfomsg: family, filling, kind, index, flags, changes.
    let (head, attributes) = body.split_at_checked(16)?;
    let kind = u16::from_ne_bytes([head[2], head[3]]);
    let (index, flags) = (number(&head[4..8])?, number(&head[8..12])?);
    let mut link = Link { index, name: String::new(), mtu: 0, is_up: flags & IFF_UP != 0, kind };
    for (kind, value) in Attributes(attributes) {
        match kind {
            IFLA_IFNAME => {
                let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
                link.name = String::from_utf8_lossy(name).into_owned();
            }
            IFLA_MTU => link.mtu = number(value)?,
            _ => {}
        }
    }
    Some(link)
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let of_ipv4 = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from).or_else(of_ipv4)
}

/// The types and bodies of messages in one answer.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = number(self.0)? as usize;
        let kind = u16::from_ne_bytes([*self.0.get(4)?, *self.0.get(5)?]);
        let body = self.0.get(16..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    }
}

/// The types and values of attributes.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [l0, l1, k0, k1, ..] = *self.0 else { return None };
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([k0, k1]), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_there_and_leads_nowhere_else() {
        let routing = Routing::new().unwrap();
        let links = routing.links().unwrap();
        let loopback = links.iter().find(|link| link.name == "lo").unwrap();
        assert_eq!((loopback.index, loopback.kind), (1, 772));
        assert_eq!(routing.route("127.0.0.1".parse().unwrap(), None).unwrap(), None);
    }

    #[test]
    fn a_route_is_read_with_its_metrics() {
        let mut metrics = Vec::new();
        add_attribute(&mut metrics, RTAX_MTU, &1400_u32.to_ne_bytes());
        add_attribute(&mut metrics, RTAX_HOPLIMIT, &9_u32.to_ne_bytes());
        let mut body = vec![0; 12];
        body[7] = RTN_UNICAST;
        add_attribute(&mut body, RTA_OIF, &3_u32.to_ne_bytes());
        add_attribute(&mut body, RTA_PREFSRC, &[192, 0, 2, 1]);
        add_attribute(&mut body, RTA_METRICS, &metrics);
        let source = Some("192.0.2.1".parse().unwrap());
        let expected = Found { interface: 3, source, mtu: Some(1400), hop_limit: Some(9) };
        assert_eq!(read_route(&body), Some(expected));
        body[7] = 2;
        assert_eq!(read_route(&body), None, "a route to this machine itself");
    }
}
