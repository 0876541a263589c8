//! A player's thread that panics in the middle of a game.
//!
//! The product has no switch for that: `strace` makes the thread's next recvfrom(2) claim more bytes than the buffer
//! holds, as a kernel never would.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::game::{Match, Noray, can_run};
use crate::support::process::{Running, ends_with_this_thread};
use crate::support::{PATIENCE, try_until};

/// The ids of the players' threads.
fn player_threads(noray: &Noray) -> BTreeSet<String> {
    let tasks = fs::read_dir(noray.proc("task")).expect("the process is there").flatten();
    let players = tasks.filter(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "player")
    });
    players.map(|task| task.file_name().into_string().expect("a number")).collect()
}

/// Makes every further read of that thread claim 5000 bytes.
///
/// # Errors
/// What strace says if it cannot be attached.
fn falsify_reads(thread: &str) -> Result<Running, String> {
    let child = ends_with_this_thread("strace")
        .args(["-p", thread, "-e", "trace=recvfrom", "-e", "inject=recvfrom:retval=5000"])
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
        Ok(strace)
    } else {
        Err(line)
    }
}

#[test]
fn a_handler_that_panics_takes_its_own_connection_with_it_and_nothing_else() {
    if !can_run("strace", &["--version"], "strace") || !can_run("setpriv", &["true"], "util-linux")
    {
        return;
    }
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
        let strace = match falsify_reads(thread) {
            Ok(strace) => strace,
            Err(reason) => {
                println!("skipped: strace cannot attach: {}", reason.trim());
                return;
            }
        };
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

        let log = noray.process.log_until(&format!("the handler of {peer} panicked"));
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
