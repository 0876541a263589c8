//! Golden transcripts of the TCP wire.
//!
//! Each line is one player's act: `A> text` sends a line, `A>| bytes` sends bytes as they are (with `\n`, `\r` and
//! `\xff` escaped, in a segment of their own), `A< text` is the next line that comes, `A~` registers the player's
//! UDP address, `A-` reads the end of the connection, `A!` breaks it off. `{name}` in what comes stands for a word: any the first
//! time, the same ever after. At the end nothing else may have come to anybody.

mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, Shutdown, UdpSocket};

use noray::config::Config;
use support::{Line, TestServer, config, register_address, udp_socket};

#[test]
fn registration() {
    play(
        &config(),
        "A> register-host
         A< set-oid {oid-a}
         A< set-pid {pid-a}
         A> register-host
         A< set-oid {new-oid-a}
         A< set-pid {new-pid-a}
         B> register-host
         B< set-oid {oid-b}
         B< set-pid {pid-b}
         B> connect {oid-a}
         B< connect-error no-address send your PrivateID to the UDP registrar until it answers OK, then ask again
         B> connect {new-oid-a}
         B< connect-error no-address send your PrivateID to the UDP registrar until it answers OK, then ask again",
    );
}

#[test]
fn resumption() {
    play(
        &config(),
        "H> register-host
         H< set-oid {oid-h}
         H< set-pid {pid-h}
         H~
         H> register-host
         H< set-oid {new-oid}
         H< set-pid {new-pid}
         C> register-host
         C< set-oid {oid-c}
         C< set-pid {pid-c}
         C~
         C> connect-relay {oid-h}
         C< connect-relay {relay-h}
         H< connect-relay {relay-c}
         N> register-host {pid-h}
         N< set-oid {oid-h}
         N< set-pid {pid-h}
         H< error replaced you go on on another connection
         H-
         C> connect {new-oid}
         C< connect {address-h}
         N< connect {address-c}
         C> connect-relay {oid-h}
         C< connect-relay {relay-h}
         N< connect-relay {relay-c}
         N> register-host nobody-has-this
         N< set-oid {another-oid}
         N< set-pid {another-pid}",
    );
}

#[test]
fn a_host_that_is_away() {
    play(
        &config(),
        "H> register-host
         H< set-oid {oid-h}
         H< set-pid {pid-h}
         H~
         C> register-host
         C< set-oid {oid-c}
         C< set-pid {pid-c}
         C~
         H!
         C> connect {oid-h}
         C< connect-error host-away the host has lost its connection and may come back, ask again in a moment
         C> connect-relay {oid-h}
         C< connect-relay-error host-away the host has lost its connection and may come back, ask again in a moment
         N> register-host {pid-h}
         N< set-oid {oid-h}
         N< set-pid {pid-h}
         C> connect {oid-h}
         C< connect {address-h}
         N< connect {address-c}",
    );
}

#[test]
fn codes_are_read_as_people_write_them() {
    let alphabet = "ABCDEFGHJKMNPQRSTUVWXYZ23456789".parse().unwrap();
    let config =
        Config { oid_charset: alphabet, oid_length: 6, oid_prefix: "eu-".to_owned(), ..config() };
    play(
        &config,
        "H> register-host
         H< set-oid {oid-h}
         H< set-pid {pid-h}
         H~
         C> register-host
         C< set-oid {oid-c}
         C< set-pid {pid-c}
         C~
         C> connect {lower oid-h}
         C< connect {address-h}
         H< connect {address-c}
         C> connect {spaced oid-h}
         C< connect {address-h}
         H< connect {address-c}",
    );
}

#[test]
fn connect_and_connect_relay() {
    play(
        &config(),
        "H> register-host
         H< set-oid {oid-h}
         H< set-pid {pid-h}
         H~
         C> register-host
         C< set-oid {oid-c}
         C< set-pid {pid-c}
         C~
         C> connect {oid-h}
         C< connect {address-h}
         H< connect {address-c}
         C> connect-relay {oid-h}
         C< connect-relay {relay-h}
         H< connect-relay {relay-c}
         C> connect-relay {oid-h}
         C< connect-relay {relay-h}
         H< connect-relay {relay-c}
         H> connect-relay {oid-c}
         H< connect-relay {relay-c}
         C< connect-relay {relay-h}",
    );
}

#[test]
fn echo() {
    play(
        &config(),
        "A> echo a  b \t c
         A< echo a  b \t c
         A> echo
         A< echo
         A> echo ünïcödé
         A< echo ünïcödé",
    );
}

#[test]
fn errors_never_reuse_a_commands_name() {
    play(
        &config(),
        "A> connect
         A< connect-error missing-oid name the host: COMMAND OPENID
         A> connect-relay
         A< connect-relay-error missing-oid name the host: COMMAND OPENID
         A> connect nobody
         A< connect-error not-registered send register-host first
         A> connect-relay nobody
         A< connect-relay-error not-registered send register-host first
         A> register-host
         A< set-oid {oid-a}
         A< set-pid {pid-a}
         A> connect nobody
         A< connect-error unknown-oid no connected host has this OpenID
         A> connect-relay nobody
         A< connect-relay-error unknown-oid no connected host has this OpenID
         A> connect {oid-a}
         A< connect-error self this OpenID is your own
         A> connect-relay {oid-a}
         A< connect-relay-error self this OpenID is your own
         H> register-host
         H< set-oid {oid-h}
         H< set-pid {pid-h}
         A> connect {oid-h}
         A< connect-error no-address send your PrivateID to the UDP registrar until it answers OK, then ask again
         A> connect-relay {oid-h}
         A< connect-relay-error no-address send your PrivateID to the UDP registrar until it answers OK, then ask again
         A~
         A> connect {oid-h}
         A< connect-error host-no-address the host has not registered its UDP address yet, ask again in a moment
         A> connect-relay {oid-h}
         A< connect-relay-error host-no-address the host has not registered its UDP address yet, ask again in a moment",
    );
}

#[test]
fn relays_exhausted() {
    let two_ports = Config { relay_ports: (20_000..20_002).collect(), ..config() };
    play(
        &two_ports,
        "A> register-host
         A< set-oid {oid-a}
         A< set-pid {pid-a}
         A~
         B> register-host
         B< set-oid {oid-b}
         B< set-pid {pid-b}
         B~
         C> register-host
         C< set-oid {oid-c}
         C< set-pid {pid-c}
         C~
         B> connect-relay {oid-c}
         B< connect-relay {relay-c}
         C< connect-relay {relay-b}
         A> connect-relay {oid-b}
         A< connect-relay-error relays-exhausted too many relays are in use, try again later
         A> connect {oid-b}
         A< connect {address-b}
         B< connect {address-a}",
    );
}

#[test]
fn ids_exhausted() {
    let two_ids = Config { oid_length: 1, oid_charset: "ab".parse().unwrap(), ..config() };
    play(
        &two_ids,
        "A> register-host
         A< set-oid {oid-a}
         A< set-pid {pid-a}
         B> register-host
         B< set-oid {oid-b}
         B< set-pid {pid-b}
         C> register-host
         C< register-host-error ids-exhausted no unused OpenID was found, the server's OpenIDs are too short",
    );
}

#[test]
fn no_common_family() {
    let all = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    // On every address, so not the ports of the other tests.
    let dual_stack = Config { udp_host: all, relay_ports: (21_000..21_016).collect(), ..config() };
    play(
        &dual_stack,
        "A> register-host
         A< set-oid {oid-a}
         A< set-pid {pid-a}
         A~
         6> register-host
         6< set-oid {oid-6}
         6< set-pid {pid-6}
         6~
         A> connect {oid-6}
         A< connect-error no-common-family one side has IPv4 and the other IPv6, use connect-relay
         A> connect-relay {oid-6}
         A< connect-relay {relay-6}
         6< connect-relay {relay-a}
         66> register-host
         66< set-oid {oid-66}
         66< set-pid {pid-66}
         66~
         66> connect {oid-6}
         66< connect {address-6}
         6< connect {address-66}",
    );
}

#[test]
fn unknown_commands() {
    let long = "x".repeat(100);
    let cut = "x".repeat(64);
    play(
        &config(),
        &format!(
            "A> fly me to the moon
             A< error unknown-command fly
             A> {long}
             A< error unknown-command {cut}
             A> Register-Host
             A< error unknown-command Register-Host
             A>| \\x1b[2J\\x07 now\\n
             A< error unknown-command [2J"
        ),
    );
}

#[test]
fn line_ends_and_empty_lines() {
    play(
        &config(),
        r"A>| echo a\r\n
          A< echo a
          A>| \n\r\n\n
          A>| echo b\n
          A< echo b
          A>| echo c\r\r\n
          A< echo c\r",
    );
}

#[test]
fn commands_split_over_and_joined_into_segments() {
    play(
        &config(),
        r"A>| ec
          A>| h
          A>| o one\r
          A>| \necho two\necho th
          A< echo one
          A< echo two
          A>| ree\n
          A< echo three",
    );
}

#[test]
fn bytes_that_are_not_utf8() {
    play(
        &config(),
        r"A>| echo \xff\xfe\n
          A< error not-utf8 the line was ignored
          A>| \x00\n
          A< error unknown-command 
          A> echo still here
          A< echo still here",
    );
}

#[test]
fn a_line_too_long_ends_the_connection() {
    let longest = "x".repeat(4091);
    play(
        &config(),
        &format!(
            "A> echo {longest}
             A< echo {longest}
             A> echo {longest}y
             A< error line-too-long lines have at most 4096 bytes
             A-"
        ),
    );
    let endless = "x".repeat(100_000);
    play(
        &config(),
        &format!(
            "A> {endless}
             A< error line-too-long lines have at most 4096 bytes
             A-"
        ),
    );
}

#[test]
fn a_full_server_says_so() {
    let for_one = Config { max_connections: 1, ..config() };
    play(
        &for_one,
        "A> echo first
         A< echo first
         B< error server-full try again later
         B-
         A> echo still here
         A< echo still here",
    );
}

/// One player of a transcript.
struct Actor {
    line: Line,
    udp: UdpSocket,
    has_ended: bool,
}

fn play(config: &Config, transcript: &str) {
    let server = TestServer::start(config);
    let mut actors: BTreeMap<String, Actor> = BTreeMap::new();
    let mut words: BTreeMap<String, String> = BTreeMap::new();
    for act in transcript.lines().map(str::trim_start) {
        let mark = act.find(['>', '<', '~', '-', '!']).expect("an act");
        let (name, act) = act.split_at(mark);
        let actor = actors.entry(name.to_owned()).or_insert_with(|| {
            let ip = if name.starts_with('6') { "::1" } else { "127.0.0.1" };
            let udp = udp_socket(ip.parse().unwrap());
            Actor { line: Line::connect(server.addresses.socket), udp, has_ended: false }
        });
        if let Some(bytes) = act.strip_prefix(">| ") {
            actor.line.send_bytes(&unescape(bytes));
        } else if let Some(text) = act.strip_prefix("> ") {
            actor.line.send(&fill_in(text, &words));
        } else if let Some(pattern) = act.strip_prefix("< ") {
            let came =
                actor.line.receive().unwrap_or_else(|| panic!("the end instead of `{pattern}`"));
            learn(pattern, &came.replace('\r', "\\r"), &mut words);
        } else if act == "~" {
            let pid = &words[&format!("pid-{}", name.to_lowercase())];
            let mut registrar = server.addresses.registrar;
            let local = actor.udp.local_addr().unwrap();
            if registrar.ip().is_unspecified() {
                registrar.set_ip(local.ip());
            }
            register_address(&actor.udp, pid, registrar);
            words.insert(format!("address-{}", name.to_lowercase()), local.to_string());
        } else if act == "-" {
            assert_eq!(actor.line.receive(), None, "the end for {name}");
            actor.has_ended = true;
        } else if act == "!" {
            let players = server.metric("noray_active_hosts");
            actor.line.stream().shutdown(Shutdown::Both).unwrap();
            server.wait_for("noray_active_hosts", players - 1);
            actor.has_ended = true;
        } else {
            panic!("`{act}` is no act");
        }
    }
    for actor in actors.values_mut().filter(|actor| !actor.has_ended) {
        actor.line.settle();
    }
}

/// Puts known words in their places.
fn fill_in(text: &str, words: &BTreeMap<String, String>) -> String {
    words
        .iter()
        .fold(text.to_owned(), |text, (name, word)| text.replace(&format!("{{{name}}}"), word))
}

/// Compares what came with the pattern; a `{name}` that is not known yet, at its end, becomes known.
fn learn(pattern: &str, came: &str, words: &mut BTreeMap<String, String>) {
    let pattern = fill_in(pattern, words);
    if let Some((before, name)) = pattern.split_once('{') {
        let word =
            came.strip_prefix(before).unwrap_or_else(|| panic!("`{came}` instead of `{pattern}`"));
        assert!(!word.contains(' ') && !word.is_empty(), "`{word}` is one word");
        let name = name.strip_suffix('}').expect("a name in braces").to_owned();
        let spaced: String = word.chars().flat_map(|c| [c, ' ']).collect();
        words.insert(format!("lower {name}"), word.to_lowercase());
        words.insert(format!("spaced {name}"), spaced);
        words.insert(name, word.to_owned());
    } else {
        assert_eq!(came, pattern);
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let code = rest.as_bytes()[at + 1];
        rest = &rest[at + 2..];
        match code {
            b'n' => bytes.push(b'\n'),
            b'r' => bytes.push(b'\r'),
            b'x' => {
                bytes.push(u8::from_str_radix(&rest[..2], 16).expect("two hexadecimal digits"));
                rest = &rest[2..];
            }
            other => panic!("\\{} is no escape", char::from(other)),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}
