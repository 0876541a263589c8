//! Players whose addresses change in mid-game.

use std::thread;
use std::time::Duration;

use crate::lab::{Lan, Router, lab};
use crate::players::{Noray, Player, connect_relay, now, open_routers, registered_socket};

/// How often a game sends.
const TICK: Duration = Duration::from_millis(20);

/// How long traffic may stand still after a router forgot its mappings.
const MAY_TAKE: Duration = Duration::from_secs(3);

/// Who sits behind the router that forgets.
#[derive(Clone, Copy, Debug)]
enum Side {
    Client,
    Host,
}

pub(crate) fn traffic_flows_again_after_a_router_forgot_its_mappings() {
    let lab = lab();
    let noray = Noray::start(&lab, &[]);
    let kinds = [Router::Home, Router::FullCone, Router::Symmetric, Router::CarrierGrade];
    let (lab, noray) = (&lab, &noray);
    thread::scope(|scope| {
        for kind in kinds {
            for side in [Side::Client, Side::Host] {
                scope.spawn(move || {
                    let (client_lan, host_lan) = (lab.lan(kind), lab.lan(kind));
                    recover(noray, &client_lan, &host_lan, side, kind);
                });
            }
        }
    });
}

fn recover(noray: &Noray<'_>, client_lan: &Lan, host_lan: &Lan, side: Side, kind: Router) {
    let (client_machine, host_machine) = (client_lan.host(), host_lan.host());
    let mut client = Player::join(&client_machine, noray);
    let mut host = Player::join(&host_machine, noray);
    let [to_host, to_client] = connect_relay(&mut client, &mut host, noray);
    let mut game = Game { client, host, to_host, to_client, tick: 0 };
    game.play_until_both_hear();
    let forgetful = match side {
        Side::Client => client_lan,
        Side::Host => host_lan,
    };
    for _ in 0..2 {
        forgetful.forget_mappings();
        let took = game.play_until_both_hear();
        println!("{kind:?}: the {side:?}'s router forgot, both heard each other after {took:?}");
        assert!(took <= MAY_TAKE, "{kind:?}, {side:?}: {took:?}");
        // Long enough to be in use, not only found.
        for _ in 0..50 {
            game.tick();
        }
    }
}

/// Two players that send to each other all the time, as games do.
struct Game {
    client: Player,
    host: Player,
    to_host: std::net::SocketAddr,
    to_client: std::net::SocketAddr,
    tick: u64,
}

impl Game {
    /// Both send; returns the ticks whose datagrams came to the client and to the host.
    fn tick(&mut self) -> [Option<u64>; 2] {
        self.tick += 1;
        self.client.send(&format!("client {}", self.tick), self.to_host);
        self.host.send(&format!("host {}", self.tick), self.to_client);
        let heard = |player: &Player, partner: &str, partner_at| {
            let (text, from) = player.receive_within(TICK / 2)?;
            assert_eq!(from, partner_at, "each is seen at the announced port");
            let tick = text.strip_prefix(partner).expect("only the partner speaks");
            Some(tick.parse().expect("a tick"))
        };
        [heard(&self.client, "host ", self.to_host), heard(&self.host, "client ", self.to_client)]
    }

    /// Plays until each has heard something that the other sent from now on; how long that took.
    fn play_until_both_hear(&mut self) -> Duration {
        let (start, first) = (now(), self.tick + 1);
        let mut is_heard = [false, false];
        while is_heard != [true, true] {
            for (is_heard, tick) in is_heard.iter_mut().zip(self.tick()) {
                *is_heard |= tick.is_some_and(|tick| tick >= first);
            }
            assert!(start.elapsed() < 4 * MAY_TAKE, "{is_heard:?}: client and host");
        }
        start.elapsed()
    }
}

pub(crate) fn a_player_that_registers_again_from_another_network_takes_its_relays_along() {
    let lab = lab();
    let noray = Noray::start(&lab, &[]);
    let home = lab.lan(Router::Home).host();
    let mobile = lab.lan(Router::Symmetric).host();
    let mut hosts = [(); 2].map(|()| Player::join(&lab.lan(Router::Symmetric).host(), &noray));
    let mut client = Player::join(&home, &noray);
    let ways = hosts.each_mut().map(|host| connect_relay(&mut client, host, &noray));
    for (host, [to_host, to_client]) in hosts.iter().zip(ways) {
        open_routers(&client, to_host, host, to_client);
        client.send("from home", to_host);
        assert_eq!(host.receive(), ("from home".to_owned(), to_client));
    }
    client.udp = registered_socket(&mobile, &client.pid, noray.address);
    for (host, [to_host, to_client]) in hosts.iter().zip(ways) {
        client.send("on the road", to_host);
        assert_eq!(host.receive(), ("on the road".to_owned(), to_client));
        host.send("welcome", to_client);
        assert_eq!(client.receive(), ("welcome".to_owned(), to_host));
    }
}
