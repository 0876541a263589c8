//! The report: medians with their intervals, as a table for people and as JSON lines for machines.

use std::fs::File;
use std::io::Write;

use crate::forwarder::YARDSTICK;
use crate::load::Figures;

/// A median of paired rounds, and an interval that holds the true one with 95 % or a little more.
#[derive(Clone, Copy)]
pub(crate) struct Median {
    pub(crate) value: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Median {
    /// The interval lies between two of the sorted values, chosen by the binomial distribution: it assumes nothing
    /// about theirs.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (count, last) = (values.len(), values.len() - 1);
        let mut below = 0.5_f64.powi(count as i32);
        let (mut rank, mut term) = (0, below);
        while rank < last / 2 {
            term *= (count - rank) as f64 / (rank + 1) as f64;
            if below + term > 0.025 {
                break;
            }
            below += term;
            rank += 1;
        }
        Self { value: values[count / 2], low: values[rank], high: values[last - rank] }
    }
}

impl std::fmt::Display for Median {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{:.2} ({:.2}-{:.2})", self.value, self.low, self.high))
    }
}

/// One kind of work that all subjects did, in paired rounds.
pub(crate) struct Case {
    pub(crate) shape: String,
    pub(crate) payload: usize,
    pub(crate) offered: String,
    pub(crate) subjects: Vec<(String, Vec<Figures>)>,
}

impl Case {
    /// The rounds' ratios of a figure between two subjects; `None` if one was not there.
    pub(crate) fn ratio(&self, of: &str, to: &str, figure: fn(&Figures) -> f64) -> Option<Median> {
        let mut ratios = self.ratios(of, to, figure).peekable();
        ratios.peek()?;
        Some(Median::of(ratios))
    }

    /// The ratio in each round; none if one of the subjects was not there.
    pub(crate) fn ratios(
        &self,
        of: &str,
        to: &str,
        figure: fn(&Figures) -> f64,
    ) -> impl Iterator<Item = f64> {
        let [of, to] = [of, to].map(|name| self.rounds(name).unwrap_or_default());
        of.iter().zip(to).map(move |(of, to)| figure(of) / figure(to))
    }

    pub(crate) fn rounds(&self, name: &str) -> Option<&[Figures]> {
        self.subjects.iter().find(|(subject, _)| subject == name).map(|(_, rounds)| &rounds[..])
    }

    pub(crate) fn print(&self, json: &mut File) {
        let mut offered = self.offered.as_str();
        for (name, rounds) in &self.subjects {
            let of = |figure: fn(&Figures) -> f64| Median::of(rounds.iter().map(figure)).value;
            let ratio = self.ratio(name, YARDSTICK, |f| f.cpu_us).expect("it is always there");
            let shown = if name == YARDSTICK { "1".to_owned() } else { ratio.to_string() };
            println!(
                "{offered:<12} {name:<10} {:>11.0} {:>7.3} {:>8.0} {:>8.0} {:>8.0} {:>8.2}  {shown:<18} {:>6.1}",
                of(|f| f.delivered_per_second),
                of(|f| f.loss_percent),
                of(|f| f.p50_us),
                of(|f| f.p99_us),
                of(|f| f.p999_us),
                of(|f| f.cpu_us),
                of(|f| f.resident_kb) / 1024.0,
            );
            offered = "";
            writeln!(
                json,
                "{{\"shape\":\"{}\",\"payload\":{},\"offered\":\"{}\",\"subject\":\"{name}\",\"rounds\":{},\
                 \"delivered_per_second\":{:.0},\"loss_percent\":{:.4},\"p50_us\":{:.1},\"p99_us\":{:.1},\
                 \"p999_us\":{:.1},\"cpu_us\":{:.3},\"resident_kb\":{:.0},\"cpu_ratio\":{:.4},\
                 \"cpu_ratio_low\":{:.4},\"cpu_ratio_high\":{:.4}}}",
                self.shape,
                self.payload,
                self.offered,
                rounds.len(),
                of(|f| f.delivered_per_second),
                of(|f| f.loss_percent),
                of(|f| f.p50_us),
                of(|f| f.p99_us),
                of(|f| f.p999_us),
                of(|f| f.cpu_us),
                of(|f| f.resident_kb),
                ratio.value,
                ratio.low,
                ratio.high,
            )
            .expect("the file takes it");
        }
    }
}

pub(crate) fn print_head(title: &str) {
    println!("\n{title}");
    println!(
        "{:<12} {:<10} {:>11} {:>7} {:>8} {:>8} {:>8} {:>8}  {:<18} {:>6}",
        "offered",
        "",
        "delivered/s",
        "loss %",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "CPU us",
        "CPU to level",
        "MB"
    );
}
