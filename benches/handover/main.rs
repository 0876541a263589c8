//! How long a handover takes: `cargo bench --bench handover`.
//!
//! A player sends a datagram every millisecond through a relay. The longest time between two that arrive
//! while the program is executed anew is what a game may notice: from the last datagram of the old process to the first
//! of the new one. None may be lost.

#![expect(clippy::disallowed_methods, reason = "a bench takes the time")]

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::{IP, Player, WIDE, connect_relay, prepare_machine, start_noray_at};

const ROUNDS: usize = 15;

/// How often the player sends.
const TICK: Duration = Duration::from_millis(1);

fn main() {
    prepare_machine();
    println!("the longest pause of a game in a handover, {ROUNDS} handovers each");
    println!("{:<44} {:>9} {:>9} {:>6}", "", "median", "longest", "lost");
    // A limit of 20,000 open files allows little more than the last line.
    for (ports, players) in [(2049, 0), (2049, 1000), (10_001, 7000)] {
        handovers(ports, players);
    }
}

fn handovers(ports: u16, players: usize) {
    let name = std::env::temp_dir().join(format!("noray-bench-{}", std::process::id()));
    fs::copy(env!("CARGO_BIN_EXE_noray"), &name).expect("a copy of the program");
    let range = format!("NORAY_UDP_RELAY_PORTS=49152-{}", 49_151 + u32::from(ports));
    let settings = [&WIDE[..], &["NORAY_MAX_CONNECTIONS=12000", &range]].concat();
    let (noray, _) = start_noray_at(IP, &name, &settings);
    let mut all: Vec<Player> = (0..players).map(|_| Player::join()).collect();
    for pair in all.chunks_exact_mut(2) {
        let [client, host] = pair else { unreachable!("two") };
        connect_relay(client, host);
    }
    let (mut client, mut host) = (Player::join(), Player::join());
    let [to_host, to_client] = connect_relay(&mut client, &mut host);
    let (longest, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut pauses = Vec::new();
    let (sent, heard) = thread::scope(|scope| {
        let sending = scope.spawn(|| send(&client, to_host, &is_over));
        let hearing = scope.spawn(|| hear(&host, to_client, &longest));
        thread::sleep(Duration::from_millis(300));
        for _ in 0..ROUNDS {
            replace(&name);
            longest.store(0, Ordering::Relaxed);
            let pid = noray.0.id().to_string();
            let reload = Command::new(&name).args(["reload", "--pid", &pid]).status();
            assert!(reload.expect("it runs").success());
            thread::sleep(Duration::from_millis(100));
            pauses.push(Duration::from_nanos(longest.load(Ordering::Relaxed)));
        }
        is_over.store(true, Ordering::Relaxed);
        (sending.join().expect("it sends"), hearing.join().expect("it hears"))
    });
    pauses.sort_unstable();
    let what = format!("{ports} ports, {players} players, {} pairs", players / 2 + 1);
    let [median, most] = [pauses[ROUNDS / 2], pauses[ROUNDS - 1]].map(|p| p.as_secs_f64() * 1e3);
    println!("{what:<44} {median:>6.1} ms {most:>6.1} ms {:>6}", sent - heard);
    drop(noray);
    // It is only a copy.
    let _ = fs::remove_file(&name);
}

/// Another file with the same program.
fn replace(name: &Path) {
    let next = name.with_extension("next");
    fs::copy(env!("CARGO_BIN_EXE_noray"), &next).expect("a copy of the program");
    fs::rename(next, name).expect("the same folder");
}

fn send(client: &Player, to: SocketAddr, is_over: &AtomicBool) -> u64 {
    let mut sent = 0;
    while !is_over.load(Ordering::Relaxed) {
        client.udp.send_to(&[0; 20], to).expect("loopback takes it");
        sent += 1;
        thread::sleep(TICK);
    }
    sent
}

/// Notes the longest time between two datagrams, until nothing comes for a second.
fn hear(host: &Player, to_client: SocketAddr, longest: &AtomicU64) -> u64 {
    host.udp.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket");
    let (mut heard, mut last, mut buffer) = (0, Instant::now(), [0; 256]);
    while host.udp.recv_from(&mut buffer).is_ok() {
        let now = Instant::now();
        let pause = u64::try_from((now - last).as_nanos()).expect("it is short");
        longest.fetch_max(pause, Ordering::Relaxed);
        if heard % 50 == 0 {
            // A host that is silent is sent little.
            host.udp.send_to(&[0; 20], to_client).expect("loopback takes it");
        }
        (heard, last) = (heard + 1, now);
    }
    heard
}
