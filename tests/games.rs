//! The game in `docs/noray_game.gd` and its page: they use the add-on and the protocol as these are.

#[path = "support/harness.rs"]
mod harness;

use std::collections::BTreeSet;
use std::process::{Command, ExitCode};

use harness::tests;
use noray::core::protocol::{CommandKind, ErrorCode, Reply};
use noray::core::relay::RelayLimit;
use noray::label::Label;
use noray::limits::connection_policy::DisconnectReason;

const GAME: &str = include_str!("../docs/noray_game.gd");
const PAGE: &str = include_str!("../docs/games.md");

/// What the game may use of the add-on, version 1.28 or later, and the command that it sends.
const ADD_ON: [(&str, Option<&str>); 14] = [
    ("Noray.connect_nat", Some("connect")),
    ("Noray.connect_relay", Some("connect-relay")),
    ("Noray.connect_to_host", None),
    ("Noray.disconnect_from_host", None),
    ("Noray.is_connected_to_host", None),
    ("Noray.local_port", None),
    ("Noray.oid", None),
    ("Noray.on_command", None),
    ("Noray.on_connect_nat", None),
    ("Noray.on_connect_relay", None),
    ("Noray.on_pid", None),
    ("Noray.register_host", Some("register-host")),
    ("Noray.register_remote", None),
    ("PacketHandshake.over_packet_peer", None),
];

/// The same for hosts: it takes no answer.
const HOSTS_HANDSHAKE: &str = "PacketHandshake.over_enet_peer";

fn main() -> ExitCode {
    harness::run(tests![
        the_page_shows_pieces_of_the_file,
        the_file_uses_the_add_on_and_its_commands_exist,
        every_code_in_the_file_exists_and_every_other_has_words,
        an_error_reaches_the_game_as_the_file_expects,
        godot_can_read_the_file,
    ])
}

fn the_page_shows_pieces_of_the_file() {
    let file = format!("\n{GAME}");
    let mut piece = String::from("\n");
    let mut shown = 0;
    for line in PAGE.lines().chain([""]) {
        if let Some(code) = line.strip_prefix("    ") {
            piece += &format!("{code}\n");
            continue;
        }
        assert!(file.contains(&piece), "the file has no such lines:{piece}");
        shown += piece.lines().count() - 1;
        piece = String::from("\n");
    }
    assert!(shown > 100, "{shown} lines of code");
}

fn the_file_uses_the_add_on_and_its_commands_exist() {
    let commands: BTreeSet<&str> = CommandKind::ALL.iter().map(|kind| kind.label()).collect();
    let mut used = BTreeSet::new();
    for part in ["Noray.", "PacketHandshake."] {
        for (at, _) in GAME.match_indices(part) {
            let is_own = |c: char| c.is_alphanumeric() || c == '_';
            let name = GAME[at + part.len()..].split(|c| !is_own(c)).next().unwrap();
            used.insert(format!("{part}{name}"));
        }
    }
    let known: BTreeSet<String> =
        ADD_ON.iter().map(|(name, _)| *name).chain([HOSTS_HANDSHAKE]).map(str::to_owned).collect();
    assert_eq!(used, known);
    for command in ADD_ON.iter().filter_map(|(_, command)| *command) {
        assert!(commands.contains(command), "{command}");
    }
}

fn every_code_in_the_file_exists_and_every_other_has_words() {
    let codes = ErrorCode::ALL.iter().map(|code| code.label());
    let ends = DisconnectReason::ALL.iter().map(|reason| reason.label());
    let full = "server-full";
    assert!(Reply::ServerFull.encode().starts_with(&format!("error {full} ")));
    let known: BTreeSet<&str> = codes.chain(ends).chain([full]).collect();
    let quoted = |text: &'static str| text.split('"').skip(1).step_by(2);
    let words = between("const WORDS := {\n", "\n}").lines().map(|line| quoted(line).next());
    let again = quoted(between("const AGAIN := [", "]"));
    let compared = GAME.split("_refusal != \"").skip(1).map(|behind| behind.split('"').next());
    let compared = compared.flatten().filter(|code| !code.is_empty());
    let named: Vec<&str> = words.map(Option::unwrap).chain(again).chain(compared).collect();
    for code in &named {
        assert!(known.contains(code), "the server has no code {code}");
    }
    assert!(GAME.contains("WORDS.get(_refusal, \"The server refuses: \" + _refusal)"));
    // A game that keeps to the order never hears these, and their words would help no player.
    for code in ErrorCode::ALL {
        let is_the_games_mistake = [ErrorCode::NotRegistered, ErrorCode::NoAddress].contains(code);
        let has_words = named.contains(&code.label());
        assert_ne!(has_words, is_the_games_mistake, "give {code:?} words in docs/noray_game.gd");
    }
}

/// The add-on hands on the line's first two words.
fn an_error_reaches_the_game_as_the_file_expects() {
    assert!(GAME.contains("if command == \"error\" or command.ends_with(\"-error\"):"));
    for kind in CommandKind::ALL {
        for code in ErrorCode::ALL {
            let line = Reply::Failed(*kind, *code).encode();
            let mut words = line.split(' ');
            let command = words.next().unwrap();
            assert!(command == "error" || command.ends_with("-error"), "{line}");
            assert_eq!(words.next(), Some(code.label()));
        }
    }
    let limit = Reply::RelayLimit(RelayLimit::ALL[0]).encode();
    assert!(GAME.contains(&format!("command == \"{}\"", limit.split(' ').next().unwrap())));
}

fn godot_can_read_the_file() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/noray_game.gd");
    for program in ["gdparse", "gdlint"] {
        let Ok(output) = Command::new(program).arg(file).output() else {
            harness::ignore(format!("there is no {program} (the Python package gdtoolkit)"));
        };
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    }
}

fn between(start: &str, end: &str) -> &'static str {
    let (_, behind) = GAME.split_once(start).unwrap_or_else(|| panic!("{start}"));
    behind.split_once(end).expect("its end").0
}
