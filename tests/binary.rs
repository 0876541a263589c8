//! The real binary: its command line, exit statuses, messages, limits and signals.

mod support;

use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Output};

use support::process::{NORAY, Process, empty_folder};
use support::{Line, own_ip};

fn noray(arguments: &[&str]) -> Output {
    Command::new(NORAY).args(arguments).current_dir(empty_folder()).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn version_and_help() {
    let version = noray(&["--version"]);
    assert_eq!(
        (version.status.code(), text(&version.stdout)),
        (Some(0), format!("noray {}\n", env!("CARGO_PKG_VERSION")))
    );
    let help = noray(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    for word in ["--config", "--set", "--check-config", "--version", "noray.conf.example"] {
        assert!(text(&help.stdout).contains(word), "{word}");
    }
    for command in [&["-h"][..], &["probe", "-h"], &["reload", "-h"]] {
        let short = noray(command);
        assert_eq!(short.status.code(), Some(0), "{command:?}");
        assert!(text(&short.stdout).starts_with("Usage: noray"), "{}", text(&short.stdout));
    }
    let wrong = noray(&["--prot", "1"]);
    assert_eq!(wrong.status.code(), Some(64));
    assert!(text(&wrong.stderr).contains("--prot"));
}

#[test]
fn check_config_shows_values_with_their_origin() {
    let folder = empty_folder();
    std::fs::write(folder.join("noray.conf"), "NORAY_OID_LENGTH=5\n").unwrap();
    let output = Command::new(NORAY)
        .args(["--check-config", "--set", "NORAY_PID_LENGTH=64"])
        .current_dir(&folder)
        .env("NORAY_LOGLEVEL", "warn")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    for line in [
        "NORAY_OID_LENGTH=5 # noray.conf:1",
        "NORAY_PID_LENGTH=64 # command line",
        "NORAY_LOGLEVEL=warn # environment",
        "NORAY_SOCKET_PORT=8890 # default",
    ] {
        assert!(text(&output.stdout).lines().any(|shown| shown == line), "{line}");
    }
}

#[test]
fn all_mistakes_are_named_and_the_status_is_78() {
    let file = empty_folder().join("my.conf");
    std::fs::write(&file, "NORAY_OID_LENGHT=5\nNORAY_HTTP_PORT=99999\n").unwrap();
    let file = file.to_str().unwrap();
    for check in [&["--check-config"][..], &[]] {
        let output = noray(&[&["--config", file, "--set", "x"], check].concat());
        assert_eq!(output.status.code(), Some(78));
        let errors = text(&output.stderr);
        let expected = [
            format!("{file}:1: NORAY_OID_LENGHT: unknown key, did you mean NORAY_OID_LENGTH?"),
            format!("{file}:2: NORAY_HTTP_PORT: `99999` is not a port"),
            "command line: --set x: not of the form KEY=value".to_owned(),
        ];
        for mistake in expected {
            assert!(
                errors.lines().any(|line| line.starts_with(&mistake)),
                "{mistake} in\n{errors}"
            );
        }
    }
    let output = noray(&["--config", "nowhere.conf"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(text(&output.stderr).starts_with("nowhere.conf: cannot be read: No such file"));
}

#[test]
fn warnings_are_shown_and_logged_and_the_server_starts() {
    let folder = empty_folder();
    std::fs::write(folder.join(".env"), "SOCKET_PORT=1\n").unwrap();
    let file = folder.join(".env").display().to_string();
    let line = format!(
        "{file}:1: SOCKET_PORT: the line is ignored: unknown key, did you mean NORAY_SOCKET_PORT?"
    );
    let output = noray(&["--config", &file, "--check-config"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr), format!("warning: {line}\n"));
    assert!(text(&output.stdout).contains("NORAY_SOCKET_PORT=8890 # default"));

    let environment = "export NORAY_BIN=/usr/bin/noray";
    let script = format!("{environment}\nset -- \"$@\" --config {file}");
    let process = Process::start(own_ip(), &script, &[]);
    for warning in [&line, "environment: NORAY_BIN: the variable is ignored"] {
        let is_it = |logged: &str| logged.contains(" WARN ") && logged.contains(warning);
        assert!(process.start.lines().any(is_it), "{warning} in {}", process.start);
    }
    assert!(process.start.contains(" starts, 7 settings set, see --check-config\n"));
}

#[test]
fn a_file_that_may_not_be_read_names_the_user() {
    // Root may read everything, unless it has lost its capabilities.
    let program = "[ $(id -u) != 0 ] || lose='setpriv --bounding-set=-all --inh-caps=-all'\n\
                   chmod 0 \"$1\" && exec $lose \"$0\" --config \"$1\"";
    let file = std::env::temp_dir().join(format!("noray-{}.conf", own_ip()));
    std::fs::write(&file, "").unwrap();
    let output = Command::new("sh").args(["-c", program, NORAY]).arg(&file).output().unwrap();
    std::fs::remove_file(&file).unwrap();
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{error}");
    for word in [&file.display().to_string(), "Permission denied", "noray runs as user ", "chmod"] {
        assert!(error.contains(word), "{word} in {error}");
    }
}

#[test]
fn a_taken_needed_port_is_named_and_the_status_is_69() {
    let ip = own_ip();
    // Not any port: it might be one of the relays'.
    let tcp = TcpListener::bind((ip, 20_100)).unwrap();
    let udp = UdpSocket::bind((ip, 20_100)).unwrap();
    let cases = [
        ("NORAY_SOCKET_PORT", tcp.local_addr().unwrap(), "/tcp"),
        ("NORAY_UDP_REGISTRAR_PORT", udp.local_addr().unwrap(), "/udp"),
    ];
    for (key, address, protocol) in cases {
        let [socket_host, udp_host] =
            ["SOCKET", "UDP"].map(|which| format!("NORAY_{which}_HOST={ip}"));
        let setting = format!("{key}={}", address.port());
        let output = noray(&["--set", &socket_host, "--set", &udp_host, "--set", &setting]);
        let log = text(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{log}");
        for word in [&format!("{address}{protocol}"), key, "in use", "ss -l"] {
            assert!(log.lines().last().unwrap().contains(word), "{word} in {log}");
        }
    }
}

#[test]
fn a_taken_http_port_is_a_warning() {
    let ip = own_ip();
    let taken = TcpListener::bind((ip, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let process = Process::start(ip, "", &[&format!("NORAY_HTTP_PORT={port}")]);
    assert!(process.start.contains("WARN"), "{}", process.start);
    assert!(process.start.contains(&format!("{ip}:{port}/tcp")), "{}", process.start);
    Line::connect(process.players).settle();
}

#[test]
fn taken_relay_ports_are_left_out_and_named_with_the_remedy() {
    let ip = own_ip();
    let _taken = [20_005, 20_007, 20_008].map(|port| UdpSocket::bind((ip, port)).unwrap());
    let process = Process::start(ip, "", &[]);
    let warning = process.start.lines().find(|line| line.contains("WARN")).expect("a warning");
    for word in ["3 of 64 relay ports", "20005,20007-20008", "ip_local_reserved_ports"] {
        assert!(warning.contains(word), "{word} in {warning}");
    }
    assert!(process.start.contains("relays: 61 of 64 ports, 20000-20004,20006,20009-20063/udp"));
}

#[test]
fn the_limit_on_open_files_is_raised_by_itself() {
    let process = Process::start(own_ip(), "ulimit -Sn 40", &["NORAY_MAX_CONNECTIONS=10"]);
    assert!(process.start.contains("relays: 64 of 64 ports"), "{}", process.start);
    assert!(!process.start.contains("WARN"), "{}", process.start);
}

#[test]
fn where_descriptors_are_few_players_hear_that_the_server_is_full() {
    let all_from_one_ip = ["NORAY_MAX_CONNECTIONS_PER_IP=4096"];
    let process = Process::start(own_ip(), "ulimit -n 140", &all_from_one_ip);
    for word in [
        "23 of 64 relay ports are left out",
        "only 35 of NORAY_MAX_CONNECTIONS=4096",
        "LimitNOFILE=",
    ] {
        assert!(process.start.contains(word), "{word} in {}", process.start);
    }
    let mut players: Vec<Line> = (0..35).map(|_| Line::connect(process.players)).collect();
    players.iter_mut().for_each(Line::settle);
    assert_eq!(Line::connect(process.players).expect("error"), "server-full try again later");
    players.pop();
    players.iter_mut().for_each(Line::settle);
}

#[test]
fn sigint_and_sigterm_end_it_cleanly() {
    for signal in ["INT", "TERM"] {
        let process = Process::start(own_ip(), "", &[]);
        let mut player = Line::connect(process.players);
        player.settle();
        process.signal(signal);
        assert_eq!(player.receive(), None, "disconnected");
        let (players, (status, log)) = (process.players, process.wait());
        assert_eq!(status, Some(0), "{log}");
        assert!(log.trim_end().ends_with("ended"), "{log}");
        TcpListener::bind(players).expect("the port is free again");
    }
}
