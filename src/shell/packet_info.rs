//! Reads datagrams with the address of this machine at which they arrived (`IP_PKTINFO` in ip(7), `IPV6_RECVPKTINFO` in
//! ipv6(7)). A socket that is bound to every address does not tell it otherwise.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use mio::net::UdpSocket;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};

/// Asks the kernel to tell where datagrams arrive.
///
/// # Errors
/// If it does not.
pub(crate) fn enable(socket: &std::net::UdpSocket, is_ipv6: bool) -> io::Result<()> {
    if is_ipv6 {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    Ok(())
}

/// One datagram in a buffer.
pub(crate) struct Datagram {
    pub(crate) length: usize,
    pub(crate) source: SocketAddr,
    /// The address of this machine that it was sent to.
    pub(crate) arrived_at: Option<IpAddr>,
}

/// Reads one datagram.
///
/// # Errors
/// `WouldBlock` if there is none; else an error of this socket.
pub(crate) fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Datagram> {
    let mut slices = [IoSliceMut::new(buffer)];
    let mut control = nix::cmsg_space!(nix::libc::in6_pktinfo);
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::empty(),
    )?;
    let source = message.address.and_then(|address| to_std(&address));
    let source = source.ok_or_else(|| io::Error::other("a datagram without a source"))?;
    let arrived_at = message.cmsgs().ok().and_then(|mut all| all.find_map(address_in));
    Ok(Datagram { length: message.bytes, source, arrived_at })
}

fn to_std(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}

/// The address in a control message, if it is one of those that [`enable`] asks for.
#[expect(clippy::wildcard_enum_match_arm, reason = "the kernel sends nothing else unasked")]
fn address_in(message: ControlMessageOwned) -> Option<IpAddr> {
    match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into())
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).to_canonical())
        }
        _ => None,
    }
}
