//! `noray probe` from behind every kind of router, at a server behind firewalls.

use std::ops::RangeInclusive;
use std::thread;

use serde_json::Value;

use crate::lab::{Lab, Router, ends_with_this_thread, lab};
use crate::players::Noray;

/// What must be open: see docs/firewalls.md.
const ALL_OPEN: &str = "tcp dport 8890 accept\nudp dport { 8809, 49152-51200 } accept";

/// What a probe said, and its exit status.
struct Said {
    text: String,
    status: Option<i32>,
}

impl Said {
    /// In one line, without the breaks that a terminal needs.
    fn flat(&self) -> String {
        self.text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn contains(&self, words: &[&str]) {
        for word in words {
            assert!(self.flat().contains(word), "`{word}` in\n{}", self.text);
        }
    }

    fn fact(&self, hop: &str, name: &str) -> Value {
        let report: Value = serde_json::from_str(&self.text).expect("JSON and nothing else");
        let hops = report["hops"].as_array().unwrap();
        let found = hops.iter().find(|tried| tried["hop"] == hop);
        let found = found.unwrap_or_else(|| panic!("no {hop} in\n{}", self.text));
        found["facts"][name].clone()
    }

    fn ports(&self, name: &str) -> Vec<u64> {
        let ports = self.fact("port range", name);
        ports.as_array().unwrap().iter().map(|port| port.as_u64().unwrap()).collect()
    }
}

/// Probes the lab's server from a new machine behind a new router.
fn probe(lab: &Lab, router: Router, more: &[&str]) -> Said {
    let machine = lab.lan(router).host();
    let mut command = ends_with_this_thread(env!("CARGO_BIN_EXE_noray"));
    command.arg("probe").arg(lab.server.address().to_string()).args(more);
    let output = machine.enter(|| command.output()).expect("it runs");
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    println!("{}:\n{text}", router.label());
    Said { text, status: output.status.code() }
}

pub(crate) fn it_knows_the_callers_router() {
    let lab = lab();
    let _noray = Noray::start(&lab, &[]);
    lab.server.let_in_only(ALL_OPEN);
    let mapping = |router| match router {
        Router::None => ("none", "no NAT"),
        Router::Home | Router::FullCone => ("same-port", "most players can punch through"),
        Router::Symmetric | Router::CarrierGrade | Router::SeveralIps => {
            ("symmetric", "others reach you only through the relay")
        }
    };
    let in_lab = &lab;
    thread::scope(|scope| {
        for router in Router::ALL {
            scope.spawn(move || {
                let said = probe(in_lab, router, &["--json"]);
                assert_eq!(said.status, Some(0), "{router:?}: {}", said.text);
                let (name, words) = mapping(router);
                assert_eq!(said.fact("your router", "mapping"), name, "{router:?}: {}", said.text);
                said.contains(&[words, "all 56 relay ports tried answer"]);
            });
        }
    });
}

pub(crate) fn a_blocked_registrar() {
    let lab = lab();
    let _noray = Noray::start(&lab, &[]);
    lab.server.let_in_only("tcp dport 8890 accept");
    let said = probe(&lab, Router::Home, &[]);
    assert_eq!(said.status, Some(1), "{}", said.text);
    said.contains(&[
        "ok connection",
        "FAIL registrar",
        "8809/udp: no answer in 3 s",
        "Open 8809/udp in the server's firewall (with ufw: ufw allow 8809/udp) and in the provider's",
        "A game would NOT work: players connect, but cannot register their address (UDP).",
    ]);
}

pub(crate) fn a_registrar_whose_port_is_rejected() {
    let lab = lab();
    let _noray = Noray::start(&lab, &[]);
    for (way, word) in [
        ("port-unreachable", "8809/udp: nothing listens there"),
        ("admin-prohibited", "8809/udp: no way there"),
    ] {
        let rule = format!("tcp dport 8890 accept\nreject with icmpx {way}");
        lab.server.let_in_only(&rule);
        let said = probe(&lab, Router::None, &[]);
        assert_eq!(said.status, Some(1), "{}", said.text);
        said.contains(&["FAIL registrar", word]);
    }
}

pub(crate) fn a_dropped_connection() {
    let lab = lab();
    lab.server.let_in_only("");
    let said = probe(&lab, Router::Home, &[]);
    assert_eq!(said.status, Some(1), "{}", said.text);
    said.contains(&["8890/tcp at 203.0.113.10: no answer in 5 s", "Open 8890/tcp in the server's"]);
}

pub(crate) fn blocked_relay_ports() {
    let lab = lab();
    let _noray = Noray::start(&lab, &[]);
    lab.server.let_in_only("tcp dport 8890 accept\nudp dport 8809 accept");
    for router in [Router::None, Router::Home, Router::Symmetric] {
        let said = probe(&lab, router, &[]);
        assert_eq!(said.status, Some(1), "{router:?}: {}", said.text);
        said.contains(&[
            "ok registrar",
            "FAIL relay nothing passes through",
            "Open the relay ports, 49152-51200/udp",
            "ufw allow 49152:51200/udp",
            "none of 56 relay ports tried answers",
            "A game would NOT work: the relay carries nothing",
        ]);
    }
}

pub(crate) fn a_firewall_that_is_open_for_a_part_of_the_relay_ports() {
    const OPEN: RangeInclusive<u64> = 49_152..=50_175;
    let lab = lab();
    let _noray = Noray::start(&lab, &[]);
    lab.server.let_in_only("tcp dport 8890 accept\nudp dport { 8809, 49152-50175 } accept");
    for router in [Router::None, Router::Home, Router::FullCone] {
        let said = probe(&lab, router, &["--json"]);
        assert_eq!(said.status, Some(1), "{router:?}: {}", said.text);
        let [answering, silent] = ["answering", "silent"].map(|name| said.ports(name));
        assert!(answering.iter().all(|port| OPEN.contains(port)), "{router:?}: {}", said.text);
        assert!(!silent.iter().any(|port| OPEN.contains(port)), "{router:?}: {}", said.text);
        let [first, last] = [&answering, &silent].map(|ports| (ports[0], ports.last().unwrap()));
        let parts = format!("{}-{} answer, {}-{} do not", first.0, first.1, last.0, last.1);
        said.contains(&[
            &parts,
            "The firewall is open for a part of the relay ports only",
            "A game would work for some players only",
        ]);
    }
    // A symmetric router hides the open port of a pair whose other port is closed.
    let said = probe(&lab, Router::Symmetric, &["--json"]);
    assert_eq!(said.status, Some(1), "{}", said.text);
    assert!(said.ports("answering").iter().all(|port| OPEN.contains(port)), "{}", said.text);
    said.contains(&["probe from another line to see the exact parts"]);
}

pub(crate) fn a_server_that_does_not_latch_is_probed_all_the_same() {
    let lab = lab();
    let _noray = Noray::start(&lab, &["NORAY_UDP_RELAY_LATCHING=off"]);
    lab.server.let_in_only(ALL_OPEN);
    for (router, words) in [(Router::None, "no NAT"), (Router::Home, "same port everywhere")] {
        let said = probe(&lab, router, &[]);
        assert_eq!(said.status, Some(0), "{router:?}: {}", said.text);
        said.contains(&["all 56 relay ports tried answer", words]);
    }
}
