//! Datagrams at the registrar, among them right PrivateIDs, cut and lengthened.

use std::net::SocketAddr;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use noray::config::Config;
use noray::core::id::ConnectionId;
use noray::core::players::Way;
use noray::core::players::{AddressRegistration, Players};
use noray::core::registrar::{OK, Registrar, UNKNOWN};
use noray::core::relay::OwnAddresses;
use noray::limits::rates::UNKNOWN_ANSWERS;
use noray::time::Timestamp;

const OWN: [&str; 2] = ["192.0.2.9:8809", "192.0.2.9:50000"];

/// Where datagrams come from: players, and places where no player can be.
const SOURCES: [&str; 11] = [
    "198.51.100.1:1000",
    "198.51.100.1:1001",
    "[2001:db8::5]:4000",
    OWN[0],
    OWN[1],
    "198.51.100.1:0",
    "224.0.0.1:1000",
    "255.255.255.255:1000",
    "0.0.0.0:1000",
    "[2001:db8::5]:53",
    "10.0.0.1:4000",
];

use crate::random::Repeatable;

pub(crate) fn check(data: &[u8]) {
    // An input that ends in the middle of a datagram has said enough.
    let _ = play(&mut Unstructured::new(data));
}

fn play(input: &mut Unstructured<'_>) -> Result<()> {
    let mut players = Players::new(Config::default().settings().players);
    let mut random = Repeatable::new();
    let pids: Vec<String> = (0..2)
        .map(|player| {
            let home = std::net::IpAddr::from([198, 51, 100, 1]);
            players.add_connection(ConnectionId(player), home);
            let player = players.register(ConnectionId(player), &mut random).expect("ids are long");
            player.ids().private_id.reveal().to_owned()
        })
        .collect();
    let own: Vec<SocketAddr> = OWN.iter().map(|text| text.parse().expect("one")).collect();
    let own = OwnAddresses::new([own[0].ip()], own.iter().map(SocketAddr::port));
    let mut registrar = Registrar::default();
    let mut now = Timestamp::START;
    let (mut unknown_answers, mut millis) = (0, 0);
    for _ in 0..200 {
        let passed: u8 = input.arbitrary()?;
        millis += u64::from(passed);
        now = now + Duration::from_millis(passed.into());
        let is_possible = input.ratio(3, 4)?;
        let sources = if is_possible { &SOURCES[..3] } else { &SOURCES[3..] };
        let source: SocketAddr = input.choose(sources)?.parse().expect("an address");
        let way = Way { source, arrived_at: None };
        let (payload, owner) = payload(input, &pids)?;
        let before = owner.and_then(|player| players.by_connection(ConnectionId(player))?.address);
        let response = registrar.handle_datagram(&mut players, &own, way, &payload, now);

        let length = response.answer.map_or(0, <[u8]>::len);
        assert!(length <= payload.len(), "{length} bytes for {}", payload.len());
        let owner = owner.filter(|_| is_possible);
        let after = owner.and_then(|player| players.by_connection(ConnectionId(player))?.address);
        match response.registration {
            AddressRegistration::First(player, _) => {
                assert_eq!((Some(player.0), before), (owner, None))
            }
            AddressRegistration::Changed(player, _) => {
                assert!(Some(player.0) == owner && before.is_some_and(|at| at != source));
            }
            AddressRegistration::Repeated(_) => assert_eq!(before, Some(source)),
            AddressRegistration::TooManyChanges => {
                assert!(before.is_some_and(|at| at != source) && response.answer.is_none());
                assert_eq!(after, before);
                continue;
            }
            AddressRegistration::Unknown | AddressRegistration::Implausible(..) => {
                assert_eq!(owner, None)
            }
        }
        assert_eq!(after, owner.map(|_| source));
        assert_eq!(owner.is_some(), response.answer == Some(OK));
        unknown_answers += u64::from(response.answer == Some(UNKNOWN));
        assert!(unknown_answers <= UNKNOWN_ANSWERS.per_second * (1000 + millis) / 1000 + 1);
    }
    Ok(())
}

/// A datagram, and the player whose PrivateID it is.
fn payload(input: &mut Unstructured<'_>, pids: &[String]) -> Result<(Vec<u8>, Option<u64>)> {
    let player = input.choose_index(pids.len())?;
    let pid = pids[player].as_bytes();
    let owner = Some(player as u64);
    Ok(match input.int_in_range(0..=4)? {
        0 => {
            let space = input.int_in_range(0..=3)?;
            let ends = [&b""[..], b"\n", b"\r\n", b" \t "];
            ([pid, ends[space]].concat(), owner)
        }
        1 => (pid[..input.choose_index(pid.len())?].to_vec(), None),
        2 => ([pid, b"x"].concat(), None),
        3 => ([b" ", pid].concat(), None),
        _ => {
            let length = input.int_in_range(0..=200)?;
            (input.bytes(length)?.to_vec(), None)
        }
    })
}
