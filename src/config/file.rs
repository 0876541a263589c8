//! The syntax of configuration files: lines `KEY=value`, comments and quotes, as in `.env` files.

use crate::config::names::{self, PREFIX, has_prefix, meant, unknown};
use crate::config::origin::{Assignment, Mistake, Origin, Statements};

/// Adds what the file says.
pub(super) fn read(name: &str, content: &[u8], statements: &mut Statements) {
    let mistake = |line, key: &str, what: String| {
        let origin = Origin::File { name: name.to_owned(), line };
        Mistake { origin, key: key.chars().take(64).collect(), what }
    };
    if is_utf16(content) {
        let what = "the file is UTF-16; save it as UTF-8, an encoding that every editor offers";
        statements.mistakes.add(|| mistake(1, "?", what.to_owned()));
        return;
    }
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut seen: Vec<(String, usize)> = Vec::new();
    for (line, bytes) in (1..).zip(content.split(|byte| *byte == b'\n')) {
        match Line::parse(bytes) {
            Line::Empty => {}
            Line::Assignment(key, _) if names::position(&key).is_none() => {
                statements.mistakes.add(|| mistake(line, &key, unknown(&key)));
            }
            Line::Assignment(key, value) => {
                match seen.iter().find(|(earlier, _)| *earlier == key) {
                    Some((_, first)) => {
                        let what = || format!("set a second time, first in line {first}");
                        statements.mistakes.add(|| mistake(line, &key, what()));
                    }
                    None => {
                        seen.push((key.clone(), line));
                        let origin = Origin::File { name: name.to_owned(), line };
                        statements.assignments.push(Assignment { origin, key, value });
                    }
                }
            }
            Line::Wrong(key, what) => statements.mistakes.add(|| mistake(line, &key, what)),
            Line::Ignored(key, what) => {
                let what = || format!("the line is ignored: {}", what(&key));
                statements.warnings.add(|| mistake(line, &key, what()));
            }
        }
    }
}

/// What Windows's editors write if asked for "Unicode": a byte order mark, or a zero beside each character.
fn is_utf16(content: &[u8]) -> bool {
    matches!(content, [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..])
}

/// What a line of a file is.
enum Line {
    /// Nothing, a comment, or another program's: these often share an `.env` file.
    Empty,
    /// A key and its value.
    Assignment(String, String),
    /// A key or text, and what is wrong with it.
    Wrong(String, String),
    /// The same, where the existing server ignores such a line and starts. The text is made from the key.
    Ignored(String, fn(&str) -> String),
}

impl Line {
    fn parse(bytes: &[u8]) -> Self {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Self::Wrong("?".to_owned(), "the line is not UTF-8".to_owned());
        };
        let text = text.trim();
        if text.is_empty() || text.starts_with(['#', ';']) {
            return Self::Empty;
        }
        if text.starts_with("//") {
            return Self::Ignored("//".to_owned(), |_| "comments begin with #".to_owned());
        }
        let (key, raw) = match split(text) {
            Ok(assignment) => assignment,
            Err(what) => return Self::Wrong(text.to_owned(), what),
        };
        if !key.starts_with(PREFIX) {
            let is_ours = has_prefix(key) || meant(key).is_some();
            return if is_ours { Self::Ignored(key.to_owned(), unknown) } else { Self::Empty };
        }
        match unquote(raw) {
            Ok(value) => Self::Assignment(key.to_owned(), value),
            Err(what) => Self::Wrong(key.to_owned(), what),
        }
    }
}

/// Splits `KEY=value`. `export` before it is ignored. The value keeps its spaces and quotes.
pub(super) fn split(text: &str) -> Result<(&str, &str), String> {
    let text = text.strip_prefix("export ").unwrap_or(text);
    let (key, value) = text.split_once('=').ok_or("not of the form KEY=value")?;
    let key = key.trim();
    if key.is_empty() { Err("the key is missing".to_owned()) } else { Ok((key, value)) }
}

/// Removes the quotes around a value and the comment after it.
pub(super) fn unquote(value: &str) -> Result<String, String> {
    let text = value.trim();
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'));
    if let Some(quote) = quote {
        let (inside, behind) = text[1..]
            .split_once(quote)
            .ok_or_else(|| format!("the quote {quote} is not closed"))?;
        let behind = behind.trim_start();
        if !behind.is_empty() && !behind.starts_with('#') {
            return Err(format!("`{behind}` comes after the closing quote"));
        }
        return Ok(inside.to_owned());
    }
    let is_comment = |(at, _): &(usize, &str)| value[..*at].ends_with(char::is_whitespace);
    let end = value.match_indices('#').find(is_comment).map_or(value.len(), |(at, _)| at);
    Ok(value[..end].trim().to_owned())
}

/// Adds quotes to a value that [`unquote`] would otherwise not read back.
pub(super) fn quote(value: &str) -> String {
    let needs_quotes = value.starts_with(['"', '\'', '`', '#']);
    let quote = ['"', '\'', '`'].into_iter().find(|quote| !value.contains(*quote));
    match quote {
        Some(quote) if needs_quotes => format!("{quote}{value}{quote}"),
        Some(_) | None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_as_dotenv_files_are() {
        let cases = [
            ("A=1", "A", "1"),
            ("A = 1 ", "A", "1"),
            ("export A=1", "A", "1"),
            ("A=", "A", ""),
            ("A=a=b", "A", "a=b"),
            ("A=1 # one", "A", "1"),
            ("A= # nothing", "A", ""),
            ("A=a#b", "A", "a#b"),
            ("A=#ab", "A", "#ab"),
            ("A=\"1 # 2\" # three", "A", "1 # 2"),
            ("A='x\"y'", "A", "x\"y"),
            ("A=`x`", "A", "x"),
        ];
        for (line, key, value) in cases {
            let (found, raw) = split(line).unwrap();
            assert_eq!((found, unquote(raw).as_deref()), (key, Ok(value)), "{line}");
        }
        for line in ["A", "=1", " =1"] {
            assert!(split(line).is_err(), "{line}");
        }
        for value in ["'x", "'x' y"] {
            assert!(unquote(value).is_err(), "{value}");
        }
    }

    #[test]
    fn a_quoted_value_reads_back() {
        for value in ["plain", "#a", "\"a", "'\"a", "a`"] {
            assert_eq!(unquote(&format!("{} # note", quote(value))).as_deref(), Ok(value));
        }
    }
}
