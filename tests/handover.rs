//! Handovers of the real binary: a reload that executes it anew, in the middle of games.

mod support;

use std::collections::VecDeque;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::process::{NORAY, Process, empty_folder};
use support::traffic::{Traffic, drain};
use support::{Line, PATIENCE, Player, connect_relay, http_get, metric, own_ip, try_until};

const HTTP_PORT: u16 = 20_100;

/// The real binary as a file of its own, which a test can replace, with its configuration in a file.
struct Noray {
    process: Process,
    program: PathBuf,
    file: PathBuf,
    ip: IpAddr,
}

impl Noray {
    fn start(content: &str) -> Self {
        Self::start_under("", content)
    }

    /// Runs the shell's `script` before.
    fn start_under(script: &str, content: &str) -> Self {
        let (ip, folder) = (own_ip(), empty_folder());
        let (program, file) = (folder.join("noray"), folder.join("noray.conf"));
        fs::copy(NORAY, &program).unwrap();
        fs::write(&file, content).unwrap();
        let run = format!(
            "{script}\nshift; set -- {} --config {} \"$@\"",
            program.display(),
            file.display()
        );
        let process = Process::start(ip, &run, &[&format!("NORAY_HTTP_PORT={HTTP_PORT}")]);
        Self { process, program, file, ip }
    }

    /// The next reload finds another program.
    fn touch(&self) {
        let next = self.program.with_extension("next");
        fs::copy(NORAY, &next).unwrap();
        fs::rename(next, &self.program).unwrap();
    }

    /// What its descriptors lead to.
    fn open_files(&self) -> Vec<String> {
        let folder = Path::new("/proc").join(self.process.child.id().to_string()).join("fd");
        // Some are closed while they are looked at.
        let links =
            fs::read_dir(folder).unwrap().filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        links.map(|target| target.display().to_string()).collect()
    }

    /// Puts something else in the program's place.
    fn replace(&self, content: &[u8]) {
        let next = self.program.with_extension("next");
        fs::write(&next, content).unwrap();
        fs::set_permissions(&next, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(next, &self.program).unwrap();
    }

    /// Reloads and waits for the outcome: the exit status and the words.
    fn reload(&self) -> (Option<i32>, String) {
        words(reload(self.process.child.id()))
    }

    fn reload_well(&self) {
        let (status, said) = self.reload();
        assert_eq!((status, said.as_str()), (Some(0), ""));
    }

    /// A connection with ids.
    fn register(&self) -> Line {
        let mut line = Line::connect(self.process.players);
        line.send("register-host");
        line.expect("set-oid");
        line.expect("set-pid");
        line
    }

    fn metric(&self, name: &str) -> u64 {
        metric(SocketAddr::new(self.ip, HTTP_PORT), name)
    }

    fn relay(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, port)
    }
}

fn reload(pid: u32) -> Output {
    Command::new(NORAY).args(["reload", "--pid", &pid.to_string()]).output().unwrap()
}

fn words(output: Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn allow_many_files() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

/// Two players with a relay, and what each has sent and heard.
struct Pair {
    players: [Player; 2],
    ways: [SocketAddr; 2],
    sent: [u32; 2],
    heard: [u32; 2],
}

impl Pair {
    fn begin(noray: &Noray) -> Self {
        let [mut client, mut host] = [noray.process.join(), noray.process.join()];
        let (to_host, to_client) = connect_relay(&mut client, &mut host);
        let ways = [to_host, to_client].map(|port| noray.relay(port));
        Self { players: [client, host], ways, sent: [0; 2], heard: [0; 2] }
    }

    /// Each sends its next number.
    fn play(&mut self) {
        for (side, player) in self.players.iter().enumerate() {
            player.send(&self.sent[side].to_be_bytes(), self.ways[side]);
            self.sent[side] += 1;
        }
        self.hear();
    }

    /// All that has come came once and in order.
    fn hear(&mut self) {
        for (side, player) in self.players.iter().enumerate() {
            let heard = &mut self.heard[side];
            drain(&player.udp, |number| {
                assert_eq!(number, *heard, "once and in order");
                *heard += 1;
            });
        }
    }

    /// Plays until all has arrived.
    fn settle(&mut self) {
        let all_came = try_until(PATIENCE, || {
            self.hear();
            self.heard == [self.sent[1], self.sent[0]]
        });
        assert!(all_came, "{:?} of {:?}", self.heard, self.sent);
    }
}

const PAIRS: usize = 200;
const IDLE: usize = 500;
const HANDOVERS: usize = 20;
const SECONDS: f64 = 14.0;

#[test]
fn twenty_handovers_lose_nothing() {
    allow_many_files();
    let ranges = ["21000-21511", "20900-21511"];
    let content = |range: &str| {
        format!(
            "NORAY_MAX_CONNECTIONS_PER_IP=4096\nNORAY_UDP_RELAY_MAX_PER_IP=65536\nNORAY_UDP_RELAY_PORTS={range}\n"
        )
    };
    let settings = content(ranges[0]);
    let noray = start_with_file_only(&settings);
    let mut pairs: Vec<Pair> = (0..PAIRS).map(|_| Pair::begin(&noray)).collect();
    let mut idle: Vec<Line> = (0..IDLE).map(|_| noray.register()).collect();
    let (is_over, noray) = (AtomicBool::new(false), &noray);
    let counts = thread::scope(|scope| {
        let is_over = &is_over;
        // Also where this thread panics.
        let end = SetWhenDropped(is_over);
        let others = [
            scope.spawn(move || scrape(noray, is_over)),
            scope.spawn(move || register(noray, is_over)),
            scope.spawn(move || ask_for_relays(noray, is_over)),
        ];
        let handing = scope.spawn(move || {
            let mut random = fastrand::Rng::with_seed(1);
            for number in 0..HANDOVERS {
                let pause = Duration::from_millis(random.u64(50..600));
                crossbeam_channel::after(pause).recv().unwrap();
                // Another program, or other ports, or both.
                if number % 3 != 1 {
                    noray.touch();
                }
                if number % 3 != 0 {
                    fs::write(&noray.file, content(ranges[(number + 1) % 2])).unwrap();
                }
                noray.reload_well();
            }
        });
        let mut traffic = Traffic::new();
        for pair in &mut pairs {
            traffic.add(60.0, [0.0, SECONDS], |_| pair.play());
        }
        // Every fifth of those that are connected is in the middle of a line for most of the time.
        for line in idle.iter_mut().step_by(5) {
            let mut is_half = false;
            traffic.add(0.5, [0.1, SECONDS], move |_| {
                if is_half {
                    line.send_bytes(b"line\n");
                    assert_eq!(line.expect("echo"), "half a line");
                }
                line.send_bytes(b"echo half a ");
                is_half = true;
            });
        }
        traffic.run(SECONDS);
        drop(traffic);
        handing.join().unwrap();
        drop(end);
        others.map(|other| other.join().unwrap())
    });
    pairs.iter_mut().for_each(Pair::settle);
    let sent: u64 = pairs.iter().flat_map(|pair| pair.sent).map(u64::from).sum();
    println!("{sent} datagrams, none lost; {counts:?} scrapes, registrations and introductions");
    assert!(sent >= 300_000, "{sent}");
    for (number, line) in idle.iter_mut().enumerate() {
        if number % 5 == 0 {
            line.send_bytes(b"line\n");
            assert_eq!(line.expect("echo"), "half a line");
        }
        line.settle();
    }
    for pair in &mut pairs {
        pair.players.iter_mut().for_each(|player| player.line.settle());
    }
    assert_eq!(noray.metric("noray_relay_datagrams_total"), sent, "counted on");
    assert_eq!(noray.metric("noray_connections_refused_total"), 0);
}

/// Ends the loops of other threads.
struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The ports of relays are in the file, so that it can change them.
fn start_with_file_only(content: &str) -> Noray {
    start_at(own_ip(), content)
}

fn start_at(ip: IpAddr, content: &str) -> Noray {
    let folder = empty_folder();
    let (program, file) = (folder.join("noray"), folder.join("noray.conf"));
    fs::copy(NORAY, &program).unwrap();
    fs::write(&file, content).unwrap();
    let run = format!(
        "set -- {} --config {} --set NORAY_SOCKET_HOST={ip} --set NORAY_UDP_HOST={ip} --set NORAY_HTTP_HOST={ip} \
         --set NORAY_SOCKET_PORT=20200 --set NORAY_UDP_REGISTRAR_PORT=20201 --set NORAY_HTTP_PORT={HTTP_PORT}",
        program.display(),
        file.display()
    );
    let process = Process::start(ip, &run, &[]);
    Noray { process, program, file, ip }
}

fn scrape(noray: &Noray, is_over: &AtomicBool) -> usize {
    let mut scrapes = 0;
    while !is_over.load(Ordering::Relaxed) {
        let (status, _) = http_get(SocketAddr::new(noray.ip, HTTP_PORT), "/metrics");
        assert!(status.contains("200"), "{status}");
        scrapes += 1;
        crossbeam_channel::after(Duration::from_millis(20)).recv().unwrap();
    }
    scrapes
}

/// Players who come, get their ids in two pieces, and stay.
fn register(noray: &Noray, is_over: &AtomicBool) -> usize {
    let mut lines = VecDeque::new();
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        let mut line = Line::connect(noray.process.players);
        line.send_bytes(b"register-");
        crossbeam_channel::after(Duration::from_millis(3)).recv().unwrap();
        line.send_bytes(b"host\n");
        line.expect("set-oid");
        line.expect("set-pid");
        lines.push_back(line);
        if lines.len() > 100 {
            lines.pop_front();
        }
        count += 1;
    }
    lines.iter_mut().for_each(Line::settle);
    count
}

/// Each question is answered once, to both.
fn ask_for_relays(noray: &Noray, is_over: &AtomicBool) -> usize {
    let mut host = noray.process.join();
    let mut asker = noray.process.join();
    let mut ports = None;
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        let told = connect_relay(&mut asker, &mut host);
        assert_eq!(told, *ports.get_or_insert(told), "the same pair");
        asker.line.settle();
        count += 1;
        // A host may be asked eight times a second.
        crossbeam_channel::after(Duration::from_millis(140)).recv().unwrap();
    }
    host.line.settle();
    count
}

#[test]
fn a_program_that_cannot_take_over_is_refused_and_everything_goes_on() {
    let noray = Noray::start("");
    let mut pair = Pair::begin(&noray);
    let half = fs::read(NORAY).unwrap();
    let script = |text: &str| format!("#!/bin/sh\n{text}\n").into_bytes();
    for (what, program, said) in [
        ("it crashes", script("kill -SEGV $$"), "cannot take over: it said nothing and ended with"),
        ("it hangs", script("exec sleep 60"), "cannot take over: it has not answered for 5 s"),
        ("it is another program", script("echo hello"), "cannot take over: hello"),
        (
            "it is older, and starts as usual",
            script("echo 'cannot listen on 0.0.0.0:8890/tcp' >&2; exit 69"),
            "cannot take over: cannot listen on",
        ),
        ("it is half written", half[..100_000].to_vec(), "cannot "),
        ("it is empty", Vec::new(), "cannot "),
        (
            "it may do less than this one",
            script(&format!("ulimit -n 12; exec {NORAY} \"$@\"")),
            "cannot take over: it tried to serve on the loopback interface, and failed: ",
        ),
    ] {
        noray.replace(&program);
        let (status, words) = noray.reload();
        assert!(status == Some(1) && words.contains(said), "{what}: {words}");
        assert!(words.contains("nothing is changed"), "{words}");
        goes_on(&noray, &mut pair);
        assert_eq!(noray.metric("noray_config_last_reload_failed"), 1);
    }
    noray.touch();
    fs::set_permissions(&noray.program, fs::Permissions::from_mode(0o644)).unwrap();
    let (status, words) = noray.reload();
    assert!(status == Some(1) && words.contains("cannot be run"), "{words}");
    goes_on(&noray, &mut pair);
    // One that can: then all is well again.
    noray.touch();
    noray.reload_well();
    goes_on(&noray, &mut pair);
    assert_eq!(noray.metric("noray_config_last_reload_failed"), 0);
}

fn goes_on(noray: &Noray, pair: &mut Pair) {
    for _ in 0..10 {
        pair.play();
    }
    pair.settle();
    pair.players.iter_mut().for_each(|player| player.line.settle());
    noray.process.join();
}

#[test]
fn what_the_new_configuration_lacks_refuses_a_handover() {
    let noray = start_with_file_only("NORAY_UDP_RELAY_PORTS=21000-21063\n");
    let mut pair = Pair::begin(&noray);
    let taken = UdpSocket::bind(SocketAddr::new(noray.ip, 21_070)).unwrap();
    for (content, said) in [
        ("NORAY_UDP_RELAY_PORTS=21000-21080\n", ":21070/udp cannot be opened: "),
        ("NORAY_UDP_RELAY_PORTS=21000-21080\nNORAY_TYPO=1\n", "NORAY_TYPO"),
        ("NORAY_UDP_RELAY_PORTS=none\n", "NORAY_UDP_RELAY_PORTS"),
    ] {
        fs::write(&noray.file, content).unwrap();
        let (status, words) = noray.reload();
        assert!(status == Some(1) && words.contains(said), "{words}");
        goes_on(&noray, &mut pair);
    }
    drop(taken);
    fs::write(&noray.file, "NORAY_UDP_RELAY_PORTS=21000-21080\n").unwrap();
    noray.reload_well();
    goes_on(&noray, &mut pair);
    assert_eq!(noray.metric("noray_relay_ports{state=\"in-use\"}"), 2);
}

#[test]
fn a_range_that_shrinks_leaves_live_relays_alone() {
    let content = |ports: &str| {
        format!(
            "NORAY_UDP_RELAY_PORTS={ports}\nNORAY_UDP_RELAY_TIMEOUT=2s\nNORAY_UDP_RELAY_CLEANUP_INTERVAL=1s\n"
        )
    };
    let noray = start_with_file_only(&content("21000-21063"));
    let mut pair = Pair::begin(&noray);
    for ports in ["21200-21210", "21000-21063", "21200-21210"] {
        fs::write(&noray.file, content(ports)).unwrap();
        noray.reload_well();
        goes_on(&noray, &mut pair);
    }
    let mut newer = Pair::begin(&noray);
    assert!(newer.ways.iter().all(|way| (21_200..=21_210).contains(&way.port())));
    goes_on(&noray, &mut newer);
    let old = pair.ways[0];
    assert!(UdpSocket::bind(old).is_err(), "it is still open");
    // It is idle now, and its ports end with it.
    let is_closed = try_until(PATIENCE, || {
        newer.play();
        crossbeam_channel::after(Duration::from_millis(20)).recv().unwrap();
        UdpSocket::bind(old).is_ok()
    });
    assert!(is_closed, "{old}");
}

#[test]
fn a_port_that_another_program_had_is_there_after_a_handover() {
    let ip = own_ip();
    let taken = UdpSocket::bind((ip, 21_003)).unwrap();
    let noray = start_at(ip, "NORAY_UDP_RELAY_PORTS=21000-21007\n");
    let unbindable = || noray.metric("noray_relay_ports{state=\"unbindable\"}");
    assert_eq!(unbindable(), 1);
    noray.touch();
    noray.reload_well();
    assert_eq!(unbindable(), 1);
    drop(taken);
    noray.touch();
    noray.reload_well();
    assert_eq!(unbindable(), 0);
    assert_eq!(noray.metric("noray_relay_ports{state=\"free\"}"), 8);
}

#[test]
fn other_addresses_for_players_and_metrics_are_taken_at_once() {
    let (ip, folder) = (own_ip(), empty_folder());
    let file = folder.join("noray.conf");
    let content = |port: u16| {
        format!(
            "NORAY_SOCKET_HOST={ip}\nNORAY_UDP_HOST={ip}\nNORAY_HTTP_HOST={ip}\nNORAY_SOCKET_PORT={port}\n\
             NORAY_UDP_REGISTRAR_PORT={}\nNORAY_HTTP_PORT={}\nNORAY_UDP_RELAY_PORTS=21000-21063\n",
            port + 1,
            port + 2
        )
    };
    fs::write(&file, content(20_300)).unwrap();
    let run = format!("set -- {NORAY} --config {}", file.display());
    let process = Process::start(ip, &run, &[]);
    let at = |port: u16| SocketAddr::new(ip, port);
    let mut before = Player::register_at(at(20_300), at(20_301), ip);
    before.register_address();
    fs::write(&file, content(20_310)).unwrap();
    assert_eq!(words(reload(process.child.id())), (Some(0), String::new()));
    before.line.settle();
    let mut after = Player::register_at(at(20_310), at(20_311), ip);
    after.register_address();
    after.line.send(&format!("connect {}", before.oid));
    assert_eq!(after.line.expect("connect"), before.address().to_string());
    assert!(std::net::TcpStream::connect(at(20_300)).is_err(), "the old port is closed");
    assert_eq!(metric(at(20_312), "noray_active_hosts"), 2);
    assert!(std::net::TcpStream::connect(at(20_302)).is_err());
}

#[test]
fn a_link_that_leads_to_another_program_is_an_upgrade() {
    let noray = Noray::start("");
    let folder = noray.program.parent().unwrap();
    let [first, second, link] = ["noray-1", "noray-2", "link"].map(|name| folder.join(name));
    // From a program's file to a link, and then to another file behind the link.
    for version in [&first, &second] {
        fs::copy(NORAY, version).unwrap();
        symlink(version, &link).unwrap();
        fs::rename(&link, &noray.program).unwrap();
        let mut pair = Pair::begin(&noray);
        noray.reload_well();
        let exe = format!("/proc/{}/exe", noray.process.child.id());
        assert_eq!(fs::read_link(exe).unwrap(), *version);
        goes_on(&noray, &mut pair);
    }
}

/// As many files are open as the limit allows. Sockets need no second descriptor, so that is enough.
#[test]
fn a_server_that_is_full_up_to_its_last_descriptor_hands_over() {
    let noray = Noray::start_under("ulimit -n 150", "");
    let mut pair = Pair::begin(&noray);
    let mut players = Vec::new();
    loop {
        let mut line = Line::connect(noray.process.players);
        line.send("register-host");
        if line.receive().is_none_or(|answer| answer.starts_with("error")) {
            break;
        }
        players.push(line);
    }
    for _ in 0..3 {
        noray.touch();
        noray.reload_well();
        pair.play();
        pair.settle();
    }
    for line in &mut players {
        line.expect("set-pid");
        line.settle();
    }
    let pid = noray.process.child.id().to_string();
    let limit = format!("--nofile={}", noray.open_files().len() + 3);
    let lowered = Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap();
    assert!(lowered.success());
    noray.touch();
    let (status, words) = noray.reload();
    assert!(status == Some(1) && words.contains("raise LimitNOFILE="), "{words}");
    pair.play();
    pair.settle();
}

/// A player whose connection is closed while it sends on reads why, also where a handover comes in between.
#[test]
fn who_is_turned_away_in_the_middle_of_a_handover_reads_why() {
    let noray = Noray::start("NORAY_MAX_CONNECTIONS=40\nNORAY_MAX_CONNECTIONS_PER_IP=40\n");
    let _players: Vec<Line> = (0..30).map(|_| noray.register()).collect();
    let mut told = [0; 2];
    for _ in 0..10 {
        noray.touch();
        let pid = noray.process.child.id();
        let reloading = thread::spawn(move || words(reload(pid)));
        // Each of these is closed by the server, with more to come from its player.
        while !reloading.is_finished() {
            let mut long = Line::connect(noray.process.players);
            long.send_bytes(&[b'x'; 5000]);
            let mut crowd: Vec<Line> =
                (0..12).map(|_| Line::connect(noray.process.players)).collect();
            crowd.iter_mut().for_each(|line| line.send("register-host"));
            let mut answers: Vec<String> = crowd.iter_mut().filter_map(Line::receive).collect();
            assert_eq!(answers.len(), crowd.len(), "each one gets an answer");
            answers.retain(|answer| answer.starts_with("error server-full"));
            let answer = long.receive().expect("it is told why it is closed");
            told[0] += answers.len();
            told[1] += usize::from(answer.starts_with("error line-too-long"));
        }
        assert_eq!(reloading.join().unwrap(), (Some(0), String::new()));
    }
    println!("told why: {told:?}");
    assert!(told.iter().all(|count| *count > 10), "{told:?}");
}

#[test]
fn a_failure_after_the_last_check_ends_in_a_server_that_serves() {
    let mut noray = Noray::start("");
    let mut lost = noray.process.join();
    let real = noray.program.with_extension("real");
    fs::copy(NORAY, &real).unwrap();
    // It says yes, and then the registrar's socket is not there.
    let script = format!(
        "#!/bin/sh\n[ \"$NORAY_HANDOVER\" = take-over ] && exec 5>&-\nexec {} \"$@\"\n",
        real.display()
    );
    noray.replace(script.as_bytes());
    let (status, said) = noray.reload();
    assert!(status == Some(1) && said.contains("the server started anew"), "{said}");
    let log = noray.process.log_until("the handover failed");
    assert!(log.contains("are lost, and the server starts anew"), "{log}");
    assert_eq!(lost.line.receive(), None, "its connection is gone");
    let log = noray.process.log_until("players: ");
    let (_, rest) = log.split_once("players: ").unwrap();
    noray.process.players = rest.split_once("/tcp").unwrap().0.parse().unwrap();
    let (_, rest) = log.split_once("registrar: ").unwrap();
    noray.process.registrar = rest.split_once("/udp").unwrap().0.parse().unwrap();
    noray.process.join();
}

#[test]
fn a_program_that_is_gone_after_its_check_leaves_the_old_one_with_everything() {
    let noray = Noray::start("");
    let mut pair = Pair::begin(&noray);
    // It says yes, and then its file is not there.
    noray.replace(b"#!/bin/sh\nrm \"$0\"\necho 'noray can take over'\n");
    let (status, said) = noray.reload();
    assert!(status == Some(1) && said.contains("cannot be executed: No such file"), "{said}");
    goes_on(&noray, &mut pair);
    // A reply to a player that has gone does not end it either.
    noray.process.signal("PIPE");
    goes_on(&noray, &mut pair);
    assert_eq!(noray.metric("noray_config_last_reload_failed"), 1);
    // The next program is found again.
    noray.touch();
    noray.reload_well();
    goes_on(&noray, &mut pair);
}

#[test]
fn signals_at_every_moment_of_a_handover_are_obeyed() {
    for pause in [0, 5, 10, 15, 20, 30, 40, 60] {
        let noray = Noray::start("NORAY_DRAIN_TIMEOUT=1h\n");
        let mut player = noray.process.join();
        noray.touch();
        noray.process.signal("HUP");
        crossbeam_channel::after(Duration::from_millis(pause)).recv().unwrap();
        noray.process.signal("TERM");
        println!("after {pause} ms");
        assert_eq!(player.line.receive(), None, "it drains, and nobody plays");
        let (status, log) = noray.process.wait();
        assert_eq!(status, Some(0), "after {pause} ms:\n{log}");
        assert!(log.lines().last().is_some_and(|line| line.ends_with("ended")), "{log}");
    }
}

#[test]
fn two_reloads_at_once_are_one_after_the_other() {
    let noray = Noray::start("");
    let mut pair = Pair::begin(&noray);
    for _ in 0..5 {
        noray.touch();
        let pid = noray.process.child.id();
        let outputs = [(); 3].map(|()| thread::spawn(move || words(reload(pid))));
        let outcomes = outputs.map(|output| output.join().unwrap());
        assert!(outcomes.iter().any(|(status, _)| *status == Some(0)), "{outcomes:?}");
        for (status, said) in outcomes {
            assert!(status == Some(0) || said.contains("try again later"), "{said}");
        }
        goes_on(&noray, &mut pair);
    }
}

#[test]
fn a_draining_server_does_not_hand_over() {
    let mut noray = Noray::start("NORAY_DRAIN_TIMEOUT=1h\n");
    let mut pair = Pair::begin(&noray);
    noray.process.signal("TERM");
    noray.process.log_until("draining: waiting for 1 relay");
    noray.touch();
    let (status, said) = noray.reload();
    assert!(status == Some(1) && said.contains("the server drains"), "{said}");
    pair.play();
    pair.settle();
}

/// Neither the snapshot nor the old program's file and epoll instance.
#[test]
fn nothing_of_the_old_process_stays_open() {
    let noray = Noray::start("");
    noray.process.join();
    let polls = |files: &[String]| files.iter().filter(|file| file.contains("eventpoll")).count();
    let before = polls(&noray.open_files());
    noray.touch();
    noray.reload_well();
    // Players are served after all that was to be closed.
    noray.process.join();
    let after = noray.open_files();
    assert_eq!(polls(&after), before, "{after:#?}");
    for file in after {
        assert!(!file.contains("handover") && !file.contains("deleted"), "{file}");
    }
}

/// The channel to the loop is full of their commands when their threads must end: these wait for room in it.
#[test]
fn four_thousand_players_who_all_talk_are_answered_once_and_in_order() {
    const PLAYERS: usize = 4000;
    const LINES: usize = 40;
    allow_many_files();
    let noray = Noray::start("NORAY_MAX_CONNECTIONS=4200\nNORAY_MAX_CONNECTIONS_PER_IP=4200\n");
    let mut players: Vec<Line> = (0..PLAYERS).map(|_| noray.register()).collect();
    noray.touch();
    let pid = noray.process.child.id();
    let reloading = thread::spawn(move || words(reload(pid)));
    for line in &mut players {
        let lines: String = (0..LINES).map(|number| format!("echo {number}\n")).collect();
        line.send_bytes(lines.as_bytes());
    }
    assert_eq!(reloading.join().unwrap(), (Some(0), String::new()));
    for line in &mut players {
        for number in 0..LINES {
            assert_eq!(line.expect("echo"), number.to_string());
        }
        line.settle();
    }
    assert_eq!(noray.metric("noray_tcp_connections"), PLAYERS as u64);
    assert_eq!(noray.metric("noray_active_hosts"), PLAYERS as u64);
}
