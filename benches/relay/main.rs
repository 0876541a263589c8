//! The real binary on loopback beside a bare forwarder, in turns, in one run: `cargo bench --bench relay`.
//!
//! The bare forwarder does nothing but `recv_from` and `send_to` under edge-triggered epoll: what it costs is the
//! kernel's, what noray costs beyond it is ours. Where there are two processors or more, the relay has one and
//! the load another. Each figure is the median of all rounds; the ratio is the median of the rounds' ratios.

mod forwarder;
mod load;
mod subject;

use std::time::Duration;

use load::{Figures, Load, Rate};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use subject::{Start, Subject};

const PAIRS: usize = 50;
const PAYLOAD: usize = 200;
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_secs(1);

const RATES: [(&str, Rate); 3] = [
    ("10,000/s", Rate::PerSecond(10_000)),
    ("100,000/s", Rate::PerSecond(100_000)),
    ("flat out", Rate::FlatOut),
];

fn main() {
    if std::env::args().nth(1).as_deref() == Some(forwarder::ARGUMENT) {
        return forwarder::run();
    }
    let cpus = two_cpus();
    println!("{PAIRS} pairs, {PAYLOAD} bytes, {ROUNDS} rounds of {ROUND:?} each, in turns");
    pin(cpus.map(|[relay, _]| relay));
    let noray = Subject::noray(PAIRS);
    let bare = Subject::forwarder(PAIRS);
    pin(cpus.map(|[_, load]| load));

    let Start { took, resident_kb } = noray.start;
    println!("noray: ready after {took:.1?} with 2,049 relay ports, {resident_kb} kB resident");
    println!(
        "{:<10} {:<6} {:>11} {:>8} {:>9} {:>9} {:>12} {:>7}",
        "offered", "", "delivered/s", "loss %", "p50 us", "p99 us", "CPU us/dgram", "ratio"
    );
    for (name, rate) in RATES {
        measure(name, &noray, &bare, &Load { rate, payload: PAYLOAD, duration: ROUND });
    }
}

fn measure(name: &str, noray: &Subject, bare: &Subject, load: &Load) {
    let rounds: Vec<(Figures, Figures)> = (0..ROUNDS)
        .map(|round| {
            if round % 2 == 0 {
                let first = load.run(noray);
                (first, load.run(bare))
            } else {
                let first = load.run(bare);
                (load.run(noray), first)
            }
        })
        .collect();
    let ratios = rounds.iter().map(|(noray, bare)| noray.cpu_us / bare.cpu_us);
    let ratio = format!("{:.2}", median(ratios));
    let (of_noray, of_bare): (Vec<_>, Vec<_>) = rounds.into_iter().unzip();
    print_row(name, "noray", &of_noray, &ratio);
    print_row("", "bare", &of_bare, "1");
}

fn print_row(offered: &str, subject: &str, rounds: &[Figures], ratio: &str) {
    let of = |figure: fn(&Figures) -> f64| median(rounds.iter().map(figure));
    println!(
        "{offered:<10} {subject:<6} {:>11.0} {:>8.3} {:>9.1} {:>9.1} {:>12.2} {ratio:>7}",
        of(|f| f.delivered_per_second),
        of(|f| f.loss_percent),
        of(|f| f.p50_us),
        of(|f| f.p99_us),
        of(|f| f.cpu_us),
    );
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Two processors that this process may use, if there are two.
fn two_cpus() -> Option<[usize; 2]> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).ok()?;
    let mut cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    Some([cpus.next()?, cpus.next()?])
}

/// Keeps this thread, and the processes that it starts from now on, on one processor.
fn pin(cpu: Option<usize>) {
    let Some(cpu) = cpu else { return };
    let mut set = CpuSet::new();
    set.set(cpu).expect("the processor exists");
    sched_setaffinity(Pid::from_raw(0), &set).expect("it is allowed");
}
