//! The bars: what the figures must be.

use crate::coturn;
use crate::forwarder::YARDSTICK;
use crate::load::{Figures, Rate};
use crate::noray::{self, Beside};
use crate::report::{Case, Median};

const HUNDRED_THOUSAND: Rate = Rate::PerSecond(100_000);

/// Prints each bar with the figures of the cases that it is about.
pub(crate) fn print(cases: &[Case], besides: &[Beside]) {
    for (rate, bar) in [(HUNDRED_THOUSAND, 1.10), (Rate::PerSecond(10_000), 1.15)] {
        let offered = rate.name();
        println!(
            "\nCPU per datagram, noray to the level-triggered forwarder: at most {bar:.2} at {offered}"
        );
        for case in cases.iter().filter(|case| case.offered == offered) {
            check(case, case.ratio(noray::NAME, YARDSTICK, cpu), bar);
        }
    }
    println!("\nCPU per datagram, noray to coturn: at most 0.85 at 100,000/s");
    for case in cases.iter().filter(|case| case.offered == HUNDRED_THOUSAND.name()) {
        check(case, case.ratio(noray::NAME, coturn::NAME, cpu), 0.85);
    }
    println!(
        "\nfrom 50 to 1000 pairs: noray's CPU grows at most 1.05 times as much as the level-triggered forwarder's"
    );
    for few in cases.iter().filter(|case| case.shape == "50 pairs") {
        let is_same = |many: &&Case| {
            many.shape == "1000 pairs"
                && (many.payload, &many.offered) == (few.payload, &few.offered)
        };
        if let Some(many) = cases.iter().find(is_same) {
            check(many, growth(few, many), 1.05);
        }
    }
    println!("\np99 at 100,000/s, noray to the level-triggered forwarder: at most 1.20");
    for case in cases.iter().filter(|case| case.offered == HUNDRED_THOUSAND.name()) {
        check(case, case.ratio(noray::NAME, YARDSTICK, p99), 1.20);
    }
    // One case's rounds are too few to tell: what stalls the machine for some milliseconds decides over each.
    let at_rate = cases.iter().filter(|case| case.offered == HUNDRED_THOUSAND.name());
    let ratios: Vec<f64> =
        at_rate.flat_map(|case| case.ratios(noray::NAME, YARDSTICK, p99)).collect();
    if !ratios.is_empty() {
        println!("  all rounds of these cases together        {}", Median::of(ratios.into_iter()));
    }
    println!("\nloss below saturation, in percent: none");
    for case in cases.iter().filter(|case| case.offered != Rate::Saturation.name()) {
        check(case, case.rounds(noray::NAME).map(loss), 0.0);
    }
    println!("\nloss at saturation, in percent: none where the noray measured beside has none");
    for case in cases.iter().filter(|case| case.offered == Rate::Saturation.name()) {
        let besides = case
            .subjects
            .iter()
            .filter(|(name, _)| besides.iter().any(|beside| beside.name == *name));
        for (name, rounds) in besides {
            let allowed = loss(rounds).value;
            println!("  {name} lost {allowed:.3}");
            if allowed == 0.0 {
                check(case, case.rounds(noray::NAME).map(loss), 0.0);
            }
        }
    }
}

fn loss(rounds: &[Figures]) -> Median {
    Median::of(rounds.iter().map(|figures| figures.loss_percent))
}

fn p99(figures: &Figures) -> f64 {
    figures.p99_us
}

fn cpu(figures: &Figures) -> f64 {
    figures.cpu_us
}

/// The rounds of the two cases were not paired with each other, so this compares ratios to the yardstick.
fn growth(few: &Case, many: &Case) -> Option<Median> {
    let (few, many) =
        (few.ratio(noray::NAME, YARDSTICK, cpu)?, many.ratio(noray::NAME, YARDSTICK, cpu)?);
    Some(Median {
        value: many.value / few.value,
        low: many.low / few.high,
        high: many.high / few.low,
    })
}

fn check(case: &Case, median: Option<Median>, bar: f64) {
    let Some(median) = median else { return };
    let verdict = if median.value <= bar { "holds" } else { "MISSED" };
    let name = format!("{}, {} bytes, {}", case.shape, case.payload, case.offered);
    println!("  {name:<40} {median:<22} {verdict}");
}
