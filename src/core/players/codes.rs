//! The join codes in use. They are found as people write them.

use std::collections::HashMap;

use crate::core::id::{OpenId, PlayerId, Spelling};

/// Each OpenID in use, with its player.
///
/// A code is read by the spelling under which it was drawn, also after a reload. No two codes can be taken for each other.
#[derive(Debug, Default)]
pub(super) struct Codes {
    players: HashMap<OpenId, PlayerId>,
    /// The codes that are the same under [`Spelling::LOOSEST`], with their own spelling.
    alike: HashMap<String, Vec<(OpenId, Spelling)>>,
}

impl Codes {
    /// The player whose code a person meant by `typed`. An exact match goes first.
    pub(super) fn find(&self, typed: &OpenId) -> Option<PlayerId> {
        let exact = self.players.get(typed);
        exact.or_else(|| self.players.get(self.meant(typed)?)).copied()
    }

    fn meant(&self, typed: &OpenId) -> Option<&OpenId> {
        let mut alike = self.alike(typed);
        alike.find(|(code, spelling)| is_same(code, typed, *spelling)).map(|(code, _)| code)
    }

    /// The codes that could be meant by `text`.
    fn alike(&self, text: &OpenId) -> impl Iterator<Item = &(OpenId, Spelling)> {
        self.alike.get(&Spelling::LOOSEST.normalize(text.as_str())).into_iter().flatten()
    }

    /// Whether a code with that spelling can be used: it cannot be taken for another one, nor the reverse.
    pub(super) fn is_free(&self, code: &OpenId, spelling: Spelling) -> bool {
        let mut alike = self.alike(code);
        !alike
            .any(|(other, others)| is_same(code, other, spelling) || is_same(code, other, *others))
    }

    /// Lets a player be found by a code that is free.
    pub(super) fn insert(&mut self, code: OpenId, spelling: Spelling, player: PlayerId) {
        let alike = self.alike.entry(Spelling::LOOSEST.normalize(code.as_str())).or_default();
        alike.push((code.clone(), spelling));
        self.players.insert(code, player);
    }

    /// Frees a code.
    pub(super) fn remove(&mut self, code: &OpenId) {
        self.players.remove(code);
        let normal = Spelling::LOOSEST.normalize(code.as_str());
        if let Some(alike) = self.alike.get_mut(&normal) {
            alike.retain(|(other, _)| other != code);
            if alike.is_empty() {
                self.alike.remove(&normal);
            }
        }
    }

    /// How many codes are in use.
    pub(super) fn len(&self) -> usize {
        self.players.len()
    }

    /// Checks what must always hold.
    ///
    /// # Panics
    /// If it does not.
    pub(super) fn check_invariants(&self) {
        let alike: usize = self.alike.values().map(Vec::len).sum();
        assert_eq!(alike, self.players.len(), "each code is in both maps");
        for code in self.players.keys() {
            assert_eq!(self.find(code), self.players.get(code).copied());
        }
    }
}

fn is_same(one: &OpenId, other: &OpenId, spelling: Spelling) -> bool {
    let [one, other] = [one, other].map(|code| spelling.normalize(code.as_str()));
    one == other
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPITALS: Spelling = Spelling::LOOSEST;
    const WITH_HYPHEN: Spelling = Spelling { any_case: true, any_hyphens: false };
    const BOTH_CASES: Spelling = Spelling { any_case: false, any_hyphens: true };
    const EXACT: Spelling = Spelling { any_case: false, any_hyphens: false };

    #[test]
    fn a_code_is_found_as_people_write_it() {
        for (code, spelling, found, not_found) in [
            (
                "ABC12",
                CAPITALS,
                &["ABC12", "abc12", "ab-c12", " aB c-12 "][..],
                &["ABC1", "ABC_12"][..],
            ),
            (
                "FalconTimberYolk",
                CAPITALS,
                &["falcon timber-yolk", "FALCONTIMBERYOLK"],
                &["falcon"],
            ),
            ("eu-A-B", WITH_HYPHEN, &["EU-a-b", "eu -A-B"], &["euAB", "eu-AB"]),
            ("aBc", BOTH_CASES, &["aBc", "a-B c"], &["abc", "ABC"]),
            ("aB-c", EXACT, &["aB-c", "a B-c"], &["aBc", "ab-c"]),
        ] {
            let mut codes = Codes::default();
            codes.insert(OpenId::new(code), spelling, PlayerId(7));
            for typed in found {
                assert_eq!(codes.find(&OpenId::new(typed)), Some(PlayerId(7)), "{code}: {typed}");
            }
            for typed in not_found {
                assert_eq!(codes.find(&OpenId::new(typed)), None, "{code}: {typed}");
            }
            codes.check_invariants();
            codes.remove(&OpenId::new(code));
            assert_eq!((codes.len(), codes.alike.len()), (0, 0));
        }
    }

    #[test]
    fn codes_that_look_alike_are_not_used_side_by_side() {
        for (first, firsts, second, seconds, is_free) in [
            ("ABC", CAPITALS, "ABC", CAPITALS, false),
            // As after a reload with other characters.
            ("abc", EXACT, "ABC", CAPITALS, false),
            ("ABC", CAPITALS, "aBc", EXACT, false),
            ("A-BC", EXACT, "ABC", CAPITALS, false),
            ("aBC", EXACT, "ABC", EXACT, true),
            ("A-BC", WITH_HYPHEN, "AB-C", WITH_HYPHEN, true),
        ] {
            let mut codes = Codes::default();
            codes.insert(OpenId::new(first), firsts, PlayerId(1));
            assert_eq!(codes.is_free(&OpenId::new(second), seconds), is_free, "{first} {second}");
        }
    }

    #[test]
    fn an_exact_match_goes_first() {
        let mut codes = Codes::default();
        codes.insert(OpenId::new("aBC"), EXACT, PlayerId(1));
        codes.insert(OpenId::new("ABC"), EXACT, PlayerId(2));
        assert_eq!(codes.find(&OpenId::new("ABC")), Some(PlayerId(2)));
        assert_eq!(codes.find(&OpenId::new("aBC")), Some(PlayerId(1)));
    }
}
