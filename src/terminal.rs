//! Text for a terminal or a file, as the subcommands write it.

use std::fmt::Write;

/// How wide the text may be, in columns: what every terminal has.
pub(crate) const WIDTH: usize = 80;

/// A space at which [`wrap`] does not break.
pub(crate) const NO_BREAK: char = '\u{a0}';

/// A terminal or a file: lines of at most 80 columns, but for words that are longer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    pub(crate) has_colours: bool,
}

impl Screen {
    /// Text in a colour: the parameters of an ANSI escape.
    pub(crate) fn paint(self, colour: &str, text: &str) -> String {
        if self.has_colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Appends `words` behind `indent` columns that are there already, in lines that end before [`WIDTH`].
pub(crate) fn wrap(text: &mut String, words: &str, indent: usize) {
    let mut column = indent;
    for (index, word) in words.split_ascii_whitespace().enumerate() {
        let length = word.chars().count();
        if index > 0 && column + 1 + length > WIDTH {
            let _ = write!(text, "\n{:indent$}", "");
            column = indent;
        } else if index > 0 {
            text.push(' ');
            column += 1;
        }
        text.extend(word.chars().map(|c| if c == NO_BREAK { ' ' } else { c }));
        column += length;
    }
    text.push('\n');
}

/// The text without what would steer a terminal: each control character becomes a replacement character.
pub(crate) fn printable(text: &str) -> String {
    let is_harmless = |c: char| !c.is_control() || c == '\n';
    text.chars().map(|c| if is_harmless(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// The text with each command in it, which stands between two `` ` ``, on one line.
pub(crate) fn copyable(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(index, part)| {
        let is_command = index % 2 == 1;
        if is_command { part.replace(' ', &NO_BREAK.to_string()) } else { part.to_owned() }
    });
    parts.collect::<Vec<_>>().join("`")
}
