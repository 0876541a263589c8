//! The program in the kernel: loading it, attaching it to interfaces, and its maps.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use aya::programs::tc::{
    self, NlOptions, SchedClassifierLinkId, TcAttachOptions, TcAttachType, TcError,
};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfError, EbpfLoader, include_bytes_aligned};
use rustix::time::{ClockId, clock_gettime};

use crate::core::relay::RelayPort;

use super::api::{Egress, Kernel};
use super::interfaces::Interface;
use super::layout::{
    PAIR_BYTES, PairState, ROUTE_BYTES, Route, SIZE_CLASSES, address_bytes, port_key,
};
use super::netlink::Routing;

/// What clang has made of `forward.bpf.c`.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/forward.bpf.o"));

/// The program's name, also in the kernel.
pub const NAME: &str = "noray_forward";

/// How many addresses a machine may have. More are served by the sockets.
const ADDRESSES: u32 = 4096;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Since Linux 6.6: the program leaves with its process.
    Tcx,
    /// A filter of the queueing discipline `clsact`. It stays when its process is killed.
    Clsact,
}

impl Hook {
    /// The newest that this kernel has.
    pub fn of_machine() -> Self {
        let has_tcx = KernelVersion::current().is_ok_and(|is| is >= KernelVersion::new(6, 6, 0));
        if has_tcx { Self::Tcx } else { Self::Clsact }
    }
}

/// The loaded program and where it is attached. It is detached when this is dropped.
pub struct Program {
    ebpf: Ebpf,
    hook: Hook,
    /// By the number of the interface.
    links: BTreeMap<u32, SchedClassifierLinkId>,
}

impl Program {
    /// Loads the program, with room for so many relay ports.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn load(relay_ports: usize, hook: Hook) -> Result<(Self, Maps), EbpfError> {
        let ports = u32::try_from(relay_ports.max(1)).expect("there are at most 65536");
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .map_max_entries("routes", ports)
            .map_max_entries("pairs", ports.div_ceil(2))
            .map_max_entries("addresses", ADDRESSES)
            .load(OBJECT)?;
        let maps = Maps::take(&mut ebpf)?;
        let mut program = Self { ebpf, hook, links: BTreeMap::new() };
        program.classifier().load()?;
        Ok((program, maps))
    }

    /// The program itself, for tests that run it.
    pub fn classifier(&mut self) -> &mut SchedClassifier {
        let program = self.ebpf.program_mut(NAME).expect("the object has it");
        program.try_into().expect("it is of that type")
    }

    /// Attaches the program to the interfaces where it is not, and forgets those that are gone. What an earlier process
    /// left is removed. Returns where it could not be attached, and why.
    pub fn attach(&mut self, interfaces: &[Interface]) -> Vec<(String, String)> {
        let wanted: BTreeSet<u32> = interfaces.iter().map(|interface| interface.index).collect();
        let gone: Vec<u32> =
            self.links.keys().copied().filter(|index| !wanted.contains(index)).collect();
        for index in gone {
            let link = self.links.remove(&index).expect("it is there");
            // The kernel has detached it with the interface.
            let _ = self.classifier().detach(link);
        }
        let mut failed = Vec::new();
        for interface in interfaces {
            if self.links.contains_key(&interface.index) {
                continue;
            }
            match self.attach_to(&interface.name) {
                Ok(link) => {
                    self.links.insert(interface.index, link);
                }
                Err(error) => failed.push((interface.name.clone(), error.to_string())),
            }
        }
        failed
    }

    fn attach_to(&mut self, name: &str) -> Result<SchedClassifierLinkId, ProgramError> {
        remove_left_over(name);
        let options = match self.hook {
            // Behind all others, which may drop what they like.
            Hook::Tcx => TcAttachOptions::TcxOrder(LinkOrder::last()),
            Hook::Clsact => {
                // It fails if somebody else has added it, which is as good.
                let _ = tc::qdisc_add_clsact(name);
                TcAttachOptions::Netlink(NlOptions::default())
            }
        };
        self.classifier().attach_with_options(name, TcAttachType::Ingress, options)
    }

    /// The numbers of the interfaces to which it is attached.
    pub fn interfaces(&self) -> BTreeSet<u32> {
        self.links.keys().copied().collect()
    }

    /// How it is attached.
    pub fn hook(&self) -> Hook {
        self.hook
    }
}

/// Removes the filter that a killed process has left, which passes everything up by now.
pub fn remove_left_over(interface: &str) {
    match tc::qdisc_detach_program(interface, TcAttachType::Ingress, NAME) {
        Ok(()) => log::info!("{interface}: the program of an earlier noray is removed"),
        Err(TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => log::debug!("{interface}: no program of an earlier noray: {error}"),
    }
}

/// The program's maps.
pub struct Maps {
    routes: HashMap<MapData, [u8; 4], [u8; ROUTE_BYTES]>,
    pairs: Array<MapData, [u8; PAIR_BYTES]>,
    addresses: HashMap<MapData, [u8; 16], [u8; 4]>,
    heartbeat: Array<MapData, u64>,
    sizes: PerCpuArray<MapData, u64>,
}

impl Maps {
    fn take(ebpf: &mut Ebpf) -> Result<Self, MapError> {
        let mut take = |name: &str| -> Map { ebpf.take_map(name).expect("the object has it") };
        Ok(Self {
            routes: take("routes").try_into()?,
            pairs: take("pairs").try_into()?,
            addresses: take("addresses").try_into()?,
            heartbeat: take("heartbeat").try_into()?,
            sizes: take("sizes").try_into()?,
        })
    }
}

/// The maps and what is known of the machine's routes: all that the grants need.
pub struct Machine {
    maps: Maps,
    routing: Routing,
    /// The one address that the sockets are bound to.
    bound: Option<IpAddr>,
    interfaces: BTreeMap<u32, Interface>,
    addresses: BTreeSet<[u8; 16]>,
}

impl Machine {
    /// With sockets that are bound to `host`.
    ///
    /// # Errors
    /// If there is no netlink socket.
    pub fn new(maps: Maps, host: IpAddr) -> io::Result<Self> {
        Ok(Self {
            maps,
            routing: Routing::new()?,
            bound: (!host.is_unspecified()).then_some(host),
            interfaces: BTreeMap::new(),
            addresses: BTreeSet::new(),
        })
    }
}

impl Kernel for Machine {
    fn clock(&self) -> u64 {
        let now = clock_gettime(ClockId::Monotonic);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }

    fn beat(&mut self, now: u64) -> io::Result<()> {
        self.maps.heartbeat.set(0, now, 0).map_err(failed)
    }

    fn set_pair(&mut self, slot: u32, state: &PairState) -> io::Result<()> {
        self.maps.pairs.set(slot, state.to_bytes(), 0).map_err(failed)
    }

    fn pair(&self, slot: u32) -> io::Result<PairState> {
        self.maps.pairs.get(&slot, 0).map(|bytes| PairState::from_bytes(&bytes)).map_err(failed)
    }

    fn set_route(&mut self, port: RelayPort, route: &Route) -> io::Result<()> {
        self.maps.routes.insert(port_key(port.0), route.to_bytes(), 0).map_err(failed)
    }

    fn remove_route(&mut self, port: RelayPort) -> io::Result<()> {
        match self.maps.routes.remove(&port_key(port.0)) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    fn sizes(&self) -> io::Result<[u64; SIZE_CLASSES]> {
        let mut sizes = [0; SIZE_CLASSES];
        for (class, size) in (0..).zip(&mut sizes) {
            *size = self.maps.sizes.get(&class, 0).map_err(failed)?.iter().sum();
        }
        Ok(sizes)
    }

    fn egress(&self, to: SocketAddr) -> Option<Egress> {
        if let IpAddr::V6(ip) = to.ip()
            && ip.is_unicast_link_local()
        {
            return None;
        }
        let bound = self.bound.filter(|bound| bound.is_ipv4() == to.is_ipv4());
        let found = self.routing.route(to.ip(), bound).ok().flatten()?;
        let interface = self.interfaces.get(&found.interface)?;
        let ttl = if to.is_ipv4() { interface.ttl } else { interface.hop_limit };
        Some(Egress {
            via: bound.or(found.source)?,
            interface: interface.index,
            mtu: found.mtu.map_or(interface.mtu, |mtu| mtu.min(interface.mtu)),
            ttl: found.hop_limit.and_then(|limit| u8::try_from(limit).ok()).unwrap_or(ttl),
        })
    }

    fn set_interfaces(&mut self, interfaces: Vec<Interface>) {
        self.interfaces =
            interfaces.into_iter().map(|interface| (interface.index, interface)).collect();
    }

    fn set_addresses(&mut self, ips: &BTreeSet<IpAddr>) -> io::Result<()> {
        let ours = |ip: &&IpAddr| self.bound.is_none_or(|bound| bound == **ip);
        let wanted: BTreeSet<[u8; 16]> =
            ips.iter().filter(ours).copied().map(address_bytes).collect();
        for gone in self.addresses.difference(&wanted) {
            self.maps.addresses.remove(gone).map_err(failed)?;
        }
        for new in wanted.difference(&self.addresses) {
            self.maps.addresses.insert(new, 1_u32.to_ne_bytes(), 0).map_err(failed)?;
        }
        self.addresses = wanted;
        Ok(())
    }
}

fn failed(error: MapError) -> io::Error {
    io::Error::other(error)
}
