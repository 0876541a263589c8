//! Games that the kernel forwards: that it does, what it must not, and that it lets go.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::harness::ignore;
use crate::lab::{Lab, Router, lab};
use crate::players::{Noray, Stream, now, try_until};
use crate::support::{PATIENCE, REPEAT};

const PROGRAM: &str = env!("CARGO_BIN_EXE_noray");
const REQUIRED: &str = "NORAY_KERNEL_PATH=required";

/// With an older heartbeat the program passes everything up.
const HEARTBEAT_LIFE: Duration = noray::kernel::api::HEARTBEAT_LIFE;

fn lab_with_kernel() -> Lab {
    if !cfg!(feature = "kernel") {
        ignore("noray is built without the feature `kernel`");
    }
    lab()
}

/// Plays until the kernel forwards the pair.
fn play_until_forwarded(stream: &mut Stream, noray: &Noray<'_>) {
    let is_forwarded = try_until(PATIENCE, || {
        stream.check();
        noray.metric("noray_kernel_pairs") == 1
    });
    assert!(is_forwarded, "{}", noray.log());
}

/// Whether what the client sends soon arrives no more.
fn falls_silent(stream: &Stream, text: &str) -> bool {
    try_until(2 * HEARTBEAT_LIFE, || {
        stream.client.send(text, stream.to_host);
        let has_arrived = stream.host.receive_within(REPEAT).is_some();
        // Slow enough for the pair's rate.
        let _ = stream.client.receive_within(REPEAT / 5);
        !has_arrived
    })
}

/// A program that runs noray, as a shell says it.
struct Script(PathBuf);

impl Script {
    fn new(name: &str, line: &str) -> Self {
        let file = format!("{name}-{}.sh", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
        fs::write(&path, format!("#!/bin/sh\nexec {line} \"$@\"\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

pub(crate) fn an_established_pair_is_forwarded_by_the_kernel_and_counted() {
    const CHECKS: u64 = 50;
    let lab = lab_with_kernel();
    let everywhere = ["NORAY_SOCKET_HOST=::", "NORAY_UDP_HOST=::", REQUIRED];
    let noray = Noray::start(&lab, &everywhere);
    let [home, symmetric] = [Router::Home, Router::Symmetric].map(|router| lab.lan(router));
    let ipv6 = [lab.ipv6_host(), lab.ipv6_host()];
    let server_by_ipv6 = "[2001:db8::10]:8890".parse().unwrap();
    for (name, mut stream) in [
        ("IPv4", Stream::begin(&home.host(), &symmetric.host(), &noray)),
        ("IPv6", Stream::begin_at(&ipv6, server_by_ipv6)),
    ] {
        play_until_forwarded(&mut stream, &noray);
        noray.settle();
        let counted = || {
            ["kernel_datagrams_total", "relay_datagrams_total", "relay_bytes_total"]
                .map(|metric| noray.metric(&format!("noray_{metric}")))
        };
        let before = counted();
        let bytes: u64 = (0..CHECKS).map(|_| stream.check_and_weigh()).sum();
        noray.settle();
        let after = counted();
        let [by_kernel, relayed, relayed_bytes] =
            [0, 1, 2].map(|index| after[index] - before[index]);
        assert_eq!((relayed, relayed_bytes), (2 * CHECKS, bytes), "{name}");
        assert_eq!(by_kernel, relayed, "{name}: {}", noray.log());
        // The next one is alone again.
        drop(stream);
        noray.signal("HUP");
        assert!(try_until(PATIENCE, || noray.metric("noray_kernel_pairs") == 0));
    }
}

pub(crate) fn a_firewall_that_blocks_a_player_is_honoured_at_once_after_a_reload() {
    let lab = lab_with_kernel();
    let noray = Noray::start(&lab, &[REQUIRED]);
    let [client, host] = [Router::Home, Router::None].map(|router| lab.lan(router));
    let mut stream = Stream::begin(&client.host(), &host.host(), &noray);
    play_until_forwarded(&mut stream, &noray);
    let blocked = client.public_ips()[0];
    lab.server.nft(&format!(
        "table inet block {{\n\
         chain input {{\n\
         type filter hook input priority 0; policy accept;\n\
         meta l4proto udp ip saddr {blocked} drop\n\
         }}\n\
         }}\n"
    ));
    // As the page says: the firewall does not see these.
    stream.check();
    let pid = noray.id().to_string();
    let reload =
        lab.server.enter(|| Command::new(PROGRAM).args(["reload", "--pid", &pid]).status());
    assert!(reload.unwrap().success());
    for _ in 0..5 {
        stream.client.send("blocked", stream.to_host);
        assert_eq!(stream.host.receive_within(REPEAT), None);
    }
    stream.host.send("still passes", stream.to_client);
    assert_eq!(stream.client.receive().0, "still passes");
    lab.server.nft("delete table inet block");
    play_until_forwarded(&mut stream, &noray);
}

pub(crate) fn a_killed_server_leaves_no_traffic_running() {
    let lab = lab_with_kernel();
    let noray = Noray::start(&lab, &[REQUIRED]);
    let [client, host] = [Router::Home, Router::None].map(|router| lab.lan(router));
    let mut stream = Stream::begin(&client.host(), &host.host(), &noray);
    play_until_forwarded(&mut stream, &noray);
    noray.signal("KILL");
    noray.wait();
    // Before Linux 6.6 its heartbeat has to get old first.
    assert!(falls_silent(&stream, "in vain"), "the program of a killed server still forwards");
    // The next one has the place.
    let noray = Noray::start(&lab, &[REQUIRED]);
    play_until_forwarded(&mut Stream::begin(&client.host(), &host.host(), &noray), &noray);
}

pub(crate) fn what_comes_while_the_server_hangs_waits_at_its_sockets() {
    let lab = lab_with_kernel();
    let noray = Noray::start(&lab, &[REQUIRED]);
    let [client, host] = [Router::Home, Router::None].map(|router| lab.lan(router));
    let mut stream = Stream::begin(&client.host(), &host.host(), &noray);
    play_until_forwarded(&mut stream, &noray);
    noray.signal("STOP");
    let stopped = now();
    // Nobody needs the process for these.
    stream.check();
    assert!(falls_silent(&stream, "waits"), "the program of a server that hangs still forwards");
    println!("it let go after {:?}", stopped.elapsed());
    noray.signal("CONT");
    assert_eq!(stream.host.receive().0, "waits");
    while stream.host.receive_within(REPEAT).is_some() {}
    play_until_forwarded(&mut stream, &noray);
}

pub(crate) fn a_reload_switches_it_on_and_off_under_a_live_game() {
    let lab = lab_with_kernel();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("kernel-path-{}.conf", std::process::id()));
    let configure = |path: &str, last_port: u16| {
        let ports = format!("NORAY_UDP_RELAY_PORTS=49152-{last_port}");
        fs::write(&file, format!("NORAY_KERNEL_PATH={path}\n{ports}\n")).unwrap();
    };
    configure("off", 51_200);
    let script = Script::new(
        "switched",
        &format!("env -u NORAY_KERNEL_PATH {PROGRAM} --config {}", file.display()),
    );
    let noray = Noray::start_program(&lab.server, &script.0, &[]);
    let [client, host] = [Router::Symmetric, Router::Home].map(|router| lab.lan(router));
    let mut stream = Stream::begin(&client.host(), &host.host(), &noray);
    let pid = noray.id().to_string();
    // In the end with other ports, and so by a handover.
    for (path, gauge, last_port) in [
        ("required", 1, 51_200),
        ("off", 0, 51_200),
        ("auto", 1, 51_200),
        ("required", 1, 51_200),
        ("off", 0, 51_100),
        ("required", 1, 51_000),
    ] {
        configure(path, last_port);
        thread::scope(|scope| {
            let reload = scope.spawn(|| {
                lab.server.enter(|| Command::new(PROGRAM).args(["reload", "--pid", &pid]).status())
            });
            // Each datagram arrives, in both directions.
            for _ in 0..200 {
                stream.check();
            }
            assert!(reload.join().unwrap().unwrap().success(), "{}", noray.log());
        });
        assert_eq!(noray.metric("noray_kernel_path"), gauge, "{path}");
        if gauge == 1 {
            play_until_forwarded(&mut stream, &noray);
        } else {
            assert_eq!(noray.metric("noray_kernel_pairs"), 0);
        }
    }
    assert_eq!(noray.log().matches("has handed over").count(), 2, "{}", noray.log());
    // A path that is required and cannot be opened makes the reload fail, in place and by a handover. The game goes on.
    for last_port in [51_000, 51_200] {
        configure("required\nNORAY_KERNEL_INTERFACES=nowhere", last_port);
        let reload = ["reload", "--pid", &pid];
        let told = lab.server.enter(|| Command::new(PROGRAM).args(reload).output()).unwrap();
        let words = String::from_utf8_lossy(&told.stderr);
        assert!(!told.status.success() && words.contains("the sockets serve"), "{words}");
        assert_eq!(noray.metric("noray_kernel_path"), 0);
        stream.check();
    }
    drop(noray);
    fs::remove_file(file).unwrap();
}

pub(crate) fn interfaces_that_come_and_go_are_followed() {
    let lab = lab_with_kernel();
    let noray = Noray::start(&lab, &[REQUIRED]);
    let says = |words: &str| {
        assert!(try_until(PATIENCE, || noray.log().contains(words)), "{words}: {}", noray.log());
    };
    says("established pairs are forwarded at wan (");
    lab.server.ip("link add later type veth peer name other\nlink set later up\n");
    says("the kernel's path: now at later");
    lab.server.ip("link del later\n");
    says("the kernel's path: no more at later");
    let machines = [Router::Home, Router::None].map(|router| lab.lan(router).host());
    play_until_forwarded(&mut Stream::begin(&machines[0], &machines[1], &noray), &noray);
}

pub(crate) fn two_capabilities_suffice_and_what_is_missing_is_named() {
    let lab = lab_with_kernel();
    let with = |name, capabilities: &str| {
        let set = format!("-all{capabilities}");
        let line = format!(
            "setpriv --bounding-set={set} --inh-caps={set} --ambient-caps={set} --no-new-privs {PROGRAM}"
        );
        Script::new(name, &line)
    };
    let script = with("two-capabilities", ",+bpf,+net_admin");
    let noray = Noray::start_program(&lab.server, &script.0, &[REQUIRED]);
    let machines = [Router::Home, Router::None].map(|router| lab.lan(router).host());
    play_until_forwarded(&mut Stream::begin(&machines[0], &machines[1], &noray), &noray);
    drop(noray);
    let script = with("one-capability", ",+net_admin");
    let noray = Noray::start_program(&lab.server, &script.0, &["NORAY_KERNEL_PATH=auto"]);
    let is_named = || noray.log().contains("the process has no CAP_BPF; under systemd");
    assert!(try_until(PATIENCE, is_named), "{}", noray.log());
    assert_eq!(noray.metric("noray_kernel_path"), 0);
    Stream::begin(&machines[0], &machines[1], &noray).check();
}
