//! Rates: introductions, traffic and answers, of which a few greedy networks must leave the others theirs.

use std::cell::Cell;

use crate::stage::{Noray, Traffic, drain, ip, need_files, report};
use crate::support::{Player, connect_relay};

/// Whether that player is introduced to the host, whom it knows by this code.
fn is_introduced(player: &mut Player, oid: &str) -> bool {
    player.line.send(&format!("connect {oid}"));
    let answer = player.line.receive().expect("an answer");
    assert!(answer.starts_with("connect ") || answer.contains("rate-limited"), "{answer}");
    answer.starts_with("connect ")
}

pub(crate) fn a_leaked_code_does_not_keep_an_honest_client_away() {
    let noray = Noray::start(&[]);
    let host = noray.join(ip(50));
    // Each asks ten times a second: one that asks more often is closed.
    let mut attackers: Vec<Player> = (0..32).map(|index| noray.join(ip(1 + index % 8))).collect();
    let mut honest = noray.join(ip(9));
    let (mut greedy, mut introduced, mut turn) = (0, 0, 0);
    let mut traffic = Traffic::new();
    traffic.add(320.0, [0.0, 24.0], |_| {
        greedy += u32::from(is_introduced(&mut attackers[turn % 32], &host.oid));
        turn += 1;
    });
    traffic.add(1.0, [4.0, 24.0], |_| {
        introduced += u32::from(is_introduced(&mut honest, &host.oid));
    });
    traffic.run(24.0);
    drop(traffic);
    report(
        "eight IPs ask for one host all the time; another asks 20 times, once a second",
        &format!("it is introduced {introduced} times, the eight {greedy} times"),
    );
    assert_eq!(introduced, 20);
    assert!(greedy >= 128, "{greedy}: they took all that they may");
}

/// A client with a host of its own, and where each reaches the other.
struct Game {
    client: Player,
    host: Player,
    to_host: u16,
    to_client: u16,
}

impl Game {
    fn begin(noray: &Noray, client: u8, host: u8) -> Self {
        let [mut client, mut host] = [client, host].map(|index| noray.join(ip(index.into())));
        let (to_host, to_client) = connect_relay(&mut client, &mut host);
        Self { client, host, to_host, to_client }
    }
}

/// So many bytes a second pass in all, and one IP offers twice as many through pairs of its own.
pub(crate) fn a_flood_over_the_rate_of_all_costs_honest_pairs_nothing() {
    let noray = Noray::start(&[
        "NORAY_UDP_RELAY_MAX_GLOBAL_TRAFFIC=4mb",
        "NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC=1mb",
    ]);
    let honest: Vec<Game> =
        (0..8).map(|index| Game::begin(&noray, 10 + index, 30 + index)).collect();
    let greedy: Vec<Game> = (0..9).map(|_| Game::begin(&noray, 1, 2)).collect();
    let (sent, came) = (Cell::new(0_u32), Cell::new(0_u32));
    let mut traffic = Traffic::new();
    for game in honest.iter().chain(&greedy) {
        traffic.add(20.0, [0.0, 8.0], |_| game.host.send(b"answer", noray.relay(game.to_client)));
    }
    for game in &greedy {
        let payload = [0; 1152];
        let to_host = noray.relay(game.to_host);
        traffic.add(800.0, [0.2, 8.0], move |_| game.client.send(&payload, to_host));
    }
    for game in &honest {
        let to_host = noray.relay(game.to_host);
        let sent = &sent;
        traffic.add(60.0, [1.0, 7.0], move |_| {
            game.client.send(&[1; 200], to_host);
            sent.set(sent.get() + 1);
        });
        let came = &came;
        traffic.add(100.0, [0.0, 8.0], move |_| {
            drain(&game.host.udp, |_| came.set(came.get() + 1));
        });
    }
    traffic.run(8.0);
    drop(traffic);
    honest.iter().for_each(|game| drain(&game.host.udp, |_| came.set(came.get() + 1)));
    let (sent, came) = (sent.get(), came.get());
    let dropped = noray.metric("noray_relay_drop_count{reason=\"global-bandwidth\"}");
    report(
        "one IP offers 8.5 MB/s where all relays may carry 4 MB/s; eight games beside it",
        &format!("{} of their {sent} datagrams lost, {dropped} of the flood", sent - came),
    );
    assert!(dropped > 10_000, "{dropped}: it was a flood");
    assert!((sent - came) * 100 < sent, "under 1 %");
}

/// A restarted server's players learn that their ids are stale, whatever others send to the registrar.
pub(crate) fn datagrams_without_an_id_do_not_hide_that_an_id_is_stale() {
    let noray = Noray::start(&[]);
    let [stranger, stale] = [ip(1), ip(2)].map(crate::support::udp_socket);
    let registrar = noray.registrar();
    let mut answered = 0;
    let mut traffic = Traffic::new();
    traffic.add(200.0, [0.0, 7.0], |_| {
        stranger.send_to(&[b'x'; 100], registrar).unwrap();
    });
    traffic.add(10.0, [2.0, 7.0], |_| {
        stale.send_to(&[b'y'; 128], registrar).unwrap();
    });
    traffic.add(10.0, [2.05, 7.5], |_| drain(&stale, |_| answered += 1));
    traffic.run(7.5);
    drop(traffic);
    report(
        "200 datagrams a second without an id; a stale id is sent 50 times in 5 s",
        &format!("{answered} answered"),
    );
    assert_eq!(answered, 50);
}

/// Its attacker speaks the game's protocol: the host answers, and so is not silent towards it.
pub(crate) fn a_leaked_code_does_not_fill_a_hosts_line() {
    need_files(2000);
    let noray = Noray::start(&[]);
    let mut host = noray.join(ip(50));
    let mut honest = noray.join(ip(60));
    let honests = connect_relay(&mut honest, &mut host);
    let mut attackers = Vec::new();
    // As many as one network is introduced at once.
    while let Some(attacker) = ask(&noray, &mut host) {
        attackers.push(attacker);
    }
    let count = attackers.len();
    let [arrived, games, sent] = [const { Cell::new(0_u64) }; 3];
    let ways: Vec<_> = attackers.iter().map(|(_, _, to_client)| noray.relay(*to_client)).collect();
    let mut traffic = Traffic::new();
    let mut turn = 0;
    traffic.add(10.0 * count as f64, [0.0, 6.0], |_| {
        host.send(b"answer", ways[turn % count]);
        turn += 1;
    });
    let back = noray.relay(honests.1);
    traffic.add(60.0, [0.0, 6.0], |_| host.send(b"answer", back));
    let mut turn = 0;
    // Each as much as a pair may carry: 128 kB/s.
    traffic.add(110.0 * count as f64, [0.5, 6.0], |_| {
        let (player, to_host, _) = &attackers[turn % count];
        player.send(&[0; 1172], noray.relay(*to_host));
        turn += 1;
    });
    let to_host = noray.relay(honests.0);
    traffic.add(60.0, [1.0, 6.0], |_| {
        honest.send(&[1; 300], to_host);
        sent.set(sent.get() + 1);
    });
    let take = |number| {
        arrived.set(arrived.get() + u64::from(number == 0));
        games.set(games.get() + u64::from(number != 0));
    };
    traffic.add(500.0, [0.0, 6.1], |_| drain(&host.udp, take));
    traffic.run(6.2);
    drop(traffic);
    let offered = 110 * 1200 * count / 1000;
    let rate = arrived.get() * 1200 / 5500;
    let lost = sent.get() - games.get();
    report(
        &format!(
            "one IP with a code and {count} relays sends {offered} kB/s to a host that answers"
        ),
        &format!("{rate} kB/s arrive, {lost} of a game's {} datagrams are lost", sent.get()),
    );
    assert!(rate < 2000, "{rate}");
    assert_eq!(lost, 0);
}

fn ask(noray: &Noray, host: &mut Player) -> Option<(Player, u16, u16)> {
    let mut player = noray.join(ip(1));
    player.line.send(&format!("connect-relay {}", host.oid));
    let answer = player.line.receive().expect("an answer");
    let to_host = answer.strip_prefix("connect-relay ")?.parse().expect("a port");
    let to_client = host.line.expect("connect-relay").parse().expect("a port");
    Some((player, to_host, to_client))
}
