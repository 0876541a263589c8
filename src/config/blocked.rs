//! The file of words that no OpenID may contain.

use std::fmt;

use crate::config::Config;
use crate::core::blocked_words::BlockedWords;
use crate::core::id::{OpenIdScheme, Random};

/// A file of words, one a line, that no OpenID may contain.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockedList {
    /// The file's path; empty for none.
    pub path: String,
    /// Its words, once it has been read.
    pub words: BlockedWords,
}

impl fmt::Display for BlockedList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

/// How many OpenIDs are drawn to see how many are left.
const SAMPLES: usize = 1000;

/// So many of them must be left. A server that draws an OpenID tries a hundred times.
const MIN_LEFT: usize = SAMPLES / 4;

impl Config {
    /// Reads the list of blocked words, if one is set.
    ///
    /// # Errors
    /// What is wrong with the file, or with these words for OpenIDs that look as configured.
    pub(super) fn read_blocked_words(
        &mut self,
        read_file: impl Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<(), String> {
        let path = self.oid_blocked.path.clone();
        if path.is_empty() {
            return Ok(());
        }
        let content =
            read_file(&path).map_err(|error| format!("`{path}` cannot be read: {error}"))?;
        let text = String::from_utf8_lossy(&content);
        let words = text.parse().map_err(|error| format!("`{path}`, {error}"))?;
        self.oid_blocked.words = words;
        self.check_blocked_words().map_err(|what| format!("`{path}` {what}"))
    }

    fn check_blocked_words(&self) -> Result<(), String> {
        let prefix = &self.oid_prefix;
        if self.oid_blocked.words.are_in(prefix) {
            return Err(format!(
                "has a word that NORAY_OID_PREFIX={prefix} contains, so no OpenID is left: change one of them"
            ));
        }
        let left = left_of_samples(&self.id_scheme().open);
        if left < MIN_LEFT {
            return Err(format!(
                "leaves too few OpenIDs: only {left} of {SAMPLES} that were drawn contain none of its words; remove the \
                 shortest words, or change the characters of the OpenIDs"
            ));
        }
        Ok(())
    }
}

fn left_of_samples(scheme: &OpenIdScheme) -> usize {
    let mut random = Repeatable(1);
    (0..SAMPLES).filter(|_| scheme.allows(&scheme.sample(&mut random))).count()
}

/// The same numbers each time (SplitMix64), so that a configuration is always judged alike.
struct Repeatable(u64);

impl Random for Repeatable {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^= mixed >> 31;
            chunk.copy_from_slice(&mixed.to_le_bytes()[..chunk.len()]);
        }
    }
}
