//! The ids of players and connections, and how random bytes become one.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::core::blocked_words::BlockedWords;

/// The id of a player's TCP connection. A process uses each id only once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnectionId(pub u64);

/// The id of a registered player, apart from its connection. Each id is used only once, also after a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PlayerId(pub u64);

impl PlayerId {
    /// The smallest id.
    pub const MIN: Self = Self(u64::MIN);
    /// The largest id.
    pub const MAX: Self = Self(u64::MAX);
}

/// A player's public id: the join code that players share.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OpenId(Arc<str>);

impl OpenId {
    /// Takes any text as an OpenID. It need not be in use.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The id as it stands on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OpenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The longest PrivateID that can be configured, in bytes.
pub const MAX_PRIVATE_ID: usize = 1024;

/// A player's secret. A datagram with it at the registrar sets that player's external address.
///
/// Invariant: it is never logged. `Debug` hides it, and there is no `Display`. Only a snapshot holds it as readable
/// text, and no snapshot is written to a disk.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PrivateId(Arc<str>);

impl PrivateId {
    /// Takes any text as a PrivateID. It need not be in use.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the player that owns it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PrivateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateId(hidden)")
    }
}

impl std::borrow::Borrow<str> for PrivateId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A source of random bytes. The server uses the kernel's.
pub trait Random {
    /// Fills `bytes` with random bytes.
    fn fill(&mut self, bytes: &mut [u8]);

    /// A random number below `bound`. All numbers have the same probability (rejection sampling).
    ///
    /// # Panics
    /// If `bound` is 0.
    fn below(&mut self, bound: u32) -> u32 {
        assert!(bound > 0, "there is no number below 0");
        let mask = u32::MAX.checked_shr((bound - 1).leading_zeros()).unwrap_or(0);
        loop {
            let mut bytes = [0; 4];
            self.fill(&mut bytes);
            let candidate = u32::from_le_bytes(bytes) & mask;
            if candidate < bound {
                return candidate;
            }
        }
    }

    /// Puts `items` into a random order. All orders have the same probability.
    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let bound = u32::try_from(last + 1).expect("a slice has fewer than 2^32 items");
            items.swap(last, self.below(bound) as usize);
        }
    }
}

/// The characters that ids are made of: 2 to 94 printable ASCII characters, none of them white space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alphabet(Vec<u8>);

impl FromStr for Alphabet {
    type Err = String;

    /// Every character stands for itself: `A-Z` is no range. A repeated character counts once.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(bad) = text.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(format!(
                "{bad:?} cannot be part of an id, use printable ASCII without spaces"
            ));
        }
        let mut seen = BTreeSet::new();
        let characters: Vec<u8> = text.bytes().filter(|byte| seen.insert(*byte)).collect();
        if characters.len() < 2 {
            return Err("at least two different characters are needed".to_owned());
        }
        Ok(Self(characters))
    }
}

impl fmt::Display for Alphabet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{}", char::from(*byte)))
    }
}

impl Alphabet {
    fn has(&self, is_wanted: impl Fn(&u8) -> bool) -> bool {
        self.0.iter().any(is_wanted)
    }

    /// A random string of `length` characters. All strings have the same probability.
    pub fn sample(&self, length: usize, random: &mut impl Random) -> String {
        let count = u32::try_from(self.0.len()).expect("an alphabet has at most 94 characters");
        let mut pick = || char::from(self.0[random.below(count) as usize]);
        (0..length).map(|_| pick()).collect()
    }
}

/// The EFF's large word list for passphrases (CC BY 3.0 US), without its four words that have a hyphen.
const WORDS: &str = include_str!("words.txt");

/// How people may write an OpenID: which differences to what was drawn do not count. White space never counts, as no
/// OpenID has any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spelling {
    /// Capital and small letters are the same.
    pub any_case: bool,
    /// Hyphens do not count.
    pub any_hyphens: bool,
}

impl Spelling {
    /// Under which most texts are the same.
    pub const LOOSEST: Self = Self { any_case: true, any_hyphens: true };

    /// What of a text counts. Two texts with the same result name the same OpenID.
    pub fn normalize(self, text: &str) -> String {
        let counts = |c: &char| !(c.is_whitespace() || (self.any_hyphens && *c == '-'));
        let counted = text.chars().filter(counts);
        if self.any_case {
            counted.map(|c| c.to_ascii_uppercase()).collect()
        } else {
            counted.collect()
        }
    }
}

/// How OpenIDs look.
#[derive(Clone, Debug)]
pub struct OpenIdScheme {
    prefix: String,
    shape: Shape,
    blocked: BlockedWords,
}

#[derive(Clone, Debug)]
enum Shape {
    Characters { alphabet: Alphabet, length: usize },
    Words { list: Vec<&'static str>, count: usize },
}

impl OpenIdScheme {
    /// `prefix` and then `length` characters of `alphabet`.
    pub fn characters(prefix: String, alphabet: Alphabet, length: usize) -> Self {
        Self {
            prefix,
            shape: Shape::Characters { alphabet, length },
            blocked: BlockedWords::default(),
        }
    }

    /// `prefix` and then `count` capitalised words, such as `FalconTimberYolk`; 12.9 bits a word.
    pub fn words(prefix: String, count: usize) -> Self {
        let shape = Shape::Words { list: WORDS.lines().collect(), count };
        Self { prefix, shape, blocked: BlockedWords::default() }
    }

    /// The same, without OpenIDs that contain one of these words.
    pub fn without(self, blocked: BlockedWords) -> Self {
        Self { blocked, ..self }
    }

    /// How people may write these OpenIDs. Case counts only if the characters have letters of both; a hyphen only if it is
    /// one of them.
    pub fn spelling(&self) -> Spelling {
        match &self.shape {
            Shape::Words { .. } => Spelling::LOOSEST,
            Shape::Characters { alphabet, .. } => Spelling {
                any_case: !(alphabet.has(u8::is_ascii_uppercase)
                    && alphabet.has(u8::is_ascii_lowercase)),
                any_hyphens: !alphabet.has(|byte| *byte == b'-'),
            },
        }
    }

    /// Whether this OpenID may be drawn.
    pub fn allows(&self, open_id: &OpenId) -> bool {
        !self.blocked.are_in(open_id.as_str())
    }

    /// A random OpenID. The caller checks whether it is allowed and not in use.
    pub fn sample(&self, random: &mut impl Random) -> OpenId {
        let mut text = self.prefix.clone();
        match &self.shape {
            Shape::Characters { alphabet, length } => {
                text.push_str(&alphabet.sample(*length, random))
            }
            Shape::Words { list, count } => {
                let size = u32::try_from(list.len()).expect("the word list is short");
                for _ in 0..*count {
                    let word = list[random.below(size) as usize];
                    text.push_str(&word[..1].to_ascii_uppercase());
                    text.push_str(&word[1..]);
                }
            }
        }
        OpenId::new(&text)
    }
}

/// How the ids of new players look.
#[derive(Clone, Debug)]
pub struct IdScheme {
    /// The public ids.
    pub open: OpenIdScheme,
    /// The characters of the secret ids.
    pub private_alphabet: Alphabet,
    /// The length of the secret ids, in characters.
    pub private_length: usize,
}

#[cfg(test)]
pub(crate) mod testing {
    /// Random bytes that are the same in every run.
    pub(crate) struct Seeded(fastrand::Rng);

    impl Seeded {
        pub(crate) fn new(seed: u64) -> Self {
            Self(fastrand::Rng::with_seed(seed))
        }
    }

    impl super::Random for Seeded {
        fn fill(&mut self, bytes: &mut [u8]) {
            self.0.fill(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Seeded;
    use super::*;

    fn seeded() -> Seeded {
        Seeded::new(3)
    }

    #[test]
    fn every_character_is_as_likely_as_every_other() {
        let alphabet: Alphabet = "abcdefghijk".parse().unwrap();
        let text = alphabet.sample(110_000, &mut seeded());
        for character in 'a'..='k' {
            let count = text.chars().filter(|c| *c == character).count();
            assert!((9_600..10_400).contains(&count), "{character}: {count} of 10000 expected");
        }
    }

    #[test]
    fn below_gives_every_number_below_its_bound() {
        let mut random = seeded();
        for bound in [1, 2, 3, 64, 65, 500] {
            let drawn: BTreeSet<u32> = (0..20_000).map(|_| random.below(bound)).collect();
            assert_eq!(drawn.len(), bound as usize, "every number below {bound}");
            assert_eq!(drawn.last(), Some(&(bound - 1)));
        }
        assert!(random.below(u32::MAX) < u32::MAX);
    }

    #[test]
    fn every_order_is_as_likely_as_every_other() {
        let mut random = seeded();
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..6000 {
            let mut items = ['a', 'b', 'c'];
            random.shuffle(&mut items);
            *counts.entry(items).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn alphabets() {
        assert_eq!("abca".parse::<Alphabet>().unwrap().to_string(), "abc");
        for text in ["", "a", "aaa", "ab c", "ab\t", "abé"] {
            assert!(text.parse::<Alphabet>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_id_of_words_is_the_prefix_and_capitalised_words() {
        let id = OpenIdScheme::words("eu-".to_owned(), 3).sample(&mut seeded());
        let words = id.as_str().strip_prefix("eu-").unwrap();
        assert_eq!(words.bytes().filter(u8::is_ascii_uppercase).count(), 3, "{words}");
        assert!(words.starts_with(|c: char| c.is_ascii_uppercase()));
    }

    #[test]
    fn the_word_list_is_clean() {
        let words: Vec<&str> = WORDS.lines().collect();
        assert_eq!(words.len(), 7772);
        assert!(words.is_sorted_by(|a, b| a < b), "the words are sorted and different");
        assert!(
            words
                .iter()
                .all(|word| word.len() >= 3 && word.bytes().all(|b| b.is_ascii_lowercase()))
        );
    }

    #[test]
    fn debug_hides_a_private_id() {
        assert_eq!(format!("{:?}", PrivateId::new("sesame")), "PrivateId(hidden)");
    }
}
