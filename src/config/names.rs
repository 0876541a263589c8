//! Names of keys: which key a text means that stands where a key should.

use crate::config::{KEYS, Key};

/// The beginning of every key.
pub(super) const PREFIX: &str = "NORAY_";

/// How many typing mistakes a name may have that is taken for another program's otherwise.
const MOST_TYPOS: usize = 2;

/// The longest name, in bytes, that is compared with the keys, at a cost of its length for each of them.
const MAX_NAME: usize = 128;

/// What people write in front of a key, from shells, PowerShell and lists.
const CLUTTER: [&str; 6] = ["set ", "setx ", "env ", "- ", "$env:", "$"];

/// The key's place in [`KEYS`].
pub(super) fn position(name: &str) -> Option<usize> {
    KEYS.iter().position(|key| key.name == name)
}

/// Whether a name begins as keys do, in any case.
pub(super) fn has_prefix(name: &str) -> bool {
    name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// What is wrong with a name that is no key.
pub(super) fn unknown(name: &str) -> String {
    match meant(name) {
        Some(key) => format!("unknown key, did you mean {key}?"),
        None => format!(
            "unknown key, every key begins with {PREFIX} and stands in `noray --check-config`"
        ),
    }
}

/// The key that is meant by a name that is none. `None` if it is another program's, or longer than [`MAX_NAME`].
pub(super) fn meant(name: &str) -> Option<&'static str> {
    if name.len() > MAX_NAME {
        return None;
    }
    let name = without_clutter(name).to_ascii_uppercase();
    let with_prefix = format!("{PREFIX}{name}");
    if let Some(index) = position(&with_prefix) {
        return Some(KEYS[index].name);
    }
    let has_prefix = has_prefix(&name);
    // A difference in length is the least that it takes to change one name into the other.
    let may_be = |key: &&Key| has_prefix || name.len().abs_diff(key.name.len()) <= MOST_TYPOS;
    let distances = KEYS
        .iter()
        .filter(may_be)
        .map(|key| (strsim::damerau_levenshtein(&name, key.name), key.name));
    let (distance, nearest) = distances.min_by_key(|(distance, _)| *distance)?;
    (has_prefix || distance <= MOST_TYPOS).then_some(nearest)
}

fn without_clutter(mut name: &str) -> &str {
    let clutter = |name: &str| {
        let has = |word: &&&str| {
            name.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
        };
        CLUTTER.iter().find(has).map(|word| word.len())
    };
    while let Some(length) = clutter(name) {
        name = name[length..].trim_start();
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_mean_a_key_are_told_from_other_programs() {
        let cases = [
            ("SOCKET_PORT", Some("NORAY_SOCKET_PORT")),
            ("socket_port", Some("NORAY_SOCKET_PORT")),
            ("noray_socket_port", Some("NORAY_SOCKET_PORT")),
            ("NORAY_SOCKET_PROT", Some("NORAY_SOCKET_PORT")),
            ("NORY_SOCKET_PORT", Some("NORAY_SOCKET_PORT")),
            ("set NORAY_SOCKET_PORT", Some("NORAY_SOCKET_PORT")),
            ("SET  noray_socket_port", Some("NORAY_SOCKET_PORT")),
            ("$NORAY_SOCKET_PORT", Some("NORAY_SOCKET_PORT")),
            ("$env:NORAY_SOCKET_PORT", Some("NORAY_SOCKET_PORT")),
            ("- NORAY_SOCKET_PORT", Some("NORAY_SOCKET_PORT")),
            ("NORAY_UDP_RELAY_PORT", Some("NORAY_UDP_RELAY_PORTS")),
            ("NODE_ENV", None),
            ("PORT", None),
            ("X", None),
            ("", None),
            ("\u{e4}", None),
        ];
        for (name, key) in cases {
            assert_eq!(meant(name), key, "{name}");
        }
        assert!(meant("NORAY_BIN").is_some(), "the nearest, however far");
    }
}
