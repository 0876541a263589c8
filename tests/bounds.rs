//! What one player, one network or one host may use up, and what honest players notice of it: nothing.

mod support;

use std::net::IpAddr;
use std::time::Duration;

use noray::config::Config;
use noray::limits::connection_policy::{COMMAND_BURST, COMMANDS_PER_SECOND, MAX_REFUSALS};
use noray::limits::rates::{INTRODUCTIONS, WRONG_OPEN_IDS};
use noray::limits::token_bucket::RateLimit;
use support::{Line, Player, TestServer, config};

#[test]
fn commands_over_the_rate_are_refused_and_then_the_connection_is_closed() {
    let server = TestServer::start(&config());
    let mut honest = Player::join(&server);
    let mut flooder = Line::connect(server.addresses.socket);
    let burst = COMMANDS_PER_SECOND * COMMAND_BURST.as_secs();
    // So many that time for a few more passes is no matter.
    let lines = "connect x\n".repeat(3 * (burst as usize + MAX_REFUSALS as usize));
    flooder.send_bytes(lines.as_bytes());
    let mut answers = std::iter::from_fn(|| flooder.receive()).collect::<Vec<_>>();
    let end = answers.pop().expect("it is told why");
    assert_eq!(end, "error too-many-commands send at most 20 commands a second");
    let count = |code: &str| answers.iter().filter(|line| line.contains(code)).count();
    let (allowed, refused) = (count("not-registered"), count("rate-limited"));
    assert_eq!(allowed + refused, answers.len());
    assert!((burst as usize..2 * burst as usize).contains(&allowed), "{allowed}");
    assert!(refused >= MAX_REFUSALS as usize, "{refused}");
    honest.line.settle();
    assert_eq!(server.metric("noray_connections_closed_total{reason=\"too-many-commands\"}"), 1);
    // What is no command has no name of its own in the answer.
    let mut flooder = Line::connect(server.addresses.socket);
    flooder.send_bytes("nonsense\n".repeat(2 * burst as usize).as_bytes());
    let refusal = std::iter::from_fn(|| flooder.receive()).find(|line| !line.contains("unknown"));
    assert_eq!(refusal.unwrap(), "error rate-limited too many at once, try again in a few seconds");
}

#[test]
fn a_search_for_join_codes_is_slowed_down_for_the_whole_network_and_for_no_other() {
    let server = TestServer::start(&config());
    let host = Player::join(&server);
    let budget = at_once(WRONG_OPEN_IDS);
    let mut answered = 0;
    // Several connections, as the rate of one would end the search sooner.
    for round in 0..4 {
        let mut searcher = Line::connect_from(server.addresses.socket, [127, 9, 9, 9].into());
        searcher.send("register-host");
        searcher.expect("set-oid");
        searcher.expect("set-pid");
        for guess in 0..60 {
            searcher.send(&format!("connect {guess}"));
            answered += usize::from(searcher.expect("connect-error").starts_with("unknown-oid"));
        }
        searcher.send(&format!("connect {}", host.oid));
        // It has no address, and so learns only that the code is right.
        let found = searcher.expect("connect-error");
        match round {
            0 => assert!(found.starts_with("no-address"), "{found}"),
            3 => assert!(found.starts_with("rate-limited"), "{found}"),
            _ => {}
        }
    }
    assert!((budget..budget + 30).contains(&answered), "{answered}");
    let mut other = Line::connect_from(server.addresses.socket, [127, 9, 9, 10].into());
    other.send("register-host");
    other.expect("set-oid");
    other.expect("set-pid");
    other.send("connect wrong");
    assert!(other.expect("connect-error").starts_with("unknown-oid"));
}

#[test]
fn a_host_is_not_made_to_send_to_everybody_at_once() {
    let server = TestServer::start(&config());
    let host = Player::join(&server);
    let mut ask = |last: u8| {
        let mut introduced = 0;
        for _ in 0..2 {
            let mut asker = Player::join_from(&server, [127, 9, 9, last].into());
            for _ in 0..90 {
                asker.line.send(&format!("connect {}", host.oid));
                let answer = asker.line.receive().expect("an answer");
                introduced += usize::from(answer.starts_with("connect "));
                let is_limited = answer.starts_with("connect-error rate-limited");
                assert!(answer.starts_with("connect ") || is_limited, "{answer}");
            }
        }
        introduced
    };
    let all = at_once(INTRODUCTIONS);
    let counts = [1, 2, 3].map(&mut ask);
    let share = 3 * all / 4;
    assert!((share..share + 30).contains(&counts[0]), "a network has its share: {counts:?}");
    assert!(counts[1] >= 20 && counts[2] >= 5, "and there is a rest for the next: {counts:?}");
    assert!(counts.iter().sum::<usize>() <= all + 60, "and all together: {counts:?}");
    // Another host has its own.
    let (other, mut asker) = (Player::join(&server), Player::join(&server));
    asker.line.send(&format!("connect {}", other.oid));
    asker.line.expect("connect");
    assert!(server.metric("noray_bounds_reached_total{bound=\"introductions\"}") > 0);
}

/// How much of it somebody may use up who has used up nothing for long.
fn at_once(budget: RateLimit) -> usize {
    usize::try_from(budget.per_second * budget.burst.as_secs()).unwrap()
}

#[test]
fn one_ip_has_its_share_of_the_relays() {
    let server = TestServer::start(&Config { relay_ports: (20_000..20_016).collect(), ..config() });
    let mut host = Player::join(&server);
    let mut ask = |from: [u8; 4]| {
        let mut line = Line::connect_from(server.addresses.socket, from.into());
        line.send("register-host");
        line.expect("set-oid");
        let pid = line.expect("set-pid");
        let udp = support::udp_socket(IpAddr::from(from));
        support::register_address(&udp, &pid, server.addresses.registrar);
        line.send(&format!("connect-relay {}", host.oid));
        let answer = line.receive().expect("an answer");
        let is_opened = answer.starts_with("connect-relay ");
        assert!(
            is_opened || answer.starts_with("connect-relay-error relays-exhausted"),
            "{answer}"
        );
        if is_opened {
            host.line.expect("connect-relay");
        }
        is_opened
    };
    let greedy = (0..8).filter(|_| ask([127, 9, 9, 9])).count();
    assert_eq!(greedy, 6, "three quarters of eight pairs");
    assert!(ask([127, 9, 9, 10]), "what is left is for others");
}

#[test]
fn who_does_not_register_or_end_a_line_is_closed_in_time() {
    let server = TestServer::start(&config());
    let patience = Duration::from_secs(40);
    let mut silent = Line::connect(server.addresses.socket);
    let mut half = Player::join(&server);
    half.line.send_bytes(b"connect-relay ");
    let mut registered = Player::join(&server);
    for line in [&silent, &half.line] {
        line.stream().set_read_timeout(Some(patience)).unwrap();
    }
    assert_eq!(half.line.receive().unwrap(), "error half-line end every line within 10 s");
    assert_eq!(half.line.receive(), None);
    registered.line.settle();
    assert_eq!(silent.receive().unwrap(), "error unregistered send register-host within 30 s");
    assert_eq!(silent.receive(), None);
    registered.line.settle();
    for reason in ["half-line", "unregistered"] {
        let name = format!("noray_connections_closed_total{{reason=\"{reason}\"}}");
        assert_eq!(server.metric(&name), 1, "{name}");
    }
}
