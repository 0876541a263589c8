//! Descriptors and threads that run out in the middle of a game.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::game::{Match, Noray, need};
use crate::support::process::NORAY;
use crate::support::{Line, PATIENCE, http_get, own_ip, try_until};

/// How long a player waits in vain: many times as long as the accept loop waits to try again.
const IN_VAIN: Duration = Duration::from_secs(1);

/// Sets the soft limit on open files of a running process.
fn limit_open_files(noray: &Noray, limit: &str) {
    let arguments = [format!("--pid={}", noray.process.child.id()), format!("--nofile={limit}:")];
    let status = Command::new("prlimit").args(arguments).status().unwrap();
    assert!(status.success(), "nofile={limit}");
}

/// Connects and asks for ids, without waiting for them.
fn ask_for_ids(noray: &Noray) -> Line {
    let mut line = Line::connect(noray.process.players);
    line.send("register-host");
    line
}

/// Whether nothing comes within [`IN_VAIN`].
fn waits_in_vain(line: &Line) -> bool {
    line.stream().set_read_timeout(Some(IN_VAIN)).unwrap();
    let read = line.stream().peek(&mut [0]);
    line.stream().set_read_timeout(Some(PATIENCE)).unwrap();
    read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

pub(crate) fn players_beyond_the_open_files_wait_and_are_served_once_there_are_more() {
    need("prlimit", &["--version"], "util-linux");
    let mut noray = Noray::start("", &[]);
    let game = Match::begin(&noray.process);
    let mut bystanders = [noray.process.join(), noray.process.join()];
    noray.log();
    let open_files = noray.count("fd");
    limit_open_files(&noray, "10");

    // Who waits in accept(2) has its descriptor already: one more may come in.
    let mut waiting = [ask_for_ids(&noray), ask_for_ids(&noray)];
    assert!(waits_in_vain(&waiting[1]), "it was accepted with a limit below {open_files}");
    let log = noray.process.log_until("LimitNOFILE");
    assert!(log.lines().last().unwrap().contains(" WARN "), "{log}");
    assert!(noray.count("fd") <= open_files + 2);
    let [one, other] = &mut bystanders;
    crate::support::connect_relay(one, other);
    game.goes_on();

    limit_open_files(&noray, "1000");
    for line in &mut waiting {
        line.expect("set-oid");
        line.expect("set-pid");
    }
    noray.process.join();
    let log = noray.log();
    assert!(!log.contains("LimitNOFILE"), "once is enough: {log}");
    game.end().settle();
}

/// The binary at a place that every user can reach.
struct PublicCopy(PathBuf);

impl PublicCopy {
    fn new() -> Self {
        let copy = Self(std::env::temp_dir().join(format!("noray-{}", own_ip())));
        fs::copy(NORAY, &copy.0).unwrap();
        fs::set_permissions(&copy.0, fs::Permissions::from_mode(0o755)).unwrap();
        copy
    }
}

impl Drop for PublicCopy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The ids of a new player, or how it was refused.
fn try_to_register(noray: &Noray) -> Result<Line, String> {
    let mut line = ask_for_ids(noray);
    let answer = line.receive().expect("an answer");
    if !answer.starts_with("set-oid ") {
        return Err(answer);
    }
    line.expect("set-pid");
    Ok(line)
}

pub(crate) fn players_beyond_the_threads_hear_that_the_server_is_full_until_others_leave() {
    const THREADS: usize = 40;
    // Nobody else's processes count against its limit.
    let user = format!("{}", 1_000_000_000 + std::process::id());
    let copy = PublicCopy::new();
    let path = copy.0.to_str().expect("UTF-8");
    let as_user = ["--reuid", &user, "--regid", &user, "--clear-groups"];
    need("setpriv", &[&as_user[..], &[path, "--version"]].concat(), "util-linux");
    let script = format!(
        "shift; set -- prlimit --nproc={THREADS} setpriv {} {path} \"$@\"",
        as_user.join(" ")
    );
    let mut noray = Noray::start(&script, &[]);
    let game = Match::begin(&noray.process);
    let mut players = Vec::new();
    let refusal = loop {
        match try_to_register(&noray) {
            Ok(player) => players.push(player),
            Err(answer) => break answer,
        }
        assert!(players.len() < THREADS, "the limit does not hold");
    };
    assert_eq!(refusal, "error server-full try again later");
    assert_eq!(noray.count("task"), THREADS);
    for _ in 0..3 {
        let mut refused = ask_for_ids(&noray);
        assert_eq!(refused.expect("error"), "server-full try again later");
        assert_eq!(refused.stream().read(&mut [0]).expect("no reset"), 0);
    }
    game.goes_on();
    players.iter_mut().for_each(Line::settle);
    let connected = players.len() as u64 + 2;
    // Whoever looks at the server then needs it most.
    assert!(http_get(noray.http(), "/healthz").0.contains("200"));
    noray.wait_for("noray_tcp_connections", connected);
    assert_eq!(noray.metric("noray_bounds_reached_total{bound=\"threads\"}"), 4);
    let log = noray.process.log_until("TasksMax");
    println!("{connected} players with {THREADS} threads");

    players.truncate(players.len() - 5);
    let mut served = 0;
    assert!(try_until(PATIENCE, || {
        if let Ok(player) = try_to_register(&noray) {
            players.push(player);
            served += 1;
        }
        served == 5
    }));
    players.iter_mut().for_each(Line::settle);
    let log = log + &noray.log();
    assert_eq!(log.matches("TasksMax").count(), 1, "once a minute is enough: {log}");
    game.end().settle();
}
