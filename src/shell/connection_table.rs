//! The table of connections, shared by the threads that accept connections, change the caps and write the metrics.
//!
//! The event loop never takes its lock: marking a connection as registered and dropping its permit change only atomics.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::limits::admission::{Admission, AdmissionSnapshot, Caps, Permit};
use crate::limits::bounds::Bound;
use crate::operation::clock;
use crate::operation::metrics::{Metrics, Table};
use crate::time::{RunningTime, Timestamp};

/// The table of connections behind a lock.
pub(crate) struct ConnectionTable {
    timed: Mutex<Timed>,
    metrics: Arc<Metrics>,
}

/// The admission with its clock. Nobody admits anybody while the process stands still, so all time counts.
struct Timed {
    admission: Admission,
    time: RunningTime,
}

impl Timed {
    fn now(&mut self) -> Timestamp {
        self.time.advance(clock::now(), Duration::MAX)
    }
}

impl ConnectionTable {
    pub(crate) fn new(caps: Caps, metrics: Arc<Metrics>) -> Self {
        metrics.max_connections.set(caps.connections);
        let timed = Timed { admission: Admission::new(caps), time: RunningTime::new(clock::now()) };
        Self { timed: Mutex::new(timed), metrics }
    }

    /// Counts a connection that another process has admitted.
    pub(crate) fn adopt(&self, ip: IpAddr) -> Permit {
        self.timed.lock().admission.adopt(ip.into())
    }

    /// What another process needs to go on, beside the connections.
    pub(crate) fn snapshot(&self) -> AdmissionSnapshot {
        let mut timed = self.timed.lock();
        let now = timed.now();
        timed.admission.snapshot(now)
    }

    /// Goes on with a snapshot.
    pub(crate) fn restore(&self, snapshot: AdmissionSnapshot) {
        let mut timed = self.timed.lock();
        timed.time = RunningTime::go_on(clock::now(), snapshot.now);
        timed.admission.restore(snapshot);
    }

    /// Replaces the caps. Players that are connected stay.
    pub(crate) fn set_caps(&self, caps: Caps) {
        self.timed.lock().admission.set_caps(caps);
        self.metrics.max_connections.set(caps.connections);
    }

    /// Admits one more connection from `ip`, or counts that it was refused.
    ///
    /// # Errors
    /// The bound that is reached. Call this from one thread only: it is the only writer of the counters.
    pub(crate) fn admit(&self, ip: IpAddr) -> Result<Permit, Bound> {
        let mut timed = self.timed.lock();
        let now = timed.now();
        let admitted = timed.admission.admit(ip.into(), now);
        drop(timed);
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
        let admission = &mut self.timed.lock().admission;
        admission.forget_networks();
        self.metrics.tcp_connections.set(admission.connections());
        self.metrics.table_entries.of(Table::ConnectedNetworks).set(admission.networks());
    }
}
