//! The UDP registrar: a player sends its PrivateID there, and so registers its external address.

use crate::core::id::MAX_PRIVATE_ID;
use crate::core::players::{AddressRegistration, Players, Way};
use crate::core::relay::OwnAddresses;
use crate::limits::bounds::Bound;
use crate::limits::rates::UNKNOWN_ANSWERS;
use crate::limits::share::{RateShares, RateSharesSnapshot};
use crate::time::Timestamp;

/// The answer to a PrivateID that is known.
pub const OK: &[u8] = b"OK";

/// The answer to a datagram that is no known PrivateID.
///
/// Only a longer datagram gets it. So the registrar never sends more than it got, and two registrars do not answer
/// each other for ever.
pub const UNKNOWN: &[u8] = b"Unknown host pid!";

/// How many networks of strangers have a share of the answers. Sources can be forged, so there may be any number; those
/// beyond this have none of their own, and only what is free.
const MAX_STRANGERS: usize = 1024;

/// What a datagram at the registrar leads to.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// What it changed.
    pub registration: AddressRegistration,
    /// The payload to send back to the source, if any.
    pub answer: Option<&'static [u8]>,
    /// The bound that was reached, if any.
    pub bound: Option<Bound>,
}

/// The registrar's rules: which sources it refuses, and how often it answers strangers.
#[derive(Debug)]
pub struct Registrar {
    unknown_answers: RateShares,
}

impl Default for Registrar {
    fn default() -> Self {
        let unknown_answers = RateShares::new(UNKNOWN_ANSWERS).with_max_entries(MAX_STRANGERS);
        Self { unknown_answers }
    }
}

impl Registrar {
    /// The rate limit of answers to strangers, for a snapshot.
    pub fn unknown_answers(&self) -> RateSharesSnapshot {
        self.unknown_answers.snapshot()
    }

    /// Restores what [`Self::unknown_answers`] gave.
    pub fn restore(&mut self, unknown_answers: RateSharesSnapshot) {
        self.unknown_answers.restore(unknown_answers);
    }

    /// Forgets the networks that were answered too long ago to matter. Looks at each network.
    pub fn forget_networks(&mut self, now: Timestamp) {
        self.unknown_answers.forget_idle(now);
    }

    /// Handles a datagram. If it is a PrivateID, its source becomes that player's external address. It cannot be one of the
    /// server's `own`.
    pub fn handle_datagram(
        &mut self,
        players: &mut Players,
        own: &OwnAddresses,
        way: Way,
        payload: &[u8],
        now: Timestamp,
    ) -> Response {
        let source = way.source;
        if !own.allows(source) {
            let registration = AddressRegistration::Unknown;
            return Response { registration, answer: None, bound: None };
        }
        let private_id = payload.trim_ascii_end();
        let registration = match std::str::from_utf8(private_id) {
            Ok(private_id) if private_id.len() <= MAX_PRIVATE_ID => {
                players.register_address(private_id, way, now)
            }
            Ok(_) | Err(_) => AddressRegistration::Unknown,
        };
        let (answer, bound) = match registration {
            AddressRegistration::First(..)
            | AddressRegistration::Changed(..)
            | AddressRegistration::Repeated(_) => (Some(OK), None),
            AddressRegistration::TooManyChanges => (None, Some(Bound::AddressChanges)),
            AddressRegistration::Unknown if payload.len() > UNKNOWN.len() => {
                if self.unknown_answers.try_acquire(source.ip().into(), 1.0, now) {
                    (Some(UNKNOWN), None)
                } else {
                    (None, Some(Bound::UnknownAnswers))
                }
            }
            AddressRegistration::Implausible(..) | AddressRegistration::Unknown => (None, None),
        };
        Response { registration, answer, bound }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Config;
    use crate::core::id::testing::Seeded;
    use crate::core::id::{Alphabet, ConnectionId, IdScheme, OpenIdScheme};
    use crate::core::players::PlayersSettings;

    const HERE: &str = "192.0.2.1:1000";

    fn setup() -> (Registrar, Players, String) {
        let alphabet: Alphabet = "abcd".parse().unwrap();
        let scheme = IdScheme {
            open: OpenIdScheme::characters(String::new(), alphabet.clone(), 8),
            private_alphabet: alphabet,
            private_length: 40,
        };
        let settings =
            PlayersSettings { id_scheme: scheme, ..Config::default().settings().players };
        let mut players = Players::new(settings);
        let home = std::net::IpAddr::from([192, 0, 2, 1]);
        players.add_connection(ConnectionId(1), home);
        let host = players.register(ConnectionId(1), &mut Seeded::new(1)).unwrap();
        let secret = host.ids().private_id.reveal().to_owned();
        (Registrar::default(), players, secret)
    }

    fn own() -> OwnAddresses {
        OwnAddresses::new(["192.0.2.9".parse().unwrap()], [8809])
    }

    fn way(source: &str) -> Way {
        Way { source: source.parse().unwrap(), arrived_at: None }
    }

    fn answer(
        setup: &mut (Registrar, Players, String),
        payload: &[u8],
        source: &str,
    ) -> Option<&'static [u8]> {
        let now = Timestamp::START;
        setup.0.handle_datagram(&mut setup.1, &own(), way(source), payload, now).answer
    }

    #[test]
    fn white_space_after_a_private_id_is_ignored() {
        let mut s = setup();
        let secret = s.2.clone();
        for end in ["", "\n", "\r\n", "  "] {
            assert_eq!(answer(&mut s, (secret.clone() + end).as_bytes(), HERE), Some(OK));
        }
        let in_front = format!(" {secret}");
        assert_eq!(answer(&mut s, in_front.as_bytes(), HERE), Some(UNKNOWN));
    }

    #[test]
    fn an_answer_to_an_unknown_id_is_shorter_than_the_datagram() {
        let mut s = setup();
        for length in 0..60 {
            let answer = answer(&mut s, &vec![b'x'; length], HERE);
            assert_eq!(answer, (length > UNKNOWN.len()).then_some(UNKNOWN), "{length} bytes");
        }
        assert_eq!(answer(&mut s, &[0xff; 100], HERE), Some(UNKNOWN));
        assert_eq!(answer(&mut s, UNKNOWN, HERE), None, "two registrars do not answer each other");
    }

    #[test]
    fn answers_to_unknown_ids_have_a_rate_limit() {
        let mut s = setup();
        let mut answered = 0;
        for millis in 0..10_000 {
            let now = Timestamp::START + Duration::from_millis(millis);
            let response = s.0.handle_datagram(&mut s.1, &own(), way(HERE), &[b'x'; 100], now);
            answered += u64::from(response.answer.is_some());
            assert_ne!(response.answer.is_some(), response.bound == Some(Bound::UnknownAnswers));
        }
        // One network has most of 100 a second, and a burst.
        assert!((700..=850).contains(&answered), "{answered} in 10 s");
        let secret = s.2.clone();
        assert_eq!(
            answer(&mut s, secret.as_bytes(), HERE),
            Some(OK),
            "players do not wait for strangers"
        );
    }

    #[test]
    fn impossible_sources_are_refused() {
        let mut s = setup();
        let secret = s.2.clone();
        for source in
            ["192.0.2.1:0", "192.0.2.9:8809", "0.0.0.0:5", "224.0.0.1:5", "255.255.255.255:9"]
        {
            assert_eq!(answer(&mut s, secret.as_bytes(), source), None, "{source}");
        }
        assert_eq!(answer(&mut s, secret.as_bytes(), "192.0.2.9:8810"), Some(OK));
    }
}
