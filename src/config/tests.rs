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
    assert_eq!(effective.set_values(), 0);
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
        "noray.conf:3: NORAY_UDP_RELAY_TIMEOUT: `5 hr`: unknown unit ` hr`",
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
fn values_that_contradict_each_other_are_mistakes() {
    let cases = [
        ("NORAY_UDP_RELAY_PORTS=8000-9000", "noray.conf:1: NORAY_UDP_RELAY_PORTS: holds 8809"),
        (
            "NORAY_UDP_RELAY_PORTS=8000",
            "noray.conf:1: NORAY_UDP_RELAY_PORTS: a relay needs two ports",
        ),
        ("NORAY_HTTP_PORT=8890", "noray.conf:1: NORAY_HTTP_PORT: 8890 is NORAY_SOCKET_PORT"),
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
    assert!(found[1].contains("NORAY_UDP_RELAY_PORTS: holds 8809"), "{found:?}");
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
fn mistakes_on_the_command_line_and_in_the_environment_name_their_place() {
    let sources = Sources {
        environment: vec![("NORAY_OID_LENGHT".to_owned(), "5".to_owned())],
        command_line: vec!["NORAY_OID_LENGTH".to_owned()],
        ..Sources::default()
    };
    let found = Effective::read(&sources).unwrap_err();
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    let expected = [
        "command line: --set NORAY_OID_LENGTH: not of the form KEY=value",
        "environment: NORAY_OID_LENGHT: unknown key, did you mean NORAY_OID_LENGTH?",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_file_that_is_not_utf8_is_a_mistake_on_its_line() {
    let file = ("noray.conf".to_owned(), b"NORAY_OID_LENGTH=5\n\xff\xfe\n".to_vec());
    let found = Effective::read(&Sources { file: Some(file), ..Sources::default() }).unwrap_err();
    assert_eq!(found[0].to_string(), "noray.conf:2: ?: the line is not UTF-8");
}
