//! Prometheus's text format.

use std::fmt::{self, Display, Write};

use super::numbers::{Counter, Family, Gauge, Histogram, Scale};
use crate::label::Label;

/// A page in Prometheus's text format, while it is written.
#[derive(Default)]
pub(super) struct Page(String);

/// A number, or a group of numbers, that has a name on the page.
pub(super) trait Metric {
    /// The type, in Prometheus's words.
    const KIND: &'static str;

    /// Writes the lines below the head. `labels` come before the metric's own labels.
    fn write(&self, page: &mut Page, name: &str, labels: &str);
}

impl Page {
    pub(super) fn into_text(self) -> String {
        self.0
    }

    /// Writes a metric that the server counts. `help` ends with a full stop.
    pub(super) fn metric<M: Metric>(&mut self, name: &str, help: &str, metric: &M) {
        self.head(name, M::KIND, help);
        metric.write(self, name, "");
    }

    /// Writes a value that the kernel counts. Writes nothing if there is none.
    pub(super) fn reading(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        value: Option<impl Display>,
    ) {
        if let Some(value) = value {
            self.head(name, kind, help);
            self.value(name, "", value);
        }
    }

    pub(super) fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {}", help.trim_start()));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    pub(super) fn value(&mut self, name: &str, labels: &str, value: impl Display) {
        if labels.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{labels}}} {value}"));
        }
    }

    fn line(&mut self, text: fmt::Arguments<'_>) {
        writeln!(self.0, "{text}").expect("a String takes everything");
    }
}

impl Metric for Counter {
    const KIND: &'static str = "counter";

    fn write(&self, page: &mut Page, name: &str, labels: &str) {
        page.value(name, labels, self.value());
    }
}

impl Metric for Gauge {
    const KIND: &'static str = "gauge";

    fn write(&self, page: &mut Page, name: &str, labels: &str) {
        page.value(name, labels, self.value());
    }
}

impl<S: Scale> Metric for Histogram<S> {
    const KIND: &'static str = "histogram";

    fn write(&self, page: &mut Page, name: &str, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut total = 0;
        for (bound, count) in self.buckets() {
            let bound = bound.map_or("+Inf".to_owned(), |bound| bound.to_string());
            total += count;
            page.value(&format!("{name}_bucket"), &format!("{labels}{comma}le=\"{bound}\""), total);
        }
        page.value(&format!("{name}_sum"), labels, self.sum());
        page.value(&format!("{name}_count"), labels, total);
    }
}

/// A family with the name of its label.
pub(super) struct Named<'a, L, M> {
    label_name: &'static str,
    family: &'a Family<L, M>,
}

impl<L: Label, M> Family<L, M> {
    pub(super) fn by(&self, label_name: &'static str) -> Named<'_, L, M> {
        Named { label_name, family: self }
    }
}

impl<L: Label, M: Metric> Metric for Named<'_, L, M> {
    const KIND: &'static str = M::KIND;

    fn write(&self, page: &mut Page, name: &str, _: &str) {
        for label in L::ALL {
            let labels = format!("{}=\"{}\"", self.label_name, label.label());
            self.family.of(*label).write(page, name, &labels);
        }
    }
}
