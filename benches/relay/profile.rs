//! Where the saturated relay's time goes, as `perf` sees it: in the kernel, in noray, and in which functions.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::load::{Load, Rate};
use crate::noray;
use crate::shape::Shape;
use crate::support::Processors;

/// Makes the bench this profile.
pub(crate) const ARGUMENT: &str = "--profile";

const SECONDS: u64 = 10;
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/relay.perf.data");

/// Samples by the processor's clock, 999 times a second: virtual machines often have no counters.
pub(crate) fn run() {
    let processors = Processors::find();
    processors.use_relays();
    let subject = noray::start(Shape::Pairs(50));
    processors.use_loads();
    let id = subject.process.0.id().to_string();
    let seconds = SECONDS.to_string();
    let arguments =
        ["record", "-e", "cpu-clock", "-F", "999", "-o", DATA, "-p", &id, "--", "sleep", &seconds];
    let mut perf = Command::new("perf")
        .args(arguments)
        .stderr(Stdio::null())
        .spawn()
        .expect("perf is installed (package linux-perf)");
    let duration = Duration::from_secs(SECONDS + 1);
    let figures = Load { rate: Rate::Saturation, payload: 200, duration }.run(&subject);
    assert!(perf.wait().expect("it runs").success(), "perf records");
    let (rate, cost) = (figures.delivered_per_second, figures.cpu_us);
    println!("50 pairs, 200 bytes, saturated: {rate:.0} delivered/s, {cost:.2} us CPU each");
    for sort in ["dso", "dso,symbol"] {
        let report = ["report", "-i", DATA, "--stdio", "--sort", sort, "--percent-limit", "0.4"];
        let output =
            Command::new("perf").args(report).stderr(Stdio::null()).output().expect("perf reports");
        let text = String::from_utf8_lossy(&output.stdout);
        println!("\nby {sort}");
        text.lines().filter(|line| line.contains('%')).for_each(|line| println!("{line}"));
    }
}
