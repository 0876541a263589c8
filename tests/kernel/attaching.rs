//! The program at an interface: what it leaves there, and whom it leaves alone.

use std::process::Command;

use aya::programs::SchedClassifier;
use aya::programs::tc::TcAttachType;
use nix::sched::{CloneFlags, unshare};
use noray::kernel::interfaces::Interface;
use noray::kernel::program::{Hook, NAME, Program, remove_left_over};

use crate::harness::ignore;

const INTERFACE: &str = "v0";

/// Moves this thread to a network of its own, in which there is the interface.
fn enter_network() {
    unshare(CloneFlags::CLONE_NEWNET)
        .unwrap_or_else(|error| ignore(format!("only root can make networks: {error}")));
    for arguments in ["link add v0 type veth peer name v1", "link set v0 up", "link set v1 up"] {
        run("ip", arguments);
    }
}

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).output();
    let output = output.unwrap_or_else(|error| ignore(format!("{program} does not run: {error}")));
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn attach(hook: Hook) -> Program {
    let (mut program, _) = Program::load(2, hook)
        .unwrap_or_else(|error| ignore(format!("the kernel does not load the program: {error}")));
    let name = INTERFACE.to_owned();
    let index = nix::net::if_::if_nametoindex(INTERFACE).unwrap();
    let interface = Interface {
        index,
        name,
        mtu: 1500,
        ttl: 64,
        hop_limit: 64,
        is_suitable: true,
        is_loopback: false,
    };
    assert_eq!(program.attach(&[interface]), []);
    program
}

/// How many filters of the queueing discipline are noray's.
fn filters() -> usize {
    run("tc", "filter show dev v0 ingress").lines().filter(|line| line.contains(NAME)).count()
}

/// How many programs are attached without one.
fn programs() -> usize {
    SchedClassifier::query_tcx(INTERFACE, TcAttachType::Ingress).unwrap().1.len()
}

pub(crate) fn what_a_killed_process_left_before_linux_6_6_is_removed() {
    enter_network();
    // It never detaches what it has attached.
    std::mem::forget(attach(Hook::Clsact));
    assert_eq!(filters(), 1);
    let next = attach(Hook::Clsact);
    assert_eq!(filters(), 1, "the next one has replaced it");
    std::mem::forget(next);
    remove_left_over(INTERFACE);
    assert_eq!(filters(), 0);
    drop(attach(Hook::Clsact));
    assert_eq!(filters(), 0, "one that ends in order leaves nothing");
}

pub(crate) fn other_programs_at_the_interface_stay() {
    enter_network();
    if Hook::of_machine() != Hook::Tcx {
        ignore("before Linux 6.6 the programs at an interface cannot be told");
    }
    // Somebody else's, which happens to be the same program.
    let other = attach(Hook::Tcx);
    let ours = attach(Hook::Tcx);
    assert_eq!(programs(), 2);
    drop(ours);
    assert_eq!(programs(), 1);
    drop(other);
    assert_eq!(programs(), 0);
}
