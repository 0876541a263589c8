//! Plays no part of noray: an internet of Linux network namespaces, with routers of every kind between the players.
//!
//! ```text
//!     server ---+                       +--- host
//!               |                       |
//!     forger ---+-- internet -- router -+--- host      the routers' rules are nftables, mappings are conntrack's
//!               |                                      the internet is one bridge: every public address is on-link
//!       host ---+-- carrier -- router ------ host
//! ```
//!
//! Namespaces have no names. Only file descriptors of this process hold them, so they vanish with it however it
//! ends, and labs of tests that run side by side cannot meet.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part of this")]

mod namespace;
mod rules;

use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use namespace::Namespace;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use rules::{
    FILTER, FIRST_HOST, GENERATIONS, Heir, firewall, host_ports, mapping_rules, one_to_one_rules,
    public_ips,
};
use socket2::{Domain, Socket, Type};

use crate::harness::ignore;
pub use crate::support::process::{Running, ends_with_this_thread};

/// The port that routers treat apart: [`Router::Symmetric`] never gives it the external port of another
/// destination, [`Router::SeveralIps`] sends there from an IP of its own.
pub const REGISTRAR_PORT: u16 = 8809;

/// What lies between a player and the internet, in the terms of RFC 4787.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Router {
    /// Public addresses, no translation and no filter.
    None,
    /// Endpoint-independent mapping, address- and port-dependent filtering: what homes have.
    Home,
    /// Endpoint-independent mapping and filtering: whoever knows the external port gets in.
    FullCone,
    /// Address- and port-dependent mapping and filtering: every destination sees another external port.
    Symmetric,
    /// [`Router::Symmetric`] at home, and behind the carrier's.
    CarrierGrade,
    /// A carrier with arbitrary pooling (RFC 4787, section 4.1): UDP to [`REGISTRAR_PORT`] leaves from one public
    /// IP, other UDP from another. Address- and port-dependent otherwise.
    SeveralIps,
}

impl Router {
    /// Those that are played against each other, in the order of the matrix.
    pub const ALL: [Self; 5] =
        [Self::None, Self::Home, Self::FullCone, Self::Symmetric, Self::CarrierGrade];

    /// A word for tables.
    pub fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Home => "home",
            Self::FullCone => "full-cone",
            Self::Symmetric => "symmetric",
            Self::CarrierGrade => "carrier",
            Self::SeveralIps => "several-ips",
        }
    }
}

/// A new lab. Where none can be built, the test is ignored.
pub fn lab() -> Lab {
    Lab::available().unwrap_or_else(|reason| ignore(reason));
    Lab::new()
}

/// An internet with one server. Its routers live as long as it does; a machine as long as its [`Host`], its sockets
/// or its processes.
pub struct Lab {
    internet: Arc<Switch>,
    routers: Mutex<Vec<Arc<Switch>>>,
    /// At 203.0.113.10 and 2001:db8::10.
    pub server: Host,
    forger: Host,
}

impl Lab {
    /// # Errors
    /// The reason why no lab can be built here.
    pub fn available() -> Result<(), String> {
        static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
        ANSWER.get_or_init(Self::try_what_is_needed).clone()
    }

    fn try_what_is_needed() -> Result<(), String> {
        let refused = |error| format!("only root can make network namespaces: {error}");
        let namespace = Namespace::new().map_err(refused)?;
        namespace.ip("link add br0 type bridge\nlink add p1 type veth peer name wan\n")?;
        namespace.nft(&format!("{FILTER}{}", mapping_rules(Router::FullCone, 1, 0, None)))?;
        namespace.flush_conntrack().map_err(|error| format!("no conntrack: {error}"))
    }

    /// # Panics
    /// Where [`Lab::available`] says no.
    pub fn new() -> Self {
        stay_on_one_processor();
        let internet = Arc::new(Switch::new(Namespace::new().unwrap(), "203.0.113", 10));
        let (server, forger) = (internet.dual_stack_host(), internet.dual_stack_host());
        Self { internet, routers: Mutex::default(), server, forger }
    }

    /// Adds a router with public addresses and a LAN of its own.
    pub fn lan(&self, router: Router) -> Lan {
        let generation = AtomicU16::new(0);
        if router == Router::None {
            return Lan { router, switch: self.internet.clone(), outermost: None, generation };
        }
        let is_carrier = router == Router::CarrierGrade;
        let network = if is_carrier { "100.64" } else { "192.168" };
        let (outermost, number) = self.internet.router(router, network);
        let outermost = Arc::new(outermost);
        let switch = if is_carrier {
            Arc::new(outermost.router(Router::Symmetric, "192.168").0)
        } else {
            outermost.clone()
        };
        self.routers.lock().unwrap().extend([outermost.clone(), switch.clone()]);
        Lan { router, switch, outermost: Some((outermost, number)), generation }
    }

    /// A machine with a public IPv6 address and no IPv4.
    pub fn ipv6_host(&self) -> Host {
        let (namespace, number) = (Namespace::new().unwrap(), self.internet.next_number());
        self.internet.plug(&namespace, number, &ipv6_setup(number));
        Host { namespace, address: ipv6(number).into() }
    }

    /// A machine with a public address of each family.
    pub fn dual_stack_host(&self) -> Host {
        self.internet.dual_stack_host()
    }

    /// Sends a UDP datagram whose source is a lie, from a machine on the internet.
    pub fn spoof(&self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        self.forger.enter(|| {
            let socket = Socket::new(Domain::for_address(from), Type::DGRAM, None).unwrap();
            if from.is_ipv4() {
                socket.set_ip_transparent_v4(true).unwrap();
            } else {
                socket.set_ip_transparent_v6(true).unwrap();
            }
            socket.bind(&from.into()).unwrap();
            socket.send_to(payload, &to.into()).expect("the internet takes it");
        });
    }
}

/// Keeps this thread, and the threads and processes that it starts, on one processor.
///
/// Two datagrams that open the same flow on two processors at once can get two mappings from conntrack: the second
/// finds the port taken by the first. That can happen in real routers too, but is not what a test should wait for.
fn stay_on_one_processor() {
    let this_thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(this_thread).unwrap();
    let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap());
    let mut one = CpuSet::new();
    one.set(first.expect("a processor")).unwrap();
    sched_setaffinity(this_thread, &one).unwrap();
}

/// A router and who is behind it.
pub struct Lan {
    router: Router,
    /// Where hosts plug in.
    switch: Arc<Switch>,
    /// The router with the public addresses, and the number of its place on the internet.
    outermost: Option<(Arc<Switch>, u8)>,
    /// How often the router has forgotten its mappings. Each generation has external ports of its own.
    generation: AtomicU16,
}

impl Lan {
    /// Adds a machine. Behind a router its sockets get ports that no neighbour has, unless they ask for one.
    pub fn host(&self) -> Host {
        let host = self.switch.ipv4_host();
        if self.outermost.is_some() {
            let IpAddr::V4(address) = host.address else { unreachable!("a LAN is IPv4") };
            let ports = host_ports(0, address.octets()[3]);
            let range = format!("{} {}", ports.start(), ports.end());
            host.enter(|| fs::write("/proc/sys/net/ipv4/ip_local_port_range", range)).unwrap();
        }
        host
    }

    /// What the internet sees of the hosts. Empty for [`Router::None`].
    pub fn public_ips(&self) -> Vec<IpAddr> {
        let Some((_, number)) = self.outermost else { return Vec::new() };
        let [first, second] = public_ips(number).map(IpAddr::from);
        if self.router == Router::SeveralIps { vec![first, second] } else { vec![first] }
    }

    /// The router loses its mappings and gives other external ports from now on, as after a reboot. With
    /// [`Router::CarrierGrade`] it is the carrier's. What comes to an old port is dropped silently.
    ///
    /// TCP goes on from the same ports as soon as the inside says something.
    ///
    /// # Panics
    /// After three times, for want of unused ports, and for [`Router::None`].
    pub fn forget_mappings(&self) {
        self.map_anew(None);
    }

    /// The router loses its mappings, and `thief`'s UDP leaves from `port` from now on. Everybody else gets
    /// other ports. Towards one destination the thief can use one socket only.
    ///
    /// # Panics
    /// As [`Lan::forget_mappings`], and for routers whose outermost part does not see the thief's own address.
    pub fn let_inherit(&self, thief: &Host, port: u16) {
        let is_simple = [Router::Home, Router::FullCone, Router::Symmetric].contains(&self.router);
        assert!(is_simple, "nobody can inherit behind {:?}", self.router);
        self.map_anew(Some(Heir { ip: thief.address, port }));
    }

    /// From now on the router's public address is that machine's, with all ports, as at providers whose machines have only
    /// private addresses. Returns the public address.
    pub fn map_one_to_one(&self, machine: &Host) -> IpAddr {
        let public = self.public_ips()[0];
        self.outermost().nft(&one_to_one_rules(public, machine.address)).unwrap();
        public
    }

    /// The router's line to the internet breaks.
    pub fn cut_line(&self) {
        self.outermost().ip("link set wan down\n").unwrap();
    }

    /// The router takes nothing from the internet any more and does not say so, as if its line ended far away.
    pub fn fall_silent(&self) {
        let nothing = "table netdev silence {\n\
                       chain inbound {\n\
                       type filter hook ingress device wan priority 0; policy drop;\n\
                       meta protocol arp accept\n\
                       }\n\
                       }\n";
        self.outermost().nft(nothing).unwrap();
    }

    fn outermost(&self) -> &Namespace {
        &self.outermost.as_ref().expect("a router").0.namespace
    }

    fn map_anew(&self, heir: Option<Heir>) {
        let (router, number) = self.outermost.as_ref().expect("a router that maps");
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(generation < GENERATIONS, "no unused ports are left");
        // In this order: a datagram between the two would bring the old port back.
        router.namespace.nft(&mapping_rules(self.router, *number, generation, heir)).unwrap();
        router.namespace.flush_conntrack().unwrap();
    }
}

/// A machine with one interface.
pub struct Host {
    namespace: Namespace,
    address: IpAddr,
}

impl Host {
    /// Its own address, which others see only if no router is between.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Runs `action` on this thread, inside the machine. Sockets opened there stay there, wherever they are used.
    /// Threads and processes started there are there too.
    pub fn enter<T>(&self, action: impl FnOnce() -> T) -> T {
        self.namespace.enter(action)
    }

    /// Puts up a stateful firewall in place of the one before, which lets in what `open` accepts: nft's rules.
    pub fn let_in_only(&self, open: &str) {
        self.namespace.nft(&firewall(open)).unwrap();
    }

    /// Adds rules of nftables to those that the machine has.
    pub fn nft(&self, rules: &str) {
        self.namespace.nft(rules).unwrap();
    }

    /// Changes the machine's interfaces, addresses and routes by commands of `ip`, one a line.
    pub fn ip(&self, commands: &str) {
        self.namespace.ip(commands).unwrap();
    }

    /// What the machine's kernel counted, by the names of /proc/net/snmp.
    ///
    /// # Panics
    /// If it counts no such thing.
    pub fn counted(&self, protocol: &str, name: &str) -> u64 {
        let text = self.enter(|| fs::read_to_string("/proc/thread-self/net/snmp")).unwrap();
        let mut rows =
            text.lines().filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(": "));
        let (names, values) = (rows.next().expect("the protocol"), rows.next().unwrap());
        let mut columns = names.split(' ').zip(values.split(' '));
        columns.find(|(column, _)| *column == name).expect("the name").1.parse().unwrap()
    }

    /// Makes a router of the machine, with these rules of nftables instead of any it had.
    ///
    /// # Errors
    /// What `nft` says, also if the kernel lacks what the rules need.
    pub fn route(&self, rules: &str) -> Result<(), String> {
        self.enter(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1")).unwrap();
        self.namespace.nft(&format!("flush ruleset\n{rules}"))
    }

    /// Starts a process on the machine. See [`ends_with_this_thread`].
    pub fn spawn(&self, mut command: Command) -> Running {
        Running(self.enter(|| command.spawn()).unwrap_or_else(|e| panic!("{command:?}: {e}")))
    }
}

/// A bridge in a namespace, where machines and routers plug in: the internet, or the inside of a router.
struct Switch {
    namespace: Namespace,
    /// The first three bytes of the addresses.
    network: String,
    /// The internet has none: there every address is on-link.
    gateway: Option<String>,
    /// The last byte of the next address.
    next: AtomicU8,
}

impl Switch {
    fn new(namespace: Namespace, network: &str, first: u8) -> Self {
        // Without a MAC address of its own the bridge takes its ports' lowest, and another when that port goes:
        // then the machines behind it would look for their gateway at the old one.
        namespace
            .ip("link set lo up\n\
                link add br0 address 02:00:00:00:00:01 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
                link set br0 up\n")
            .unwrap();
        Self { namespace, network: network.to_owned(), gateway: None, next: AtomicU8::new(first) }
    }

    /// A router that plugs in here, as the switch of its inside, and its number.
    fn router(&self, kind: Router, inside: &str) -> (Self, u8) {
        let number = self.next_number();
        let network = format!("{inside}.{number}");
        let gateway = format!("{network}.1");
        let router = Self::new(Namespace::new().unwrap(), &network, FIRST_HOST);
        let router = Self { gateway: Some(gateway.clone()), ..router };
        let mut setup = format!("addr add {gateway}/24 dev br0\n{}", self.ipv4_setup(number));
        if kind == Router::SeveralIps {
            setup.push_str(&format!("addr add {}/32 dev wan\n", public_ips(number)[1]));
        }
        self.plug(&router.namespace, number, &setup);
        router.namespace.nft(&format!("{FILTER}{}", mapping_rules(kind, number, 0, None))).unwrap();
        let forward = || fs::write("/proc/sys/net/ipv4/ip_forward", "1");
        router.namespace.enter(forward).unwrap();
        (router, number)
    }

    fn ipv4_host(&self) -> Host {
        let (namespace, number) = (Namespace::new().unwrap(), self.next_number());
        self.plug(&namespace, number, &self.ipv4_setup(number));
        Host { namespace, address: self.ipv4(number) }
    }

    fn dual_stack_host(&self) -> Host {
        let (namespace, number) = (Namespace::new().unwrap(), self.next_number());
        self.plug(&namespace, number, &(self.ipv4_setup(number) + &ipv6_setup(number)));
        Host { namespace, address: self.ipv4(number) }
    }

    fn next_number(&self) -> u8 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        assert!(number < 250, "the switch is full");
        number
    }

    fn ipv4(&self, number: u8) -> IpAddr {
        format!("{}.{number}", self.network).parse().unwrap()
    }

    fn ipv4_setup(&self, number: u8) -> String {
        let way = self.gateway.as_ref().map_or("dev wan".to_owned(), |ip| format!("via {ip}"));
        format!("addr add {}/24 dev wan\nroute add default {way}\n", self.ipv4(number))
    }

    fn plug(&self, node: &Namespace, number: u8, setup: &str) {
        let peer = node.path();
        let port = format!(
            "link add p{number} type veth peer name wan netns {peer}\n\
             link set p{number} master br0 up\n"
        );
        self.namespace.ip(&port).unwrap();
        node.ip(&format!("link set lo up\nlink set wan up\n{setup}")).unwrap();
    }
}

/// The number's decimal digits end the address, as in the IPv4 address beside it.
fn ipv6(number: u8) -> Ipv6Addr {
    format!("2001:db8::{number}").parse().unwrap()
}

fn ipv6_setup(number: u8) -> String {
    format!("addr add {}/64 dev wan nodad\nroute add ::/0 dev wan\n", ipv6(number))
}
