use super::*;
use crate::config::units::ByteSize;
use crate::core::relay::Latching;

fn from_file(text: &str) -> Sources {
    Sources {
        file: Some(("noray.conf".to_owned(), text.as_bytes().to_vec())),
        ..Sources::default()
    }
}

fn read(text: &str) -> Config {
    Effective::read(&from_file(text)).unwrap_or_else(|mistakes| panic!("{mistakes:?}")).config
}

fn mistakes(text: &str) -> Vec<String> {
    let mistakes = Effective::read(&from_file(text)).err().unwrap_or_default();
    mistakes.iter().map(ToString::to_string).collect()
}

#[test]
fn without_sources_all_values_are_defaults() {
    let effective = Effective::read(&Sources::default()).unwrap();
    assert_eq!(effective.config, Config::default());
    assert_eq!(effective.summary(), "all settings at default");
    let one = Effective::read(&from_file("NORAY_OID_LENGTH=5")).unwrap();
    assert_eq!(one.summary(), "1 setting set, see --check-config");
    assert_eq!(effective.config.registrar_address().to_string(), "0.0.0.0:8809");
    assert_eq!(effective.config.relay_ports.as_slice().len(), 2049);
    assert_eq!(effective.config.relay_settings().limits.pair_rate, 131_072);
    assert_eq!(effective.config.relay_settings().limits.lifetime_traffic, 4 << 30);
}

#[test]
fn every_default_is_written_as_it_is_shown() {
    for key in KEYS {
        assert_eq!((key.show)(&Config::default()), key.default, "{}", key.name);
    }
}

#[test]
fn the_existing_servers_env_file_works_as_it_is() {
    let config = read(
        "# Id generation ====\n\
         NORAY_OID_LENGTH=21 \n\
         # NORAY_OID_LENGTH=4 \n\
         NORAY_OID_CHARSET=useandom-26T198340PX75pxJACKVERYMINDBUSHWOLF_GQZbfghjklqvwyzrict\n\
         NORAY_HTTP_HOST=0.0.0.0\r\n\
         NORAY_UDP_RELAY_MAX_GLOBAL_TRAFFIC=1Gb\n\
         NODE_ENV=production\n\
         \n\
         NORAY_LOGLEVEL=info",
    );
    assert_eq!(config.oid_charset.to_string().len(), 64);
    assert_eq!(config.http_host.to_string(), "0.0.0.0");
    assert_eq!(config.relay_max_global_traffic, ByteSize(1 << 30));
}

#[test]
fn the_command_line_wins_over_the_environment_over_the_file() {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let sources = Sources {
        environment: vec![
            pair("NORAY_SOCKET_PORT", "2000"),
            pair("NORAY_HTTP_PORT", "2001"),
            pair("NORAY_OID_LENGTH", ""),
            pair("NORAY_PORT_8890_TCP_ADDR", "10.0.0.1"),
            pair("PATH", "/bin"),
        ],
        command_line: vec!["NORAY_SOCKET_PORT=3000".to_owned()],
        ..from_file("NORAY_SOCKET_PORT=1000\nNORAY_HTTP_PORT=1001\nNORAY_OID_LENGTH=5")
    };
    let effective = Effective::read(&sources).unwrap();
    assert_eq!((effective.config.socket_port, effective.config.http_port), (3000, 2001));
    assert_eq!(effective.config.oid_length, 5, "an empty variable sets nothing");
    let shown = effective.to_string();
    for line in [
        "NORAY_SOCKET_PORT=3000 # command line",
        "NORAY_HTTP_PORT=2001 # environment",
        "NORAY_OID_LENGTH=5 # noray.conf:3",
        "NORAY_PID_LENGTH=128 # default",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} in\n{shown}");
    }
}

#[test]
fn a_shown_configuration_reads_back() {
    let text = "NORAY_OID_CHARSET='\"#abc'\nNORAY_UDP_RELAY_LATCHING=ANY\nNORAY_UDP_HOST=[::]\nNORAY_LOGLEVEL=fatal";
    let effective = Effective::read(&from_file(text)).unwrap();
    assert_eq!(read(&effective.to_string()), effective.config);
    assert_eq!(effective.config.relay_latching, Latching::Any);
}

#[test]
fn every_mistake_is_reported_with_its_place() {
    let found = mistakes(
        "NORAY_SOCKET_PORT=70000\n\
         # fine\n\
         NORAY_UDP_RELAY_TIMEOUT=5 hr\n\
         NORAY_UDP_RELAY_PORT=1-2\n\
         hello\n\
         NORAY_OID_LENGTH=5\n\
         NORAY_OID_LENGTH=6\n\
         NORAY_UDP_RELAY_LATCHING=all\n\
         NORAY_UDP_RELAY_MAX_GLOBAL_TRAFFIC=0\n\
         NORAY_SOCKET_HOST=example.com",
    );
    let starts = [
        "noray.conf:1: NORAY_SOCKET_PORT: `70000` is not a port",
        "noray.conf:3: NORAY_UDP_RELAY_TIMEOUT: `5 hr`: write it without the space, 5hr",
        "noray.conf:4: NORAY_UDP_RELAY_PORT: unknown key, did you mean NORAY_UDP_RELAY_PORTS?",
        "noray.conf:5: hello: not of the form KEY=value",
        "noray.conf:7: NORAY_OID_LENGTH: set a second time, first in line 6",
        "noray.conf:8: NORAY_UDP_RELAY_LATCHING: `all` is none of same-ip, any, off",
        "noray.conf:9: NORAY_UDP_RELAY_MAX_GLOBAL_TRAFFIC: `0` would let nothing pass",
        "noray.conf:10: NORAY_SOCKET_HOST: `example.com` is not an IP address",
    ];
    for start in starts {
        assert!(found.iter().any(|mistake| mistake.starts_with(start)), "{start} in {found:#?}");
    }
    assert_eq!(found.len(), starts.len(), "{found:#?}");
}

#[test]
fn mistakes_beyond_the_first_are_counted() {
    let read = |text: &str| Effective::read(&from_file(text));
    let found = read(&"NORAY_X=1\n".repeat(53)).unwrap_err();
    let lines: Vec<String> = found.lines().collect();
    assert_eq!((found.len(), lines.len()), (50, 51));
    assert!(lines[49].starts_with("noray.conf:50: NORAY_X: unknown key"), "{lines:?}");
    assert_eq!(lines[50], "and 3 more");
    let ignored = read(&"// note\n".repeat(51)).unwrap().warnings;
    assert_eq!(ignored.lines().last().unwrap(), "and 1 more");
    assert_eq!(read(&"x\n".repeat(50)).unwrap_err().lines().count(), 50);
}

#[test]
fn values_that_contradict_each_other_are_mistakes() {
    let cases = [
        (
            "NORAY_UDP_RELAY_PORTS=8000-9000",
            "noray.conf:1: NORAY_UDP_RELAY_PORTS: port 8809 is in both NORAY_UDP_RELAY_PORTS and \
             NORAY_UDP_REGISTRAR_PORT (NORAY_UDP_REGISTRAR_PORT: default)",
        ),
        (
            "NORAY_UDP_REGISTRAR_PORT=50000",
            "noray.conf:1: NORAY_UDP_REGISTRAR_PORT: port 50000 is in both NORAY_UDP_RELAY_PORTS and \
             NORAY_UDP_REGISTRAR_PORT (NORAY_UDP_RELAY_PORTS: default)",
        ),
        (
            "NORAY_UDP_RELAY_PORTS=7000-7009\nNORAY_UDP_REGISTRAR_PORT=7001",
            "noray.conf:2: NORAY_UDP_REGISTRAR_PORT: port 7001 is in both NORAY_UDP_RELAY_PORTS and \
             NORAY_UDP_REGISTRAR_PORT (NORAY_UDP_RELAY_PORTS: noray.conf:1)",
        ),
        ("NORAY_SOCKET_PORT=8891", "noray.conf:1: NORAY_SOCKET_PORT: port 8891 is in both NORAY_H"),
        (
            "NORAY_UDP_RELAY_PORTS=8000",
            "noray.conf:1: NORAY_UDP_RELAY_PORTS: a relay needs two ports",
        ),
        ("NORAY_HTTP_PORT=8890", "noray.conf:1: NORAY_HTTP_PORT: port 8890 is in both NORAY_H"),
        (
            "NORAY_PID_LENGTH=10",
            "noray.conf:1: NORAY_PID_LENGTH: 10 characters out of 64 are 60 bits",
        ),
    ];
    for (text, start) in cases {
        let found = mistakes(text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].starts_with(start), "{found:?}");
    }
}

#[test]
fn contradictions_are_found_next_to_other_mistakes() {
    let found =
        mistakes("NORAY_UDP_RELAY_PORTS=8000-9000\nNORAY_SOCKET_PORT=x\nNORAY_HTTP_PORT=8890");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("NORAY_SOCKET_PORT: `x`"), "{found:?}");
    assert!(found[1].contains("NORAY_UDP_RELAY_PORTS: port 8809"), "{found:?}");
}

#[test]
fn an_empty_value_on_the_command_line_sets_the_default() {
    let sources = Sources {
        command_line: vec!["NORAY_OID_PREFIX=".to_owned()],
        ..from_file("NORAY_OID_PREFIX=eu-\nMOTD='many\nOTHER=\"a\" b")
    };
    assert_eq!(Effective::read(&sources).unwrap().config.oid_prefix, "");
}

#[test]
fn mistakes_on_the_command_line_name_their_place() {
    let sources = Sources {
        command_line: ["NORAY_OID_LENGTH", "X=1", "SOCKET_PORT=1", "NORAY_HTTP_PROT=1"]
            .map(str::to_owned)
            .to_vec(),
        ..Sources::default()
    };
    let found = Effective::read(&sources).unwrap_err();
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    let expected = [
        "command line: --set NORAY_OID_LENGTH: not of the form KEY=value",
        "command line: X: unknown key, every key begins with NORAY_ and stands in `noray --check-config`",
        "command line: SOCKET_PORT: unknown key, did you mean NORAY_SOCKET_PORT?",
        "command line: NORAY_HTTP_PROT: unknown key, did you mean NORAY_HTTP_PORT?",
    ];
    assert_eq!(found, expected);
}

fn warnings(sources: &Sources) -> Vec<String> {
    let effective = Effective::read(sources).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    effective.warnings.iter().map(ToString::to_string).collect()
}

fn from_environment(variables: &[(&str, &str)]) -> Sources {
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Sources { environment: variables.iter().map(pair).collect(), ..Sources::default() }
}

#[test]
fn the_environment_is_read_as_a_file_is() {
    let sources = from_environment(&[
        ("NORAY_OID_LENGTH", "21 "),
        ("NORAY_OID_PREFIX", "\"eu-\""),
        ("NORAY_LOGLEVEL", "'warn' "),
        ("NORAY_HTTP_PORT", "8892 # metrics"),
        ("NORAY_PID_LENGTH", "\"\""),
    ]);
    let Effective { config, warnings, .. } = Effective::read(&sources).unwrap();
    assert_eq!((config.oid_length, config.http_port), (21, 8892));
    assert_eq!((config.oid_prefix.as_str(), config.log_level), ("eu-", LogLevel::Warn));
    assert_eq!((config.pid_length, warnings.len()), (128, 0));
    let found = Effective::read(&from_environment(&[("NORAY_OID_PREFIX", "'eu-")])).unwrap_err();
    assert_eq!(found[0].to_string(), "environment: NORAY_OID_PREFIX: the quote ' is not closed");
}

#[test]
fn unknown_variables_of_the_environment_are_warned_of() {
    let sources = from_environment(&[
        ("NORAY_OID_LENGHT", "5"),
        ("noray_oid_length", "5"),
        ("NORAY_PORT", "tcp://10.0.0.1:8890"),
        ("NORAY_SERVICE_HOST", "10.0.0.1"),
        ("SOCKET_PORT", "1"),
    ]);
    let expected = ["NORAY_OID_LENGHT", "noray_oid_length"].map(|name| {
        format!(
            "environment: {name}: the variable is ignored: unknown key, did you mean NORAY_OID_LENGTH?"
        )
    });
    assert_eq!(warnings(&sources), expected);
}

#[test]
fn lines_that_the_existing_server_ignores_are_warned_of() {
    let text = "SOCKET_PORT=1\n\
                noray_socket_port=1\n\
                set NORAY_SOCKET_PORT=1\n\
                $NORAY_SOCKET_PORT=1\n\
                // NORAY_SOCKET_PORT=1\n\
                // a word\n\
                NODE_ENV=production";
    let found = warnings(&from_file(text));
    let keys = ["SOCKET_PORT", "noray_socket_port", "set NORAY_SOCKET_PORT", "$NORAY_SOCKET_PORT"];
    for (line, key) in (1..).zip(keys) {
        let expected = format!(
            "noray.conf:{line}: {key}: the line is ignored: unknown key, did you mean NORAY_SOCKET_PORT?"
        );
        assert_eq!(found[line - 1], expected);
    }
    for line in [5, 6] {
        let expected = format!("noray.conf:{line}: //: the line is ignored: comments begin with #");
        assert_eq!(found[line - 1], expected);
    }
    assert_eq!(found.len(), 6, "{found:?}");
}

#[test]
fn a_range_of_characters_is_questioned() {
    let cases = [
        ("A-Za-z", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"),
        ("0-9A-F_", "0123456789ABCDEF_"),
        ("x2-5", "x2345"),
        ("A--Z", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    ];
    for (text, characters) in cases {
        let found = mistakes(&format!("NORAY_OID_CHARSET={text}"));
        let words = format!("`{text}` looks like a range");
        let remedy = format!("write {characters};");
        assert!(found[0].contains(&words) && found[0].contains(&remedy), "{found:?}");
    }
    for text in ["AZaz-", "-AZ", "a-b", "Z-A", "9-A", "useandom-26T198340PX75pxJACKVERY"] {
        assert_eq!(mistakes(&format!("NORAY_OID_CHARSET={text}")), [""; 0], "{text}");
    }
}

#[test]
fn values_that_are_hardly_meant_are_warned_of() {
    let cases = [
        ("NORAY_HTTP_HOST=0.0.0.0", "everybody who reaches 0.0.0.0:8891"),
        ("NORAY_HTTP_HOST=203.0.113.1", "everybody who reaches 203.0.113.1:8891"),
        ("NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC=1kb", "1kb a second is less than a game needs"),
        ("NORAY_UDP_RELAY_MAX_GLOBAL_TRAFFIC=100", "100b a second is less than a game needs"),
        ("NORAY_OID_LENGTH=2", "there are only 4096 such codes"),
    ];
    for (text, words) in cases {
        let found = warnings(&from_file(text));
        let (key, _) = text.split_once('=').unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(&format!("noray.conf:1: {key}: {words}")), "{found:?}");
    }
    let fine = "NORAY_HTTP_HOST=10.0.0.1\nNORAY_OID_LENGTH=1\nNORAY_ENABLE_WORDS_OID=true";
    assert_eq!(warnings(&from_file(fine)), [""; 0]);
    assert_eq!(warnings(&Sources::default()), [""; 0]);
}

#[test]
fn a_file_that_is_not_utf8_is_a_mistake_on_its_line() {
    let read = |content: Vec<u8>| {
        let file = Some(("noray.conf".to_owned(), content));
        let found = Effective::read(&Sources { file, ..Sources::default() }).unwrap_err();
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].to_string()
    };
    let line = read(b"NORAY_OID_LENGTH=5\n\xff\xfe\n".to_vec());
    assert_eq!(line, "noray.conf:2: ?: the line is not UTF-8");
    for byte_order in [u16::to_le_bytes, u16::to_be_bytes] {
        for mark in ["\u{feff}", ""] {
            let text = format!("{mark}NORAY_OID_LENGTH=5\n");
            let found = read(text.encode_utf16().flat_map(byte_order).collect());
            assert!(found.starts_with("noray.conf:1: ?: the file is UTF-16; save it"), "{found}");
        }
    }
}

/// Reads the configuration with this file of blocked words.
fn with_blocked(
    file: &str,
    text: &str,
    read_file: fn(&str) -> Result<Vec<u8>, String>,
) -> Result<Effective, String> {
    let sources = Sources { read_file, ..from_file(&format!("NORAY_OID_BLOCKED={file}\n{text}")) };
    Effective::read(&sources).map_err(|mistakes| mistakes.lines().collect())
}

#[test]
fn a_list_of_blocked_words() {
    let read = |path: &str| match path {
        "words" => Ok(b"# rude\nBad\n".to_vec()),
        "vowels" => Ok(b"a\ne\ni\no\nu\n".to_vec()),
        "phrases" => Ok(b"very bad\n".to_vec()),
        _ => Err("No such file".to_owned()),
    };
    let found = with_blocked("words", "", read).unwrap();
    assert!(found.config.oid_blocked.words.are_in("xB4Dx"));
    assert!(found.to_string().contains("NORAY_OID_BLOCKED=words # noray.conf:1\n"));
    for (file, text, error) in [
        ("none", "", "noray.conf:1: NORAY_OID_BLOCKED: `none` cannot be read: No such file"),
        ("phrases", "", "`phrases`, line 1: `very bad` is not one word; write one a line"),
        ("vowels", "", "`vowels` leaves too few OpenIDs: only 0 of 1000"),
        ("words", "NORAY_OID_PREFIX=b-a-d", "has a word that NORAY_OID_PREFIX=b-a-d contains"),
    ] {
        let found = with_blocked(file, text, read).unwrap_err();
        assert!(found.contains(error), "{found}");
    }
    let consonants = "NORAY_OID_CHARSET=BCDFG\nNORAY_OID_LENGTH=6";
    assert!(with_blocked("vowels", consonants, read).is_ok());
}

#[test]
fn other_words_in_the_same_file_are_a_change() {
    let before = with_blocked("words", "", |_| Ok(b"bad".to_vec())).unwrap().config;
    let after = with_blocked("words", "", |_| Ok(b"bad\nworse".to_vec())).unwrap().config;
    let changes = ConfigChanges::new(&before, after);
    assert_eq!(changes.changed[0].to_string(), "NORAY_OID_BLOCKED: 1 word -> 2 words");
    assert_eq!(changes.config.oid_blocked.words.len(), 2);
}
