//! Opening the kernel's path, and the thread that follows the machine's interfaces.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use aya::util::KernelVersion;
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

use crate::operation::threads;

use super::api::Kernel;
use super::interfaces::{Interface, chosen};
use super::netlink::{Changes, Link, Routing};
use super::program::{Hook, Machine, Program, remove_left_over};
use super::requirements;

/// How long the thread waits at a time. So late it notices that it is to end.
const WAIT: Duration = Duration::from_millis(250);

/// The kinds of hardware whose frames have an Ethernet header (`ARPHRD_ETHER`, `ARPHRD_LOOPBACK`).
const ETHERNET: u16 = 1;
const LOOPBACK: u16 = 772;

/// The kernel's path, open but not yet used.
pub struct Opened {
    /// What the grants need.
    pub kernel: Box<dyn Kernel>,
    /// Where the program is attached, and how.
    pub words: String,
    watch: Watch,
}

/// What the thread needs.
struct Watch {
    program: Program,
    named: Vec<String>,
    routing: Routing,
    changes: Changes,
    known: Vec<Interface>,
}

/// The thread that follows the interfaces. When this is dropped, it ends, and the program is detached.
pub struct Watching {
    stop: Option<Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

/// Loads the program and attaches it to the `named` interfaces, or to all that are up and speak Ethernet.
///
/// # Errors
/// What is missing, and how to get it.
pub fn open(host: IpAddr, relay_ports: usize, named: &[String]) -> Result<Opened, String> {
    let version = KernelVersion::current().map_err(|error| error.to_string())?;
    if version < KernelVersion::new(5, 15, 0) {
        return Err("this kernel is older than Linux 5.15, which has all that is needed".to_owned());
    }
    let (mut program, maps) = Program::load(relay_ports, Hook::of_machine())
        .map_err(|error| requirements::explain(&error))?;
    let netlink = |error: io::Error| format!("the kernel does not tell its interfaces: {error}");
    let changes = Changes::new(WAIT).map_err(netlink)?;
    let routing = Routing::new().map_err(netlink)?;
    let known = interfaces(&routing).map_err(netlink)?;
    if let Some(missing) = named.iter().find(|name| !known.iter().any(|link| link.name == **name)) {
        log::warn!(
            "NORAY_KERNEL_INTERFACES: there is no interface {missing}; it is used as soon as there is"
        );
    }
    let chosen = chosen(&known, named);
    let failed = program.attach(&chosen);
    let mut machine = Machine::new(maps, host).map_err(netlink)?;
    machine.set_interfaces(known.clone());
    if chosen.len() == failed.len() {
        return Err(match failed.first() {
            Some((name, why)) => format!("the program cannot be attached to {name}: {why}"),
            None => "no interface is up and speaks Ethernet; NORAY_KERNEL_INTERFACES names them"
                .to_owned(),
        });
    }
    warn_of(&failed);
    let names: Vec<&str> = chosen.iter().map(|interface| interface.name.as_str()).collect();
    let words = format!("{} ({:?})", names.join(", "), program.hook());
    let watch = Watch { program, named: named.to_vec(), routing, changes, known };
    Ok(Opened { kernel: Box::new(machine), words, watch })
}

/// Removes what a killed process has left on any interface. Nobody's traffic depends on it any more.
pub fn clean_up() {
    if let Ok(links) = Routing::new().and_then(|routing| routing.links()) {
        links
            .iter()
            .filter(|link| link.kind == ETHERNET)
            .for_each(|link| remove_left_over(&link.name));
    }
}

fn warn_of(failed: &[(String, String)]) {
    for (name, why) in failed {
        log::warn!(
            "the kernel's path cannot be attached to {name}: {why}; what comes there takes the way through the sockets"
        );
    }
}

impl Opened {
    /// Starts the thread. It passes on which interfaces there are whenever interfaces, addresses or routes have changed,
    /// until that fails.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn watch<E>(
        watch: Self,
        post: impl Fn(Vec<Interface>) -> Result<(), E> + Send + 'static,
    ) -> io::Result<(Box<dyn Kernel>, Watching)> {
        let Self { kernel, mut watch, .. } = watch;
        let (stop, is_stopped) = bounded(0);
        let body = move || watch.run(&is_stopped, post);
        let thread = threads::spawn_vital_with_low_priority("kernel-path", body)?;
        Ok((kernel, Watching { stop: Some(stop), thread: Some(thread) }))
    }
}

impl Watch {
    fn run<E>(
        &mut self,
        is_stopped: &Receiver<Infallible>,
        post: impl Fn(Vec<Interface>) -> Result<(), E>,
    ) {
        while is_stopped.try_recv() == Err(TryRecvError::Empty) {
            if !self.changes.wait() {
                continue;
            }
            match interfaces(&self.routing) {
                Ok(now) => self.follow(now),
                Err(error) => log::debug!("the kernel does not tell its interfaces: {error}"),
            }
            if post(self.known.clone()).is_err() {
                return;
            }
        }
    }

    fn follow(&mut self, now: Vec<Interface>) {
        if now == self.known {
            return;
        }
        let before = self.program.interfaces();
        warn_of(&self.program.attach(&chosen(&now, &self.named)));
        let after = self.program.interfaces();
        let names = |indices: BTreeSet<u32>, of: &[Interface]| {
            let is_there = |interface: &&Interface| indices.contains(&interface.index);
            of.iter().filter(is_there).map(|interface| interface.name.clone()).collect::<Vec<_>>()
        };
        for name in names(&after - &before, &now) {
            log::info!("the kernel's path: now at {name}, too");
        }
        for name in names(&before - &after, &self.known) {
            log::info!("the kernel's path: no more at {name}");
        }
        self.known = now;
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // If it has panicked, the process ends anyway.
            let _ = thread.join();
        }
    }
}

fn interfaces(routing: &Routing) -> io::Result<Vec<Interface>> {
    let of_link = |link: Link| Interface {
        index: link.index,
        mtu: link.mtu,
        ttl: setting("ipv4/ip_default_ttl"),
        hop_limit: setting(&format!("ipv6/conf/{}/hop_limit", link.name)),
        is_suitable: link.is_up && link.kind == ETHERNET,
        is_loopback: link.kind == LOOPBACK,
        name: link.name,
    };
    Ok(routing.links()?.into_iter().map(of_link).collect())
}

/// A time to live from the machine's settings. 64 is what Linux has where nobody changed it.
fn setting(name: &str) -> u8 {
    let text = std::fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap_or_default();
    text.trim().parse().unwrap_or(64)
}
