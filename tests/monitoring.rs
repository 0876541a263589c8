//! The alerts and the dashboard in `dist`, as they work: a real Prometheus scrapes a noray that is played on.

#[path = "support/harness.rs"]
mod harness;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{ChildStderr, Command, ExitCode, Stdio};

use harness::tests;
use noray::config::KEYS;
use serde_json::Value;
use socket2::SockRef;
use support::process::{Process, Running, empty_folder, ends_with_this_thread};
use support::{PATIENCE, Player, connect_relay, http_send, own_ip, try_until, udp_socket};

const ALERTS: &str = include_str!("../dist/alerts.yml");
const ALERTS_TEST: &str = include_str!("alerts_test.yml");
const DASHBOARD: &str = include_str!("../dist/grafana-dashboard.json");
const PAGE: &str = include_str!("../docs/monitoring.md");

/// Where noray serves its metrics, on its own address.
const METRICS_PORT: u16 = 20_100;

/// Where Prometheus listens, on its own address.
const PROMETHEUS_PORT: u16 = 20_200;

/// Where the program is missing, the test is ignored.
fn need(program: &str) {
    let mut command = Command::new(program);
    let is_there = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if is_there.is_err() {
        harness::ignore(format!(
            "there is no {program} (Debian's packages prometheus, util-linux)"
        ));
    }
}

fn prometheus_knows_all_that_the_dashboard_and_the_alerts_ask_for() {
    need("prometheus");
    need("setpriv");
    let mut game = Game::start();
    let prometheus = Prometheus::start(game.metrics);
    for reason in ["no-pair", "wrong-ip", "receiver-unheard", "pair-bandwidth"] {
        let rate = format!("rate(noray_relay_drop_count{{reason=\"{reason}\"}}[1m]) > 0");
        game.play_until(reason, || prometheus.look_up(&rate));
    }

    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let instance = game.metrics.to_string();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = in_force(target["expr"].as_str().unwrap(), &instance);
            game.play_until(&query, || prometheus.look_up(&query));
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        let Some(query) = annotation["expr"].as_str() else { continue };
        prometheus.check_selectors(&in_force(query, &instance));
    }
    let values = prometheus.get("/api/v1/label/instance/values?match[]=noray_build_info");
    assert_eq!(values.unwrap(), serde_json::json!([instance]), "the dashboard's list of servers");

    game.play_until("every rule evaluated", || {
        let rules = prometheus.rules();
        let are_evaluated = rules.iter().all(|rule| rule["health"] == "ok");
        if are_evaluated { Ok(()) } else { Err(format!("{rules:#?}")) }
    });
    let rules = prometheus.rules();
    assert!(rules.iter().map(|rule| rule["name"].as_str().unwrap()).eq(alert_names()));
    for rule in rules {
        prometheus.check_selectors(rule["query"].as_str().unwrap());
    }
}

/// A query of the dashboard as Grafana would send it.
fn in_force(query: &str, instance: &str) -> String {
    let query = query.replace("$instance", instance).replace("$__rate_interval", "1m");
    assert!(!query.contains('$'), "an unknown variable in {query}");
    query
}

/// A server that is played on, with mistakes of many kinds.
struct Game {
    _process: Process,
    metrics: SocketAddr,
    client: Player,
    host: Player,
    to_host: SocketAddr,
    /// Has said something once, and is sent too much.
    loud: (Player, SocketAddr),
    /// Says nothing at its relay.
    silent: (Player, SocketAddr),
}

impl Game {
    fn start() -> Self {
        let ip = own_ip();
        let metrics = SocketAddr::new(ip, METRICS_PORT);
        let settings = [
            &format!("NORAY_HTTP_PORT={METRICS_PORT}"),
            // More than the small datagrams take; the second of two large ones is too much.
            "NORAY_UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC=16mb",
            "NORAY_UDP_RELAY_TRAFFIC_INTERVAL=2ms",
        ];
        let process = Process::start(ip, "", &settings);
        let [mut client, mut host, mut loud, mut silent] = [(); 4].map(|()| process.join());
        let mut connect = |host| {
            let (to_host, to_client) = connect_relay(&mut client, host);
            [to_host, to_client].map(|port| SocketAddr::new(ip, port))
        };
        let [to_host, _] = connect(&mut host);
        let [to_loud, from_loud] = connect(&mut loud);
        let [to_silent, _] = connect(&mut silent);
        loud.send(b"here", from_loud);
        client.receive();
        let (loud, silent) = ((loud, to_loud), (silent, to_silent));
        Self { _process: process, metrics, client, host, to_host, loud, silent }
    }

    /// A hundred datagrams each way, and some mistakes.
    fn play(&mut self) {
        for length in 0..100 {
            self.client.send(&vec![0; 4 * length], self.to_host);
            let (_, to_client) = self.host.receive();
            self.host.send(b"pong", to_client);
            self.client.receive();
        }
        for (_, bad) in [&self.loud, &self.loud, &self.silent] {
            self.client.send(&[0; 60_000], *bad);
        }
        let stranger = udp_socket(Ipv4Addr::new(127, 0, 0, 2).into());
        for port in 20_000..20_064 {
            let to = SocketAddr::new(self.metrics.ip(), port);
            stranger.send_to(b"no-pair or wrong-ip", to).unwrap();
        }
        self.client.line.send("connect nobody");
        assert!(self.client.line.receive().is_some());
    }

    /// Plays on until `attempt` succeeds.
    fn play_until(&mut self, what: &str, mut attempt: impl FnMut() -> Result<(), String>) {
        let mut last = Ok(());
        let is_done = try_until(PATIENCE, || {
            self.play();
            last = attempt();
            last.is_ok()
        });
        assert!(is_done, "{what}: {last:?}");
    }
}

/// A Prometheus of our own, ended when it goes out of scope.
struct Prometheus {
    address: SocketAddr,
    _process: Running,
    _log: BufReader<ChildStderr>,
}

impl Prometheus {
    /// Configured as docs/monitoring.md says, all but the address and the haste; returns when it begins to scrape.
    fn start(metrics: SocketAddr) -> Self {
        let folder = empty_folder();
        let address = SocketAddr::new(own_ip(), PROMETHEUS_PORT);
        // It begins 5 s after its start. A second target, which does not answer, tells when.
        let other = TcpListener::bind((address.ip(), 0)).unwrap();
        SockRef::from(&other).set_read_timeout(Some(PATIENCE)).unwrap();
        let config = documented_config().replace("127.0.0.1:8891", &metrics.to_string());
        let config = config.replace("15s", "200ms") + &other_job(other.local_addr().unwrap());
        fs::write(folder.join("prometheus.yml"), config).unwrap();
        fs::write(folder.join("noray-alerts.yml"), ALERTS).unwrap();
        let mut command = ends_with_this_thread("prometheus");
        command.args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
        command.arg(format!("--web.listen-address={address}")).current_dir(folder);
        let mut process = Running(command.stderr(Stdio::piped()).spawn().unwrap());
        let mut log = BufReader::new(process.0.stderr.take().unwrap());
        let mut start = String::new();
        while !start.contains("ready to receive") {
            assert_ne!(log.read_line(&mut start).unwrap(), 0, "it ended:\n{start}");
        }
        other.accept().expect("it scrapes");
        Self { address, _process: process, _log: log }
    }

    /// The data of an answer.
    fn get(&self, path: &str) -> Result<Value, String> {
        // By HTTP 1.0 it ends the connection, and does not send in chunks.
        let (_, body) = http_send(self.address, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes());
        let mut answer: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        if answer["status"] == "success" { Ok(answer["data"].take()) } else { Err(body) }
    }

    /// The series that a query finds.
    fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let data = self.get(&format!("/api/v1/query?query={encoded}"))?;
        Ok(data["result"].as_array().expect("a vector").clone())
    }

    /// Fails if a query does not find a number.
    fn look_up(&self, query: &str) -> Result<(), String> {
        let series = self.query(query)?;
        let mut values = series.iter().map(|one| one["value"][1].as_str().expect("a value"));
        let is_found = values.any(|value| value.parse::<f64>().is_ok_and(f64::is_finite));
        if is_found { Ok(()) } else { Err(format!("{query} finds {series:?}")) }
    }

    /// Every metric in a query exists, with these labels; the query itself may find nothing.
    fn check_selectors(&self, query: &str) {
        self.query(query).unwrap();
        let selectors = selectors(query);
        assert!(!selectors.is_empty(), "{query}");
        for selector in selectors {
            self.look_up(selector).unwrap_or_else(|error| panic!("{error}, in {query}"));
        }
    }

    fn rules(&self) -> Vec<Value> {
        let groups = self.get("/api/v1/rules").unwrap();
        groups["groups"][0]["rules"].as_array().expect("rules").clone()
    }
}

/// The prometheus.yml that docs/monitoring.md shows.
fn documented_config() -> String {
    let lines = PAGE.lines().skip_while(|line| *line != "    global:");
    let block: Vec<&str> = lines.map_while(|line| line.strip_prefix("    ")).collect();
    assert!(block.len() > 5, "{block:?}");
    block.join("\n") + "\n"
}

fn other_job(target: SocketAddr) -> String {
    format!("  - job_name: other\n    static_configs:\n      - targets: [\"{target}\"]\n")
}

/// The names of metrics in a query, with their labels.
fn selectors(query: &str) -> Vec<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(start) = rest.find(is_name) {
        rest = &rest[start..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let name = &rest[..end];
        let labels =
            if rest[end..].starts_with('{') { rest[end..].find('}').unwrap() + 1 } else { 0 };
        if name == "up" || name.starts_with("noray_") || name.starts_with("process_") {
            found.push(&rest[..end + labels]);
        }
        rest = &rest[end + labels..];
    }
    found
}

fn alert_names() -> Vec<&'static str> {
    ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect()
}

fn every_alert_fires_when_it_should_and_only_then() {
    need("promtool");
    for arguments in
        [["check", "rules", "dist/alerts.yml"], ["test", "rules", "tests/alerts_test.yml"]]
    {
        let output = Command::new("promtool")
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    }
}

fn every_alert_is_tested_and_explained() {
    for name in alert_names() {
        assert!(ALERTS_TEST.contains(&format!("alertname=\"{name}\"")), "{name} has no test");
    }
    for part in [" summary: ", " description: ", " severity: "] {
        let is_in_each = ALERTS.split("- alert: ").skip(1).all(|alert| alert.contains(part));
        assert!(is_in_each, "an alert has no{part}");
    }
}

fn remedies_name_keys_that_exist() {
    for text in [ALERTS, DASHBOARD] {
        let words = text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        let keys: BTreeSet<&str> = words.filter(|word| word.starts_with("NORAY_")).collect();
        assert!(keys.len() > 3);
        for key in keys {
            assert!(KEYS.iter().any(|known| known.name == key), "{key}");
        }
    }
}

fn the_dashboard_is_tidy() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    assert_eq!(dashboard["id"], Value::Null, "an id is of one Grafana only");
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64()), "{title}: its id is taken");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        assert!(x + w <= 24, "{title}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(cells.insert(cell), "{title} lies on another panel");
        }
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${DS_PROMETHEUS}", "{title}");
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}");
    }
}

fn main() -> ExitCode {
    harness::run(tests![
        prometheus_knows_all_that_the_dashboard_and_the_alerts_ask_for,
        every_alert_fires_when_it_should_and_only_then,
        every_alert_is_tested_and_explained,
        remedies_name_keys_that_exist,
        the_dashboard_is_tidy,
    ])
}
