//! The program itself on random frames, beside a plain model of it (`BPF_PROG_TEST_RUN`).

use std::net::{IpAddr, SocketAddr};

use aya::programs::TestRun;
use aya::{TestRunOptions, programs::SchedClassifier};
use fastrand::Rng;
use noray::core::relay::RelayPort;
use noray::kernel::Kernel;
use noray::kernel::layout::{PairState, Route, Sent, address_bytes};
use noray::kernel::program::{Hook, Machine, Program};

use crate::harness::ignore;
use crate::kernel_model::{Model, Verdict, has_right_checksum, set_checksum, sum};

/// How many frames are tried.
const FRAMES: usize = 1_000_000;

/// Long enough for any test, in nanoseconds.
const LONG: u64 = 3_600_000_000_000;

/// `TC_ACT_UNSPEC` and `TC_ACT_REDIRECT`.
const UP: u32 = u32::MAX;
const REDIRECT: u32 = 7;

const PAIRS: u32 = 12;
const FIRST_PORT: u16 = 20_000;

/// The program with its maps, and the model with the same.
struct Bench {
    program: Program,
    machine: Machine,
    model: Model,
    random: Rng,
    out: Vec<u8>,
}

pub(crate) fn the_program_does_what_the_model_says_on_a_million_frames() {
    let seed = std::env::var_os("NORAY_SEED")
        .and_then(|seed| seed.to_str()?.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    println!("NORAY_SEED={seed} replays this");
    let mut bench = Bench::new(seed);
    let mut forwarded = 0;
    for frame in 0..FRAMES {
        if frame % 5000 == 0 {
            bench.renew();
        }
        forwarded += usize::from(bench.try_one());
    }
    let sizes = bench.machine.sizes().unwrap();
    assert_eq!(sizes, bench.model.sizes, "seed {seed}");
    let share = 100 * forwarded / FRAMES;
    println!("{forwarded} of {FRAMES} frames were forwarded");
    assert!((15..85).contains(&share), "both verdicts are tried: {share} %");
}

pub(crate) fn nothing_passes_without_a_fresh_heartbeat() {
    let mut bench = Bench::new(1);
    bench.open();
    let frame = bench.valid_frame(0);
    let now = bench.machine.clock();
    for (age, verdict) in [(0, REDIRECT), (1_900_000_000, REDIRECT), (2_000_000_001, UP)] {
        bench.machine.beat(now - age).unwrap();
        assert_eq!(
            run(bench.program.classifier(), &frame, &mut bench.out, None).0,
            verdict,
            "{age}"
        );
    }
}

/// What a network card has put together of several datagrams would be charged as one.
pub(crate) fn several_datagrams_in_one_go_up() {
    let mut bench = Bench::new(2);
    bench.open();
    let frame = bench.valid_frame(0);
    for (gso_size, verdict) in [(0_u32, REDIRECT), (100, UP)] {
        // struct __sk_buff: gso_size is its 45th word (linux/bpf.h).
        let mut context = vec![0; 192];
        context[GSO_SIZE..GSO_SIZE + 4].copy_from_slice(&gso_size.to_ne_bytes());
        let result = run(bench.program.classifier(), &frame, &mut bench.out, Some(&context));
        assert_eq!(result.0, verdict, "{gso_size}");
    }
}

const GSO_SIZE: usize = 176;

impl Bench {
    fn new(seed: u64) -> Self {
        let loaded = Program::load(2 * PAIRS as usize, Hook::of_machine());
        let (mut program, maps) = loaded.unwrap_or_else(|error| {
            ignore(format!("the kernel does not load the program: {error}"))
        });
        // The tests that need only the program's maps never attach it.
        let _ = program.classifier();
        let machine = Machine::new(maps, "0.0.0.0".parse().unwrap()).unwrap();
        let mut model =
            Model { pairs: vec![PairState::default(); PAIRS as usize], ..Model::default() };
        model.sizes = machine.sizes().unwrap();
        Self { program, machine, model, random: Rng::with_seed(seed), out: vec![0; 66_000] }
    }

    /// New routes and states, the same in the kernel and in the model, with values that no frame brings near a border.
    fn renew(&mut self) {
        let now = self.machine.clock();
        self.machine.beat(now).unwrap();
        self.model.beat = now;
        let ours: [IpAddr; 3] =
            ["198.51.100.1", "198.51.100.2", "2001:db8::1"].map(|ip| ip.parse().unwrap());
        self.machine.set_addresses(&ours.into()).unwrap();
        self.model.addresses = ours.into_iter().map(address_bytes).collect();
        for slot in 0..PAIRS {
            let is_ipv4 = self.random.bool();
            let players = [self.player(is_ipv4), self.player(is_ipv4)];
            let state = self.state(now);
            self.set_pair(slot, state);
            for sender in [0, 1] {
                let via = if is_ipv4 { ours[self.random.usize(..2)] } else { ours[2] };
                let route = Route {
                    ttl: self.random.u8(1..),
                    interface: self.random.u32(1..100),
                    mtu: *self.choice(&[1500, 1500, 1280, 3000, 65_535]),
                    until: self.mostly(now + LONG, now),
                    patience: self.mostly(LONG, 1),
                    rate: *self.choice(&[u64::MAX, 131_072, 1 << 40, 1]),
                    burst: self.mostly(1000 * LONG, 1),
                    proof_interval: self.mostly(LONG, 1),
                    ..open_route(slot, sender, players, via, now)
                };
                self.set_route(route);
            }
        }
        if self.random.bool() {
            let port = FIRST_PORT + self.random.u16(..2 * PAIRS as u16);
            self.machine.remove_route(RelayPort(port)).unwrap();
            self.model.routes.remove(&port);
        }
    }

    /// One pair that may send whatever it likes.
    fn open(&mut self) {
        let now = self.machine.clock();
        self.machine.beat(now).unwrap();
        let ours = "198.51.100.1".parse().unwrap();
        self.machine.set_addresses(&[ours, "198.51.100.2".parse().unwrap()].into()).unwrap();
        let players = [self.player(true), self.player(true)];
        let sent = Sent { heard: now, proof_at: now, ..Sent::default() };
        self.set_pair(0, PairState { sent: [sent; 2], left: i64::MAX });
        for sender in [0, 1] {
            self.set_route(open_route(0, sender, players, ours, now));
        }
    }

    fn set_pair(&mut self, slot: u32, state: PairState) {
        self.machine.set_pair(slot, &state).unwrap();
        self.model.pairs[slot as usize] = state;
    }

    /// Where the route's receiver has its port.
    fn set_route(&mut self, route: Route) {
        let at = FIRST_PORT + 2 * route.slot as u16 + 1 - u16::from(route.sender);
        self.machine.set_route(RelayPort(at), &route).unwrap();
        self.model.routes.insert(at, route);
    }

    fn state(&mut self, now: u64) -> PairState {
        let sent = [0, 1].map(|_| Sent {
            full_at: *self.choice(&[0, now, now + LONG]),
            heard: now - self.random.u64(1..1_000_000_000),
            proof_at: now,
            proofs: self.random.u64(..9),
            datagrams: self.random.u64(..9),
            payload: self.random.u64(..9),
        });
        PairState { sent, left: *self.choice(&[i64::MAX, i64::MAX, 1_000_000, 0]) }
    }

    fn player(&mut self, is_ipv4: bool) -> SocketAddr {
        let number = self.random.u8(1..);
        let ip: IpAddr = if is_ipv4 {
            [203, 0, 113, number].into()
        } else {
            format!("2001:db8:1::{number:x}").parse().unwrap()
        };
        SocketAddr::new(ip, self.random.u16(1..))
    }

    fn mostly(&mut self, usual: u64, rare: u64) -> u64 {
        if self.random.u8(..8) == 0 { rare } else { usual }
    }

    fn choice<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.random.usize(..of.len())]
    }

    /// Has both handle a frame. Returns whether it was forwarded.
    fn try_one(&mut self) -> bool {
        let port = FIRST_PORT + self.random.u16(..2 * PAIRS as u16);
        let mut frame = self.valid_frame(port - FIRST_PORT);
        if self.random.bool() {
            self.spoil(&mut frame);
        }
        // The kernel runs the program only on frames with a whole IP header.
        let least = match frame[12..14] {
            [0x08, 0x00] => 34,
            [0x86, 0xdd] => 54,
            _ => 15,
        };
        frame.resize(frame.len().max(least), 0);
        let slot = u32::from(port - FIRST_PORT) / 2;
        let before = self.machine.clock();
        let (verdict, out) = run(self.program.classifier(), &frame, &mut self.out, None);
        let after = self.machine.clock();
        let state = self.machine.pair(slot).unwrap();
        // The moment at which the program looked at the clock, if it has written it down.
        let written = state.sent.iter().flat_map(|sent| [sent.heard, sent.proof_at]);
        let now = written.filter(|at| (before..=after).contains(at)).max().unwrap_or(before);
        let expected = self.model.handle_frame(&frame, now);
        let is_forwarded = match &expected {
            Verdict::Up => {
                assert_eq!(verdict, UP, "{frame:02x?}");
                assert!(out == frame, "what goes up is untouched: {frame:02x?}");
                false
            }
            Verdict::Forward { frame: expected, .. } => {
                assert_eq!(verdict, REDIRECT, "{frame:02x?}");
                assert!(out == *expected, "{out:02x?}\nnot {expected:02x?}\nof {frame:02x?}");
                let length = expected.len();
                let was_right = has_right_checksum(&frame[14..length]);
                assert_eq!(has_right_checksum(&out[14..]), was_right, "{frame:02x?}");
                assert!(out[14] >> 4 == 6 || sum(&out[14..34], 0) == 0xffff, "{out:02x?}");
                true
            }
        };
        assert_eq!(state, self.model.pairs[slot as usize], "{frame:02x?}");
        is_forwarded
    }

    /// A frame as the route at the port with this number wants it.
    fn valid_frame(&mut self, number: u16) -> Vec<u8> {
        let port = FIRST_PORT + number;
        let stranger = self.player(self.random.clone().bool());
        let from = self.model.routes.get(&port).map_or(stranger, |route| route.from);
        let payload = match self.random.u8(..8) {
            0 => self.random.usize(..=1500),
            // The kernel takes frames of less than a page here.
            1 => self.random.usize(..3400),
            2 => 0,
            _ => self.random.usize(..300),
        };
        let mut udp = [from.port().to_be_bytes(), port.to_be_bytes()].concat();
        udp.extend((8 + payload as u16).to_be_bytes());
        udp.extend([0; 2]);
        udp.extend(std::iter::repeat_with(|| self.random.u8(..)).take(payload));
        let mut frame = vec![0; 6];
        frame.extend([2, 0, 0, 0, 0, 1]);
        match from.ip() {
            IpAddr::V4(ip) => {
                frame.extend([8, 0]);
                let mut header = vec![0x45, self.random.u8(..)];
                header.extend((20 + udp.len() as u16).to_be_bytes());
                header.extend(self.random.u16(..).to_be_bytes());
                header.extend(if self.random.bool() { [0x40, 0] } else { [0, 0] });
                header.extend([self.random.u8(1..), 17, 0, 0]);
                header.extend(ip.octets());
                header.extend([198, 51, 100, self.random.u8(1..3)]);
                set_header_checksum(&mut header);
                frame.extend(header);
            }
            IpAddr::V6(ip) => {
                frame.extend([0x86, 0xdd]);
                frame.extend((0x6000_0000 | self.random.u32(..1 << 28)).to_be_bytes());
                frame.extend((udp.len() as u16).to_be_bytes());
                frame.extend([17, self.random.u8(1..)]);
                frame.extend(ip.octets());
                frame.extend("2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
            }
        }
        frame.extend(udp);
        set_checksum(&mut frame[14..]);
        // Ethernet fills short frames up.
        if frame.len() < 60 && self.random.bool() {
            frame.resize(60, self.random.u8(..));
        }
        frame
    }

    /// Makes one or two things wrong, as far as the frame is long enough.
    fn spoil(&mut self, frame: &mut Vec<u8>) {
        for _ in 0..self.random.usize(1..3) {
            let is_ipv4 = frame[12] == 8;
            let udp = if is_ipv4 { 34 } else { 54 };
            match self.random.u8(..16) {
                // Truncated, or longer than it says.
                0 => frame.truncate(self.random.usize(15..=frame.len())),
                1 => frame.extend(std::iter::repeat_n(self.random.u8(..), self.random.usize(..80))),
                // Another source, receiver or port.
                2 => self.change(frame, 26..udp),
                3 => self.change(frame, udp..udp + 4),
                // Wrong lengths.
                4 => self.change(frame, udp + 4..udp + 6),
                5 => self.change(frame, if is_ipv4 { 16..18 } else { 18..20 }),
                // Checksums: none, wrong, and a wrong one in the header.
                6 => self.fill(frame, udp + 6..udp + 8, 0),
                7 => self.change(frame, udp + 6..udp + 8),
                8 => self.change(frame, 24..26),
                // A fragment, the bit that must be zero, options, another protocol or version.
                9 if is_ipv4 => self.change_header(frame, 20..22),
                10 if is_ipv4 => self.change_header(frame, 14..15),
                11 => self.change_header(frame, if is_ipv4 { 23..24 } else { 20..21 }),
                12 => self.add_options(frame),
                // Tags, other types, frames to others.
                13 => tag(frame),
                14 => self.change(frame, 12..14),
                15 => self.change(frame, 0..6),
                _ => self.change(frame, 14..udp + 8),
            }
        }
    }

    /// Changes a byte in that range.
    fn change(&mut self, frame: &mut [u8], range: std::ops::Range<usize>) {
        if let Some(byte) = frame.get_mut(self.random.usize(range)) {
            *byte ^= 1 << self.random.u8(..8);
        }
    }

    fn fill(&mut self, frame: &mut [u8], range: std::ops::Range<usize>, value: u8) {
        if let Some(bytes) = frame.get_mut(range) {
            bytes.fill(value);
        }
    }

    /// The same in the IP header, whose checksum is right afterwards.
    fn change_header(&mut self, frame: &mut [u8], range: std::ops::Range<usize>) {
        self.change(frame, range);
        if frame[12] == 8
            && let Some(header) = frame.get_mut(14..34)
        {
            set_header_checksum(header);
        }
    }

    /// IPv4: a header with options. IPv6: an extension header before UDP.
    fn add_options(&mut self, frame: &mut Vec<u8>) {
        if frame.len() < 62 {
            return;
        }
        if frame[12] == 8 {
            frame.splice(34..34, [1, 1, 1, 1]);
            frame[14] = 0x46;
            set_header_checksum(&mut frame[14..34]);
        } else {
            frame.splice(54..54, [17, 0, 1, 4, 0, 0, 0, 0]);
            frame[20] = 0;
        }
    }
}

/// A route without a border that a frame could reach.
fn open_route(slot: u32, sender: usize, players: [SocketAddr; 2], via: IpAddr, now: u64) -> Route {
    Route {
        from: players[sender],
        to: players[1 - sender],
        via: SocketAddr::new(via, FIRST_PORT + 2 * slot as u16 + sender as u16),
        sender: sender as u8,
        ttl: 64,
        slot,
        interface: 1,
        mtu: 65_535,
        until: now + LONG,
        patience: LONG,
        rate: u64::MAX,
        burst: LONG,
        proof_interval: LONG,
    }
}

/// A VLAN's tag.
fn tag(frame: &mut Vec<u8>) {
    frame.splice(12..12, [0x81, 0, 0, 5]);
}

fn set_header_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let check = !(sum(header, 0) as u16);
    header[10..12].copy_from_slice(&check.to_be_bytes());
}

/// The program's verdict on a frame, and what it has made of it.
fn run<'a>(
    program: &SchedClassifier,
    frame: &[u8],
    out: &'a mut [u8],
    context: Option<&[u8]>,
) -> (u32, &'a [u8]) {
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(out),
        ctx_in: context,
        ..TestRunOptions::default()
    };
    let result = program.test_run(options).unwrap_or_else(|error| {
        panic!("the kernel does not run it: {error:?}: {} bytes, {frame:02x?}", frame.len())
    });
    (result.return_value, &out[..result.data_size_out as usize])
}
