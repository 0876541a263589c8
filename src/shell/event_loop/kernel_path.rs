//! The event loop's part of the kernel's path: it lets the grants and the core hear of each other at the right moments.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{EventLoop, LoopTask};
use crate::core::relay::RelayPort;
use crate::kernel::grants::TICK;
use crate::kernel::interfaces::Interface;
use crate::kernel::{Grants, Kernel};

impl EventLoop {
    /// From now on the kernel forwards what the core offers; with `None`, nothing any more.
    pub(crate) fn set_kernel_path(&mut self, kernel: Option<Box<dyn Kernel>>) {
        self.withdraw_from_kernel();
        let ports = self.sockets.relay_ports();
        self.grants = kernel.map(|kernel| Grants::new(kernel, ports, self.now));
        self.metrics.kernel_path.set(usize::from(self.grants.is_some()));
        self.set_kernel_addresses(&self.core.own_ips().collect());
        self.watch_for_standing_still();
    }

    /// The machine has these IPs now.
    pub(super) fn set_kernel_addresses(&mut self, ips: &BTreeSet<IpAddr>) {
        if let Some(grants) = &mut self.grants {
            grants.set_addresses(ips);
        }
    }

    /// The machine's interfaces are these, or its routes have changed.
    pub(super) fn handle_machine_change(&mut self, interfaces: Vec<Interface>) {
        if let Some(grants) = &mut self.grants {
            grants.handle_machine_change(interfaces, &mut self.core, self.now);
        }
    }

    /// Begins a turn.
    pub(super) fn begin_kernel_turn(&mut self) {
        if let Some(grants) = &mut self.grants {
            grants.begin_turn(&mut self.core, self.now);
        }
    }

    /// Before the core handles what may concern any pair.
    pub(super) fn refresh_from_kernel(&mut self) {
        if let Some(grants) = &mut self.grants
            && grants.refresh(&mut self.core, self.now)
        {
            self.count_kernel_traffic();
        }
    }

    /// The kernel forwards nothing any more until the next tick, and the core knows of all that it did forward.
    pub(super) fn withdraw_from_kernel(&mut self) {
        if let Some(grants) = &mut self.grants {
            grants.withdraw_all(&mut self.core, self.now);
            self.count_kernel_traffic();
        }
    }

    /// The pair that has this port may have changed.
    pub(super) fn check_grant(&mut self, at: RelayPort) {
        if let Some(grants) = &mut self.grants {
            grants.check(at, &mut self.core, self.now);
        }
    }

    /// A pair is closed.
    pub(super) fn close_grant(&mut self, ports: [RelayPort; 2]) {
        if let Some(grants) = &mut self.grants {
            grants.close(ports, &mut self.core, self.now);
        }
    }

    pub(super) fn tick_kernel_path(&mut self) {
        let Some(grants) = &mut self.grants else { return };
        grants.tick(&mut self.core, self.now);
        if let Some(failure) = grants.take_failure() {
            log::warn!(
                "the kernel's path ends, because one of its maps failed: {failure}; all datagrams take the way through the \
                 sockets until the next reload"
            );
            self.set_kernel_path(None);
            return;
        }
        self.count_kernel_traffic();
        self.watch_for_standing_still();
    }

    fn count_kernel_traffic(&mut self) {
        let Some(grants) = &mut self.grants else { return };
        let tally = grants.take_tally();
        let metrics = &self.metrics;
        metrics.kernel_pairs.set(grants.len());
        metrics.kernel_datagrams.add_as_only_writer(tally.datagrams);
        metrics.relay_datagrams.add_as_only_writer(tally.datagrams);
        metrics.relay_bytes.add_as_only_writer(tally.payload);
        metrics.relay_size.add(&tally.sizes, tally.payload);
    }

    /// While there are pairs, the kernel's path has a tick.
    pub(super) fn watch_kernel_path(&mut self) {
        if self.grants.is_some() {
            self.deadlines.set_earlier(LoopTask::KernelPath, self.now + TICK);
        }
    }
}
