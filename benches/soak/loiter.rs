//! Those who connect and then do nothing, until they are sent away.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::support::Line;

/// How many may wait.
const ROOM: usize = 100_000;

/// What the server allows, and some time to notice.
const LONGEST: Duration = Duration::from_secs(45);

/// Who loiters, one thread watches them leave.
#[derive(Clone)]
pub(crate) struct Place {
    door: SyncSender<Loiterer>,
    watch: Arc<Mutex<Option<JoinHandle<()>>>>,
}

struct Loiterer {
    line: Line,
    came: Instant,
    /// What it must hear in the end.
    ending: &'static str,
}

impl Place {
    pub(crate) fn open() -> Self {
        let (door, loiterers) = sync_channel(ROOM);
        let watch = std::thread::spawn(move || watch(&loiterers));
        Self { door, watch: Arc::new(Mutex::new(Some(watch))) }
    }

    /// Somebody connects, and perhaps sends half a line.
    pub(crate) fn send(&self, random: &mut Rng, ip: IpAddr) {
        let line = Line::connect_from(ip);
        let ending = if random.bool() {
            line.stream().write_all(b"register-ho").expect("noray reads");
            "error half-line"
        } else {
            "error unregistered"
        };
        let loiterer = Loiterer { line, came: Instant::now(), ending };
        self.door.send(loiterer).expect("there is room");
    }

    pub(crate) fn wait_until_all_are_sent_away(self) {
        let watch = self.watch.lock().expect("nobody panicked").take().expect("only once");
        drop(self.door);
        watch.join().expect("all were sent away as they should");
    }
}

fn watch(loiterers: &Receiver<Loiterer>) {
    for Loiterer { line, came, ending } in loiterers {
        line.stream().set_read_timeout(Some(LONGEST)).expect("a socket");
        let mut heard = String::new();
        line.stream().read_to_string(&mut heard).expect("it is closed in time");
        assert!(heard.starts_with(ending), "{heard} instead of {ending}");
        assert!(came.elapsed() < 2 * LONGEST, "{:?}", came.elapsed());
    }
}
