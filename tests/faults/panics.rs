//! Threads that panic in the middle of a game: a player's takes its own connection with it, one of the server's own ends
//! the process.
//!
//! The product has no switch for that: `strace` falsifies what a system call of the thread returns. A recvfrom(2), sendto(2)
//! or write(2), for instance, claims more bytes than the buffer holds, as a kernel never would.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::game::{Match, Noray, need};
use crate::harness::ignore;
use crate::support::process::{Running, ends_with_this_thread};
use crate::support::{Line, PATIENCE, try_until};

/// The ids of the threads of that name.
fn threads(noray: &Noray, name: &str) -> BTreeSet<String> {
    let tasks = fs::read_dir(noray.proc("task")).expect("the process is there").flatten();
    let of_name = tasks.filter(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    });
    of_name.map(|task| task.file_name().into_string().expect("a number")).collect()
}

fn player_threads(noray: &Noray) -> BTreeSet<String> {
    threads(noray, "player")
}

/// Falsifies what that system call of that thread returns. Where strace cannot be attached, the test is ignored.
fn falsify(thread: &str, call: &str, fault: &str) -> Running {
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{fault}"));
    let child = ends_with_this_thread("strace")
        .args(["-p", thread, "-e", &trace, "-e", &inject])
        .stderr(Stdio::piped())
        .spawn()
        .expect("setpriv runs");
    let mut strace = Running(child);
    let mut said = BufReader::new(strace.0.stderr.take().expect("it is piped"));
    let mut line = String::new();
    said.read_line(&mut line).expect("text");
    if line.contains("attached") {
        // What it traces is of no interest, but must go somewhere.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        strace
    } else {
        ignore(format!("strace cannot attach: {}", line.trim()));
    }
}

/// The programs that [`falsify`] needs.
fn need_strace() {
    need("strace", &["--version"], "strace");
    need("setpriv", &["true"], "util-linux");
}

pub(crate) fn a_handler_that_panics_takes_its_own_connection_with_it_and_nothing_else() {
    need_strace();
    const LEVELS: [&str; 3] = [
        "noray_tcp_connections",
        "noray_active_hosts",
        "noray_table_entries{table=\"connected-networks\"}",
    ];
    let mut noray = Noray::start("", &["NORAY_LOGLEVEL=trace"]);
    let game = Match::begin(&noray.process);
    let mut bystander = noray.process.join();
    let levels = LEVELS.map(|name| noray.metric(name));
    let threads = player_threads(&noray);
    for _ in 0..3 {
        let mut victim = noray.process.join();
        let peer = victim.line.stream().local_addr().unwrap();
        let new: Vec<String> = player_threads(&noray).difference(&threads).cloned().collect();
        let [thread] = new.as_slice() else { panic!("not one new thread: {new:?}") };
        let strace = falsify(thread, "recvfrom", "retval=5000");
        // The read that was under way when it was attached may end well.
        let mut answers = 0;
        while let Ok(()) = std::io::Write::write_all(&mut victim.line.stream(), b"echo x\n") {
            match victim.line.receive() {
                Some(_) => answers += 1,
                None => break,
            }
            assert!(answers < 3, "reads are not falsified");
        }
        assert_eq!(victim.line.receive(), None);
        game.goes_on();
        bystander.line.settle();
        for (name, level) in LEVELS.into_iter().zip(levels) {
            noray.wait_for(name, level);
        }
        assert!(try_until(PATIENCE, || player_threads(&noray) == threads), "a thread is left");

        let log = noray.process.log_until(&format!("the thread of {peer} panicked"));
        let errors: Vec<&str> = log.lines().filter(|line| line.contains(" ERROR ")).collect();
        assert_eq!(errors.len(), 2, "{log}");
        assert!(
            errors[0].contains("src/shell/player_thread.rs") && errors[0].contains("5000"),
            "{log}"
        );
        assert!(!log.contains(&victim.pid[..16]), "{log}");
        drop(strace);
    }
    assert!(crate::support::http_get(noray.http(), "/healthz").0.contains("200"));
    noray.process.join();
    game.end().settle();
}

/// Has a thread of the server's own panic. The process ends with status 1; returns what it logged.
fn panic_thread(name: &str, call: &str, fault: &str, provoke: impl Fn(&Noray)) -> String {
    let noray = Noray::start("", &["NORAY_LOGLEVEL=debug", "NORAY_MAX_CONNECTIONS=1"]);
    assert!(try_until(PATIENCE, || !threads(&noray, name).is_empty()), "no thread {name}");
    let thread = threads(&noray, name).pop_first().expect("it lives on");
    let _strace = falsify(&thread, call, fault);
    provoke(&noray);
    let (status, log) = noray.process.wait();
    assert_eq!(status, Some(1), "{log}");
    log
}

pub(crate) fn a_thread_of_the_servers_own_that_panics_ends_the_process_for_systemd_to_restart_it() {
    need_strace();
    // The accept loop refuses the second player. The first one's thread lives: nobody may wait for it.
    let accept_loop = panic_thread("accept-loop", "sendto", "retval=5000", |noray| {
        let mut first = Line::connect(noray.process.players);
        first.settle();
        Line::connect(noray.process.players);
        std::mem::forget(first);
    });
    let signals = panic_thread("signals", "recvfrom", "error=ENOMEM", |noray| {
        noray.process.signal("HUP");
    });
    for (name, log) in [("accept-loop", accept_loop), ("signals", signals)] {
        let last = log.lines().last().expect("a line");
        assert!(last.contains(" ERROR ") && last.contains("panicked at"), "{name}: {log}");
    }
    // It cannot write its own end into the log's queue.
    let log = panic_thread("log", "write", "retval=5000:when=1", |noray| {
        Line::connect(noray.process.players).send("nonsense");
    });
    assert!(log.contains("thread 'log'") && log.contains("panicked at"), "{log}");
}
