//! A process that stands still for a minute in the middle of a game, and goes on.

use std::io::ErrorKind;
use std::time::Duration;

use crate::game::{Noray, Pair};
use crate::support::{Line, PATIENCE, now, register_address, udp_socket};

/// Longer than every deadline of a connection, and many times the relay's.
const STANDSTILL: Duration = Duration::from_secs(60);

fn connect(noray: &Noray) -> Line {
    let mut line = Line::connect(noray.process.players);
    line.settle();
    line
}

pub(crate) fn a_minute_of_standing_still_costs_no_relay_and_no_player() {
    let mut noray =
        Noray::start("", &["NORAY_UDP_RELAY_TIMEOUT=5s", "NORAY_UDP_RELAY_CLEANUP_INTERVAL=1s"]);
    let mut pair = Pair::join(&noray.process);
    let mut idle = noray.process.join();
    let mut unregistered = connect(&noray);
    let mut half = noray.process.join();
    half.line.send_bytes(b"echo set");
    pair.play();
    noray.log();

    noray.process.signal("STOP");
    let begin = now();
    let mut newcomer = Line::connect(noray.process.players);
    newcomer.send("register-host");
    let [client, host] = &pair.players;
    client.send(b"sent meanwhile", pair.ways[0]);
    newcomer.stream().set_read_timeout(Some(STANDSTILL)).unwrap();
    let nothing = newcomer.stream().peek(&mut [0]).expect_err("it stands still");
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    assert!(now() - begin >= STANDSTILL);
    newcomer.stream().set_read_timeout(Some(PATIENCE)).unwrap();
    noray.process.signal("CONT");

    assert_eq!(host.receive(), (b"sent meanwhile".to_vec(), pair.ways[1]));
    pair.play();
    newcomer.expect("set-oid");
    let pid = newcomer.expect("set-pid");
    let udp = udp_socket([127, 0, 0, 1].into());
    register_address(&udp, &pid, noray.process.registrar);
    unregistered.settle();
    unregistered.send("register-host");
    unregistered.expect("set-oid");
    unregistered.expect("set-pid");
    half.line.send("tled");
    assert_eq!(half.line.expect("echo"), "settled");
    idle.line.settle();
    pair.settle();
    pair.play();
    assert_eq!(noray.metric("noray_relay_expired"), 0);
    for reason in ["unregistered", "half-line"] {
        let name = format!("noray_connections_closed_total{{reason=\"{reason}\"}}");
        assert_eq!(noray.metric(&name), 0, "{name}");
    }
    let log = noray.log();
    assert!(!log.contains("disconnected") && !log.contains("WARN"), "{log}");
    // Silence of the players' own still counts.
    noray.wait_for("noray_relay_expired", 1);
}
