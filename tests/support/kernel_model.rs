//! A plain model of the program in `src/kernel/forward.bpf.c`: the same verdicts, and the same bytes out.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part of this")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use noray::kernel::layout::{PairState, Route, SIZE_CLASSES, address_bytes};

const SECOND: u64 = 1_000_000_000;
const ETHERNET: usize = 14;

/// What becomes of a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes up, as it came.
    Up,
    /// It leaves at that interface like this.
    Forward { interface: u32, frame: Vec<u8> },
}

/// What of a datagram decides where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub from: (IpAddr, u16),
    pub at: (IpAddr, u16),
    /// Of the whole IP packet.
    pub length: usize,
    pub payload: usize,
}

/// The maps.
#[derive(Debug, Default)]
pub struct Model {
    pub beat: u64,
    pub routes: BTreeMap<u16, Route>,
    pub pairs: Vec<PairState>,
    pub addresses: BTreeSet<[u8; 16]>,
    pub sizes: [u64; SIZE_CLASSES],
}

impl Model {
    /// Handles a frame to this machine, at that time.
    pub fn handle_frame(&mut self, frame: &[u8], now: u64) -> Verdict {
        let Some(parsed) = Parsed::of(frame) else { return Verdict::Up };
        match self.handle(&parsed.arrival, now) {
            Some(route) => Verdict::Forward {
                interface: route.interface,
                frame: parsed.rewritten(frame, &route),
            },
            None => Verdict::Up,
        }
    }

    /// Charges and counts a datagram that may pass. Returns its route.
    pub fn handle(&mut self, arrival: &Arrival, now: u64) -> Option<Route> {
        if now.saturating_sub(self.beat) > 2 * SECOND {
            return None;
        }
        let route = self.routes.get(&arrival.at.1)?;
        let is_exact = (route.from.ip(), route.from.port()) == arrival.from;
        let is_ours = self.addresses.contains(&address_bytes(arrival.at.0));
        if !is_exact || !is_ours || arrival.length > route.mtu as usize || now >= route.until {
            return None;
        }
        let pair = self.pairs.get_mut(route.slot as usize)?;
        let [sender, receiver] = [route.sender, 1 - route.sender].map(usize::from);
        if now as i64 - pair.sent[receiver].heard as i64 >= route.patience as i64 {
            return None;
        }
        let cost = arrival.payload as i64 + 28;
        if pair.left < cost {
            return None;
        }
        let sent = &mut pair.sent[sender];
        if now as i64 - sent.proof_at as i64 >= route.proof_interval as i64 {
            sent.proof_at = now;
            sent.proofs += 1;
            return None;
        }
        if sent.full_at.saturating_sub(now) >= route.burst {
            return None;
        }
        let nanos = (cost as u64 * SECOND).div_ceil(route.rate);
        sent.full_at = sent.full_at.max(now) + nanos;
        sent.heard = now;
        sent.datagrams += 1;
        sent.payload += arrival.payload as u64;
        pair.left -= cost;
        self.sizes[class(arrival.payload)] += 1;
        Some(route.clone())
    }
}

/// The bounds are those of the metric `noray_relay_size`.
fn class(payload: usize) -> usize {
    [32, 64, 128, 256, 512, 1024, 1472, 4096, 16_384, 65_536]
        .iter()
        .position(|bound| payload <= *bound)
        .expect("no datagram is larger")
}

/// A frame that the program understands.
struct Parsed {
    is_ipv4: bool,
    arrival: Arrival,
}

impl Parsed {
    fn of(frame: &[u8]) -> Option<Self> {
        let packet = frame.get(ETHERNET..)?;
        // The test's interface has this address. Frames to others are not for this machine.
        if frame[..6] != [0; 6] {
            return None;
        }
        match frame[12..14] {
            [0x08, 0x00] => Self::of_ipv4(packet),
            [0x86, 0xdd] => Self::of_ipv6(packet),
            _ => None,
        }
    }

    fn of_ipv4(packet: &[u8]) -> Option<Self> {
        let (ip, udp) = packet.get(..28)?.split_at(20);
        let (length, of_udp) = (word(ip, 2), word(udp, 4));
        let is_whole = word(ip, 6) & !0x4000 == 0;
        let is_plain = ip[0] == 0x45 && ip[9] == 17 && is_whole && sum(ip, 0) == 0xffff;
        let is_right = of_udp >= 8 && length == 20 + of_udp && packet.len() >= length;
        if !is_plain || !is_right || word(udp, 6) == 0 {
            return None;
        }
        let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).unwrap());
        let arrival = Arrival {
            from: (address(12), word(udp, 0) as u16),
            at: (address(16), word(udp, 2) as u16),
            length,
            payload: of_udp - 8,
        };
        Some(Self { is_ipv4: true, arrival })
    }

    fn of_ipv6(packet: &[u8]) -> Option<Self> {
        let (ip, udp) = packet.get(..48)?.split_at(40);
        let of_udp = word(udp, 4);
        let is_plain = ip[0] >> 4 == 6 && ip[6] == 17 && word(ip, 4) == of_udp;
        if !is_plain || of_udp < 8 || packet.len() < 40 + of_udp || word(udp, 6) == 0 {
            return None;
        }
        let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap());
        let arrival = Arrival {
            from: (address(8), word(udp, 0) as u16),
            at: (address(24), word(udp, 2) as u16),
            length: 40 + of_udp,
            payload: of_udp - 8,
        };
        Some(Self { is_ipv4: false, arrival })
    }

    fn rewritten(&self, frame: &[u8], route: &Route) -> Vec<u8> {
        let mut frame = frame[..ETHERNET + self.arrival.length].to_vec();
        let packet = &mut frame[ETHERNET..];
        let before = pseudo(packet);
        let [via, to] = [route.via, route.to].map(|end| match end.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        });
        let addresses = [via, to].concat();
        let header = if self.is_ipv4 {
            packet[1] = 0;
            packet[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
            packet[8] = route.ttl;
            packet[10..12].fill(0);
            packet[12..20].copy_from_slice(&addresses);
            let check = !(sum(&packet[..20], 0) as u16);
            packet[10..12].copy_from_slice(&check.to_be_bytes());
            20
        } else {
            packet[..4].copy_from_slice(&[0x60, 0, 0, 0]);
            packet[7] = route.ttl;
            packet[8..40].copy_from_slice(&addresses);
            40
        };
        packet[header..header + 2].copy_from_slice(&route.via.port().to_be_bytes());
        packet[header + 2..header + 4].copy_from_slice(&route.to.port().to_be_bytes());
        let after = pseudo(packet);
        // RFC 1624: HC' = ~(~HC + ~m + m').
        let check = u32::from(!(word(packet, header + 6) as u16));
        let check = !(fold(check + u32::from(!before) + u32::from(after)));
        let check = if check == 0 { 0xffff } else { check };
        packet[header + 6..header + 8].copy_from_slice(&check.to_be_bytes());
        frame
    }
}

/// Whether the UDP checksum of a packet without Ethernet header is right.
pub fn has_right_checksum(packet: &[u8]) -> bool {
    let header = if packet[0] >> 4 == 4 { 20 } else { 40 };
    let addresses = if header == 20 { &packet[12..20] } else { &packet[8..40] };
    let udp = &packet[header..];
    sum(udp, sum(addresses, 17 + udp.len() as u32)) == 0xffff
}

/// The right UDP checksum of a packet without Ethernet header.
pub fn set_checksum(packet: &mut [u8]) {
    let header = if packet[0] >> 4 == 4 { 20 } else { 40 };
    packet[header + 6..header + 8].fill(0);
    let addresses = if header == 20 { &packet[12..20] } else { &packet[8..40] };
    let udp = &packet[header..];
    let check = !(sum(udp, sum(addresses, 17 + udp.len() as u32)) as u16);
    let check = if check == 0 { 0xffff } else { check };
    packet[header + 6..header + 8].copy_from_slice(&check.to_be_bytes());
}

/// The sum of what the program changes: addresses and ports.
fn pseudo(packet: &[u8]) -> u16 {
    let is_ipv4 = packet[0] >> 4 == 4;
    let (addresses, header) = if is_ipv4 { (&packet[12..20], 20) } else { (&packet[8..40], 40) };
    sum(&packet[header..header + 4], sum(addresses, 0)) as u16
}

/// The Internet checksum's sum (RFC 1071), folded.
pub fn sum(bytes: &[u8], start: u32) -> u32 {
    let words = bytes.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => unreachable!("chunks of two"),
    });
    u32::from(fold(words.fold(start, |sum, word| u32::from(fold(sum)) + word)))
}

fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}
