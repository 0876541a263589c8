//! Words that no join code may contain.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;

/// Words that no OpenID may contain, in any case, also with digits in place of letters.
///
/// Only letters and digits count: `b-a-d` contains `bad`. A look-up takes a step for each part of a code, whatever the
/// number of words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockedWords {
    /// As [`look`] sees them.
    words: Arc<BTreeSet<String>>,
    /// The length of the longest, in characters.
    longest: usize,
}

impl FromStr for BlockedWords {
    type Err = String;

    /// One word a line. Empty lines and lines that begin with `#` say nothing.
    ///
    /// # Errors
    /// The number of the first line that is no word, and why.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = BTreeSet::new();
        for (number, line) in (1..).zip(text.lines()) {
            let word = line.trim();
            if word.is_empty() || word.starts_with('#') {
                continue;
            }
            if word.contains(char::is_whitespace) {
                return Err(format!("line {number}: `{word}` is not one word; write one a line"));
            }
            // Other words cannot be in a code.
            if word.is_ascii() {
                words.insert(look(word));
            }
        }
        words.remove("");
        let longest = words.iter().map(String::len).max().unwrap_or(0);
        Ok(Self { words: Arc::new(words), longest })
    }
}

impl BlockedWords {
    /// How many words there are.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether there are no words.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Whether one of the words is in `code`.
    pub fn are_in(&self, code: &str) -> bool {
        if self.is_empty() {
            return false;
        }
        let code = look(code);
        (0..code.len()).any(|start| {
            let rest = &code[start..];
            (1..=self.longest.min(rest.len())).any(|length| self.words.contains(&rest[..length]))
        })
    }
}

/// How a text looks: small letters, with digits as the letters that people use them for. `1` is read as I or L, so both
/// of these become one. The result is ASCII.
fn look(text: &str) -> String {
    let letter = |c: char| match c.to_ascii_lowercase() {
        '0' => 'o',
        '1' | 'l' => 'i',
        '3' => 'e',
        '4' => 'a',
        '5' => 's',
        '7' => 't',
        '8' => 'b',
        c => c,
    };
    text.chars().filter(char::is_ascii_alphanumeric).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_in_any_case_and_with_digits_for_letters() {
        let blocked: BlockedWords = "# a comment\n\nBad\nhell\n\u{e9}t\u{e9}\n".parse().unwrap();
        for code in ["bad", "xBADx", "8AD", "b4d12", "b-a_d", "H3LL", "he11o"] {
            assert!(blocked.are_in(code), "{code}");
        }
        for code in ["", "ba", "d", "bxad", "helo", "dab", "\u{e9}t\u{e9}"] {
            assert!(!blocked.are_in(code), "{code}");
        }
        assert!(!BlockedWords::default().are_in("bad"));
    }

    #[test]
    fn a_line_is_one_word() {
        let error = "good\nvery bad".parse::<BlockedWords>().unwrap_err();
        assert_eq!(error, "line 2: `very bad` is not one word; write one a line");
    }
}
