//! The table of connections, shared by the threads that accept connections, change the caps and write the metrics.
//!
//! The event loop never takes its lock: marking a connection as registered and dropping its permit change only atomics.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::limits::admission::{Admission, AdmissionSnapshot, Caps, Permit};
use crate::limits::bounds::Bound;
use crate::operation::metrics::{Metrics, Table};
use crate::time::Timestamp;

/// The table of connections behind a lock.
pub(crate) struct ConnectionTable {
    admission: Mutex<Admission>,
    metrics: Arc<Metrics>,
}

impl ConnectionTable {
    pub(crate) fn new(caps: Caps, metrics: Arc<Metrics>) -> Self {
        metrics.max_connections.set(caps.connections);
        Self { admission: Mutex::new(Admission::new(caps)), metrics }
    }

    /// Counts a connection that another process has admitted.
    pub(crate) fn adopt(&self, ip: IpAddr) -> Permit {
        self.admission.lock().adopt(ip.into())
    }

    /// What another process needs to go on, beside the connections.
    pub(crate) fn snapshot(&self) -> AdmissionSnapshot {
        self.admission.lock().snapshot()
    }

    /// Goes on with a snapshot.
    pub(crate) fn restore(&self, snapshot: AdmissionSnapshot) {
        self.admission.lock().restore(snapshot);
    }

    /// Replaces the caps. Players that are connected stay.
    pub(crate) fn set_caps(&self, caps: Caps) {
        self.admission.lock().set_caps(caps);
        self.metrics.max_connections.set(caps.connections);
    }

    /// Admits one more connection from `ip`, or counts that it was refused.
    ///
    /// # Errors
    /// The bound that is reached. Call this from one thread only: it is the only writer of the counters.
    pub(crate) fn admit(&self, ip: IpAddr, now: Timestamp) -> Result<Permit, Bound> {
        let admitted = self.admission.lock().admit(ip.into(), now);
        if let Err(bound) = admitted {
            self.metrics.connections_refused.add_as_only_writer(1);
            self.metrics.bounds_reached.of(bound).add_as_only_writer(1);
        }
        admitted
    }

    /// Counts a connection that was refused because the server drains. Call this from the same thread.
    pub(crate) fn record_late(&self) {
        self.metrics.connections_refused.add_as_only_writer(1);
    }

    /// Writes the current levels to the metrics. Call this before the metrics are read.
    pub(crate) fn record_levels(&self) {
        let mut admission = self.admission.lock();
        admission.forget_networks();
        self.metrics.tcp_connections.set(admission.connections());
        self.metrics.table_entries.of(Table::ConnectedNetworks).set(admission.networks());
    }
}
