//! The real binary on loopback beside bare forwarders and coturn, in turns, in one run: `cargo bench --bench relay`.
//!
//! The bare forwarders do nothing but `recv_from` and `send_to`: what they cost is the kernel's, what noray costs beyond
//! is ours. The level-triggered one is the yardstick. The edge-triggered one shows what mio's way of reporting costs.
//! coturn is measured where it is installed. Where there are two processors or more, the relay has one and the load
//! another; root gets a network namespace of its own, where no rule of the machine's firewall costs anything. Each figure
//! is the median of all rounds; a ratio is the median of the rounds' ratios, with the interval that holds the true one
//! with at least 95 %.
//!
//! `cargo bench --bench relay -- WORDS` measures only the cases whose name contains all words, for instance
//! `-- "50 pairs" ", 200"`. `--beside NAME=BINARY` measures another binary of noray in the same turns, for instance the
//! one before a change. `-- --kernel` compares the kernel's path with the sockets' and with coturn, see `kernel`. JSON lines go to `target/relay-bench.jsonl`. `-- --profile` shows instead where the time of
//! a saturated noray goes; it needs `perf`.

mod bars;
mod coturn;
mod forwarder;
mod kernel;
mod load;
#[path = "../../tests/nat_lab/lab/namespace.rs"]
#[allow(dead_code, unreachable_pub, reason = "the lab uses more of it")]
mod namespace;
mod noray;
mod paced;
mod profile;
mod report;
mod road;
mod shape;
mod subject;
#[path = "../support/mod.rs"]
mod support;

use std::fs::File;
use std::time::Duration;

use load::{Figures, Load, Rate};
use noray::Beside;
use report::Case;
use shape::Shape;
use subject::Subject;
use support::{Processors, prepare_machine};

/// Many and short: what stalls the machine for some milliseconds then spoils few of them.
const ROUNDS: usize = 31;
const ROUND: Duration = Duration::from_millis(250);

const SHAPES: [Shape; 3] =
    [Shape::Pairs(50), Shape::Pairs(1000), Shape::Stars { hosts: 8, clients: 15 }];
const PAYLOADS: [usize; 3] = [64, 200, 1200];
const RATES: [Rate; 3] = [Rate::PerSecond(10_000), Rate::PerSecond(100_000), Rate::Saturation];

fn main() {
    if std::env::args().nth(1).as_deref() == Some(forwarder::ARGUMENT) {
        return forwarder::run(&std::env::args().nth(2).expect("its kind"));
    }
    let (words, besides) = arguments();
    prepare_machine();
    if words.iter().any(|word| word == profile::ARGUMENT) {
        return profile::run();
    }
    if words.iter().any(|word| word == kernel::ARGUMENT) {
        return kernel::run();
    }
    println!("{ROUNDS} rounds of {ROUND:?} for each line, in turns");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/target/relay-bench.jsonl");
    let mut json = File::create(path).expect("cargo has made the folder");
    let processors = Processors::find();
    let mut cases = Vec::new();
    for shape in SHAPES {
        let loads: Vec<Load> = PAYLOADS
            .into_iter()
            .flat_map(|payload| RATES.map(|rate| Load { rate, payload, duration: ROUND }))
            .filter(|load| is_wanted(shape, load, &words))
            .collect();
        if loads.is_empty() {
            continue;
        }
        processors.use_relays();
        let mut subjects = vec![noray::start(shape)];
        subjects.extend(
            besides.iter().enumerate().map(|(index, it)| noray::start_beside(index, it, shape)),
        );
        subjects.extend(
            [forwarder::YARDSTICK, forwarder::EDGE].map(|kind| forwarder::start(kind, shape)),
        );
        match coturn::start(shape) {
            Some(coturn) => subjects.push(coturn),
            None => println!("coturn is left out: there is no turnserver"),
        }
        processors.use_loads();
        for load in loads {
            if cases.last().is_none_or(|case: &Case| {
                (&case.shape, case.payload) != (&shape.name(), load.payload)
            }) {
                report::print_head(&format!("{}, {} bytes", shape.name(), load.payload));
            }
            let case = measure(shape, &load, &subjects);
            case.print(&mut json);
            cases.push(case);
        }
    }
    bars::print(&cases, &besides);
    println!("\nfor machines: {path}");
}

/// The words that name cases, and the binaries to measure beside this one.
fn arguments() -> (Vec<String>, Vec<Beside>) {
    // cargo adds --bench.
    let mut arguments = std::env::args().skip(1).filter(|word| word != "--bench");
    let (mut words, mut besides) = (Vec::new(), Vec::new());
    while let Some(word) = arguments.next() {
        if word == "--beside" {
            let beside = arguments.next().expect("NAME=BINARY follows --beside");
            let (name, binary) = beside.split_once('=').expect("--beside NAME=BINARY");
            besides.push(Beside { name: name.to_owned(), binary: binary.to_owned() });
        } else {
            words.push(word);
        }
    }
    (words, besides)
}

fn is_wanted(shape: Shape, load: &Load, words: &[String]) -> bool {
    let name = format!("{}, {} bytes, {}", shape.name(), load.payload, load.rate.name());
    words.iter().all(|word| name.contains(word))
}

/// Every round measures each subject once, each time another one first.
fn measure(shape: Shape, load: &Load, subjects: &[Subject]) -> Case {
    let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); subjects.len()];
    for round in 0..ROUNDS {
        for turn in 0..subjects.len() {
            let index = (round + turn) % subjects.len();
            let subject = &subjects[index];
            if subject.name == coturn::NAME {
                coturn::refresh(&subject.sockets, &subject.flows);
            }
            rounds[index].push(load.run(subject));
        }
    }
    Case {
        shape: shape.name(),
        payload: load.payload,
        offered: load.rate.name(),
        subjects: subjects.iter().map(|subject| subject.name.clone()).zip(rounds).collect(),
    }
}
