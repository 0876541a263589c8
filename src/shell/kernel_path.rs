//! Switches the kernel's path on and off, at start and with a reload, and says in the log which path serves.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use crossbeam_channel::bounded;
use parking_lot::Mutex;

use crate::config::{Config, InterfaceNames, KernelPath};
use crate::kernel::{self, Kernel, Opened, Watching};
use crate::operation::metrics::Metrics;
use crate::shell::event_channel::{Event, EventSender};

/// How long the event loop may take to give up the kernel's path.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is in force.
#[derive(Default)]
struct State {
    wanted: Option<(KernelPath, InterfaceNames)>,
    watching: Option<Watching>,
}

/// The switch. Only the threads that start and reload the server use it.
pub(crate) struct KernelSwitch {
    host: IpAddr,
    relay_ports: usize,
    state: Mutex<State>,
}

impl KernelSwitch {
    /// Off, for a server with these UDP sockets.
    pub(crate) fn new(host: IpAddr, relay_ports: usize) -> Self {
        Self { host, relay_ports, state: Mutex::default() }
    }

    /// Opens the path that a starting server is to have.
    ///
    /// # Errors
    /// If it is required and cannot be opened.
    pub(crate) fn open(&self, config: &Config) -> Result<Option<Opened>, String> {
        let wanted = (config.kernel_path, config.kernel_interfaces.clone());
        let opened = self.try_to_open(&wanted.0, &wanted.1);
        if opened.is_ok() {
            self.state.lock().wanted = Some(wanted);
        }
        opened
    }

    fn try_to_open(
        &self,
        wanted: &KernelPath,
        interfaces: &InterfaceNames,
    ) -> Result<Option<Opened>, String> {
        if *wanted == KernelPath::Off {
            // One that was killed may have left a program, on kernels before 6.6.
            kernel::clean_up();
            return Ok(None);
        }
        match (kernel::open(self.host, self.relay_ports, &interfaces.0), wanted) {
            (Ok(opened), _) => {
                log::info!("kernel's path: established pairs are forwarded at {}", opened.words);
                Ok(Some(opened))
            }
            (Err(why), KernelPath::Required) => Err(why),
            (Err(why), KernelPath::Off | KernelPath::Auto) => {
                log::warn!(
                    "the kernel's path cannot be used, and all datagrams take the way through the sockets: {why}"
                );
                Ok(None)
            }
        }
    }

    /// Starts to follow the machine's interfaces. Returns what the loop needs.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(crate) fn start(&self, opened: Opened, events: EventSender) -> io::Result<Box<dyn Kernel>> {
        let post = move |interfaces| events.post(Event::Interfaces(interfaces));
        let (kernel, watching) = Opened::watch(opened, post)?;
        self.state.lock().watching = Some(watching);
        Ok(kernel)
    }

    /// Puts the configuration in force while the server runs. No datagram is lost: what the kernel does not forward any
    /// more, or not yet, comes to the sockets.
    ///
    /// # Errors
    /// If the path is required and cannot be opened. Then the sockets serve.
    pub(crate) fn switch(
        &self,
        config: &Config,
        events: &EventSender,
        metrics: &Metrics,
    ) -> Result<(), String> {
        let wanted = (config.kernel_path, config.kernel_interfaces.clone());
        let is_same = self.state.lock().wanted.as_ref() == Some(&wanted);
        let is_open = self.state.lock().watching.is_some();
        // The loop gives up a path whose maps fail. Then it is opened anew.
        let is_used = is_open && metrics.kernel_path.value() == 1;
        if is_same && (is_used || wanted.0 == KernelPath::Off) {
            return Ok(());
        }
        self.end(events);
        let opened = self.try_to_open(&wanted.0, &wanted.1)?;
        if let Some(opened) = opened {
            let kernel = self.start(opened, events.clone()).map_err(|error| error.to_string())?;
            self.hand_to_loop(Some(kernel), events);
        } else if is_open {
            log::info!("kernel's path: off; all datagrams take the way through the sockets");
        }
        self.state.lock().wanted = Some(wanted);
        Ok(())
    }

    /// Ends the path: the loop first, so that the core hears of all that was forwarded, then the program.
    pub(crate) fn end(&self, events: &EventSender) {
        let watching = self.state.lock().watching.take();
        if watching.is_some() {
            self.hand_to_loop(None, events);
        }
    }

    fn hand_to_loop(&self, kernel: Option<Box<dyn Kernel>>, events: &EventSender) {
        let (done, is_done) = bounded(1);
        if events.post_within(Event::KernelPath(kernel, done), PATIENCE).is_ok() {
            let _ = is_done.recv_timeout(PATIENCE);
        }
    }
}
