//! Many players, floods and storms at the real binary: `cargo bench --bench crowd`.
//!
//! Each part starts a server of its own. A game of 50 datagrams a second goes on meanwhile, and its loss and latency
//! show whether the relay misses a beat. Where there are two processors or more, noray has one and the load another.

#![expect(clippy::disallowed_methods, reason = "a bench takes the time")]

mod joiner;
mod stream;
#[path = "../support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use joiner::Member;
use stream::{Latencies, Outcome, Stream};
use support::{
    HTTP, Player, Process, Processors, WIDE, connect_relay, kilobytes, prepare_machine, start_noray,
};

fn main() {
    prepare_machine();
    let processors = Processors::find();
    let start = |settings: &[&str]| {
        processors.use_relays();
        let started = start_noray(settings);
        processors.use_loads();
        started
    };
    ports(start);
    let roomy = [&WIDE[..], &["NORAY_MAX_CONNECTIONS=12000"]].concat();
    println!("\n{CROWD} players, noray has one processor and the load another");
    crowd(&start(&roomy).0);
    println!("\n{CROWD} players, noray and the load share all processors");
    processors.use_both();
    crowd(&start_noray(&roomy).0);
    come_and_go(&start(&roomy).0);
    storm(&start(&[&WIDE[..], &["NORAY_MAX_CONNECTIONS=8000"]].concat()).0);
    println!("\nwhile one partner floods its relay with all that one processor sends, for 5 s");
    flood("default limits: noray drops nearly all of it", &start(&[]).0);
    flood("no limits: noray relays all of it", &start(&WIDE).0);
}

fn ports(start: impl Fn(&[&str]) -> (Process, Duration)) {
    println!("start, median of 9");
    for ports in ["49152-51200", "49152-65535"] {
        let setting = format!("NORAY_UDP_RELAY_PORTS={ports}");
        let mut took = Vec::new();
        let mut resident = Vec::new();
        for _ in 0..9 {
            let (process, time) = start(&[&setting]);
            took.push(time);
            resident.push(process.resident_kb());
        }
        took.sort_unstable();
        resident.sort_by(f64::total_cmp);
        println!(
            "  relay ports {ports}: ready after {:.0?}, {:.1} MB resident",
            took[4],
            resident[4] / 1024.0
        );
    }
}

const CROWD: usize = 10_000;

/// A half at a time: in a usual limit on open files.
const HALF: usize = CROWD / 2;

fn crowd(noray: &Process) {
    let (empty, empty_kernel) = (noray.resident_kb(), kernel_kb());
    let game = Game::join();
    let stream = game.stream();
    let begin = Instant::now();
    let mut members = joiner::join(HALF);
    members.extend(joiner::join(HALF));
    println!("  joined, {HALF} at once, in {:.1?}, {}", begin.elapsed(), beat(stream.stop()));
    let per_player = |kb: f64| kb / CROWD as f64;
    println!(
        "  {:.1} KiB resident a player; the kernel adds about {:.1} KiB (the player's own socket counted with it)",
        per_player(noray.resident_kb() - empty),
        per_player(kernel_kb() - empty_kernel)
    );
    drop(game);
    println!("  idle: {:.3} ms of processor time in 5 s", idle(noray));

    let game = Game::join();
    let mut asked = ask_for_hosts(&members);
    println!(
        "  connect: answered within {:.2} ms (p99 of {})",
        asked.percentile_ms(99),
        asked.0.len()
    );
    let stream = game.stream();
    let begin = Instant::now();
    for member in &members {
        // It may be gone already.
        let _ = member.line.shutdown(Shutdown::Both);
    }
    drop(members);
    while metric("noray_active_hosts") > 2 {
        std::thread::park_timeout(Duration::from_millis(20));
    }
    println!(
        "  left all at once, forgotten after {:.1?}, {}",
        begin.elapsed(),
        beat(stream.stop())
    );
    println!(
        "  {:.1} MB resident afterwards, {:.1} MB before",
        noray.resident_kb() / 1024.0,
        empty / 1024.0
    );
}

/// How often a thousand players come, and leave at once.
const ROUNDS: usize = 10;
const COMING: usize = 1_000;

/// Whether the loop ever waits for the threads that connections begin and end in.
fn come_and_go(_noray: &Process) {
    println!("\n{COMING} players join at once and leave at once, {ROUNDS} times");
    let game = Game::join();
    let before = turns();
    let stream = game.stream();
    for _ in 0..ROUNDS {
        drop(joiner::join(COMING));
    }
    println!("  {}", beat(stream.stop()));
    let longer: Vec<u64> =
        turns().iter().zip(before).map(|(after, before)| after - before).collect();
    println!("  turns of the loop that took more than 1, 5 and 25 ms: {longer:?}");
}

/// How many turns of the loop took longer than 1, 5 and 25 ms.
fn turns() -> [u64; 3] {
    let name = "noray_loop_turn_duration_seconds";
    let all = metric(&format!("{name}_count"));
    ["0.001", "0.005", "0.025"]
        .map(|bound| all - metric(&format!("{name}_bucket{{le=\"{bound}\"}}")))
}

const STORM: usize = 5_000;

fn storm(_noray: &Process) {
    println!("\n{STORM} players reconnect at once, as after a restart");
    let game = Game::join();
    let stream = game.stream();
    let members = joiner::join(STORM);
    let refused = members.iter().filter(|member| member.is_refused).count();
    let mut took = Latencies(members.iter().filter_map(|member| member.took).collect());
    println!(
        "  {} served, {refused} refused; half of them within {:.0} ms, the last after {:.0} ms; {}",
        took.0.len(),
        took.percentile_ms(50),
        took.percentile_ms(100),
        beat(stream.stop())
    );
}

const FLOODED_ASKERS: usize = 200;
/// Slower than the commands of one connection may come for long, with what is saved up.
const ASKING_INTERVAL: Duration = Duration::from_millis(30);

fn flood(name: &str, _noray: &Process) {
    let mut host = Player::join();
    let mut flooder = Player::join();
    let [to_host, to_flooder] = connect_relay(&mut flooder, &mut host);
    // Both were heard, so that consent limits nothing.
    host.udp.send_to(b"hello", to_flooder).expect("loopback takes it");
    let mut client = Player::join();
    let [client_to_host, host_to_client] = connect_relay(&mut client, &mut host);
    host.udp.send_to(b"hello", host_to_client).expect("loopback takes it");
    let others = Game::join();
    let mut hosts: Vec<Player> = (0..FLOODED_ASKERS).map(|_| Player::join()).collect();

    let flood = Flood::start(&flooder.udp, to_host);
    // The host's socket gets the flood too, so the client is the one who listens.
    let of_client = Stream::start(&host.udp, host_to_client, &client.udp);
    client.udp.send_to(b"hello", client_to_host).expect("loopback takes it");
    let of_others = others.stream();
    let begin = Instant::now();
    let mut answers = Vec::new();
    for host in &mut hosts {
        let asked = Instant::now();
        connect_relay(&mut client, host);
        answers.push(asked.elapsed());
        let pause = ASKING_INTERVAL.saturating_sub(asked.elapsed());
        std::thread::park_timeout(pause);
    }
    let sent = flood.stop();
    println!(
        "  {name}: {:.0} datagrams/s of 200 bytes",
        sent as f64 / begin.elapsed().as_secs_f64()
    );
    println!("    another pair: {}", beat(of_others.stop()));
    println!("    another client of the same host: {}", beat(of_client.stop()));
    let mut answers = Latencies(answers);
    println!(
        "    connect-relay: answered within {:.2} ms (p99 of {})",
        answers.percentile_ms(99),
        answers.0.len()
    );
}

/// Sends as fast as a thread can.
struct Flood {
    is_over: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Flood {
    fn start(from: &UdpSocket, to: SocketAddr) -> Self {
        let (is_over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (end, count) = (Arc::clone(&is_over), Arc::clone(&sent));
        let from = from.try_clone().expect("a descriptor");
        let thread = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                count.fetch_add(u64::from(from.send_to(&[0; 200], to).is_ok()), Ordering::Relaxed);
            }
        });
        Self { is_over, sent, thread }
    }

    fn stop(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("it does not panic");
        self.sent.load(Ordering::Relaxed)
    }
}

/// Two players with a relay.
struct Game {
    host: Player,
    client: Player,
    to_client: SocketAddr,
}

impl Game {
    fn join() -> Self {
        let (mut host, mut client) = (Player::join(), Player::join());
        let [to_host, to_client] = connect_relay(&mut client, &mut host);
        client.udp.send_to(b"hello", to_host).expect("loopback takes it");
        Self { host, client, to_client }
    }

    fn stream(&self) -> Stream {
        Stream::start(&self.host.udp, self.to_client, &self.client.udp)
    }
}

/// Members ask for others, 200 a second; from the question to the answer.
fn ask_for_hosts(members: &[Member]) -> Latencies {
    let mut random = fastrand::Rng::with_seed(1);
    let times = (0..1000).map(|_| {
        let (asker, host) = (random.choice(members), random.choice(members));
        let (asker, host) = asker.zip(host).expect("there are members");
        let asked = Instant::now();
        let mut line = &asker.line;
        line.write_all(format!("connect {}\n", host.oid).as_bytes()).expect("noray reads");
        let mut buffer = [0; 256];
        while line.read(&mut buffer).is_err() {}
        let took = asked.elapsed();
        // What the host heard is read when it asks.
        let mut line = &host.line;
        while !buffer.starts_with(b"connect-error") && line.read(&mut buffer).is_err() {}
        std::thread::park_timeout(Duration::from_millis(5));
        took
    });
    Latencies(times.collect())
}

fn idle(noray: &Process) -> f64 {
    let pass = |time| {
        let begin = Instant::now();
        while begin.elapsed() < time {
            std::thread::park_timeout(Duration::from_secs(1));
        }
    };
    // Each player's thread looks once more whether it has registered.
    pass(Duration::from_secs(2));
    let before = noray.cpu_us();
    pass(Duration::from_secs(5));
    (noray.cpu_us() - before) / 1000.0
}

/// How the stream went.
fn beat(outcome: Outcome) -> String {
    let Outcome { sent, mut latencies } = outcome;
    format!(
        "of a game's {sent} datagrams {} lost, p50 {:.2} ms, p99 {:.2} ms, worst {:.2} ms",
        sent - latencies.0.len() as u64,
        latencies.percentile_ms(50),
        latencies.percentile_ms(99),
        latencies.percentile_ms(100)
    )
}

/// What the kernel keeps for threads and sockets.
fn kernel_kb() -> f64 {
    ["KernelStack:", "PageTables:", "Slab:"].map(|key| kilobytes("/proc/meminfo", key)).iter().sum()
}

fn metric(name: &str) -> u64 {
    let mut stream = TcpStream::connect(HTTP).expect("noray serves metrics");
    write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").expect("noray reads");
    let text = std::io::read_to_string(stream).expect("an answer");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.expect("the metric is there").parse().expect("a number")
}
