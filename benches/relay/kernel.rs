//! The kernel's path beside the sockets' and coturn, in turns, in one run: `cargo bench --bench relay --features kernel --
//! --kernel`. Needs root and `ip`.
//!
//! Players and server are in network namespaces joined by veth. What comes to the server is handled on its processor, as
//! with a network card's interrupts; the load has the other. Processor time is the whole machine's, less that of a round in
//! which the players reach each other directly, for each datagram delivered. Beside a busy neighbour a process that never
//! sleeps has the server's processor too.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::coturn;
use crate::load::Rate;
use crate::noray::{self, Introduced};
use crate::paced::{self, Round};
use crate::report::Median;
use crate::road::{Road, Side};
use crate::shape::Shape;
use crate::subject::{Flow, PlayerSocket};
use crate::support::{
    HTTP, Line, Player, Process, Processors, WIDE, start_noray_at, udp_socket_at,
};

pub(crate) const ARGUMENT: &str = "--kernel";

const DIRECT: &str = "direct";
const SOCKETS: &str = "sockets";
const KERNEL: &str = "kernel";

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(1);

/// Until the kernel has taken over what the turns of others have made it give back.
const WARM_UP: Duration = Duration::from_millis(1300);

const SHAPES: [Shape; 3] = [Shape::Pairs(1), Shape::Pairs(50), Shape::Pairs(1000)];
const RATES: [Rate; 3] = [Rate::PerSecond(10_000), Rate::PerSecond(100_000), Rate::Saturation];

/// One way between the players.
struct Way {
    name: &'static str,
    /// The server, if there is one.
    process: Option<Process>,
    sockets: Vec<PlayerSocket>,
    flows: Vec<Flow>,
    /// The players' ids live as long.
    _lines: Vec<Line>,
}

pub(crate) fn run() {
    if !cfg!(feature = "kernel") {
        return println!("build it with --features kernel");
    }
    let road = Road::new(0).unwrap_or_else(|why| panic!("no namespaces: {why}"));
    println!("{ROUNDS} rounds of {ROUND:?} for each line, in turns; 200 bytes of payload");
    println!("before, the machine was {:.0} % busy with other work", paced::busy_percent());
    let processors = Processors::find();
    for shape in SHAPES {
        processors.use_relays();
        let server = [start_noray(&road, SOCKETS), start_noray(&road, KERNEL)];
        processors.use_loads();
        let [sockets, kernel] = server;
        let mut ways = vec![direct(&road, shape)];
        ways.extend(
            [sockets, kernel]
                .map(|(name, process, port)| introduce(&road, shape, name, process, port)),
        );
        processors.use_relays();
        ways.extend(start_coturn(&road, shape));
        processors.use_loads();
        println!(
            "\n{:<28} {:<8} {:>11} {:>7} {:>8} {:>8} {:>8}  {:<20} by the kernel",
            shape.name(),
            "",
            "delivered/s",
            "loss %",
            "p50 us",
            "p99 us",
            "p99.9 us",
            "CPU us"
        );
        for rate in RATES {
            measure(&rate.name(), rate, &ways, &road);
        }
        if shape == Shape::Pairs(50) {
            processors.use_relays();
            let _neighbour = busy_neighbour();
            processors.use_loads();
            for rate in &RATES[..2] {
                measure(&format!("{}, busy neighbour", rate.name()), *rate, &ways, &road);
            }
        }
    }
}

/// A process that never sleeps, on this thread's processor.
fn busy_neighbour() -> Process {
    Process(Command::new("sh").args(["-c", "while :; do :; done"]).spawn().expect("sh runs"))
}

fn direct(road: &Road, shape: Shape) -> Way {
    let sockets: Vec<PlayerSocket> = (0..shape.players())
        .map(|player| {
            let side = Side::of(player);
            let udp = road.at(side, || udp_socket_at(side.direct()));
            PlayerSocket { udp, header: 0 }
        })
        .collect();
    let mut flows = Vec::new();
    for [host, client] in shape.pairs() {
        flows.push(Flow { from: client, to: sockets[host].address(), channel: None });
        flows.push(Flow { from: host, to: sockets[client].address(), channel: None });
    }
    Way { name: DIRECT, process: None, sockets, flows, _lines: Vec::new() }
}

type Started = (&'static str, Process, u16);

fn start_noray(road: &Road, name: &'static str) -> Started {
    // Both run at once, so each has ports of its own.
    let is_kernel = name == KERNEL;
    let offset = if is_kernel { 100 } else { 0 };
    let path = if is_kernel { "required" } else { "off" };
    let (first, last) = if is_kernel { (30_000, 34_095) } else { (20_000, 24_095) };
    let own = [
        format!("NORAY_KERNEL_PATH={path}"),
        format!("NORAY_UDP_RELAY_PORTS={first}-{last}"),
        format!("NORAY_SOCKET_PORT={}", 8890 + offset),
        format!("NORAY_UDP_REGISTRAR_PORT={}", 8809 + offset),
        format!("NORAY_HTTP_PORT={}", HTTP.port() + offset),
    ];
    let settings: Vec<&str> = WIDE.into_iter().chain(own.iter().map(String::as_str)).collect();
    let everywhere = "0.0.0.0".parse().expect("an address");
    let binary = Path::new(env!("CARGO_BIN_EXE_noray"));
    let (process, _) = road.at_server(|| start_noray_at(everywhere, binary, &settings));
    (name, process, offset)
}

fn introduce(road: &Road, shape: Shape, name: &'static str, process: Process, offset: u16) -> Way {
    let join = |player| {
        let side = Side::of(player);
        road.at(side, || Player::join_at_ports(side.player(player), side.server(), offset))
    };
    let players = (0..shape.players()).map(join).collect();
    let Introduced { flows, sockets, lines } = noray::introduce(players, shape);
    Way { name, process: Some(process), sockets, flows, _lines: lines }
}

fn start_coturn(road: &Road, shape: Shape) -> Option<Way> {
    let [clients, hosts] = [Side::Client, Side::Host].map(|side| side.server().to_string());
    let process = road.at_server(|| coturn::start_process(&clients, &hosts))?;
    let headers = coturn::headers(shape).into_iter().enumerate();
    let sockets: Vec<PlayerSocket> = headers
        .map(|(player, header)| {
            let side = Side::of(player);
            let udp = road.at(side, || udp_socket_at(side.player(player)));
            PlayerSocket { udp, header }
        })
        .collect();
    let server = SocketAddr::new(Side::Client.server(), coturn::PORT);
    let flows = coturn::introduce(shape, &sockets, server);
    Some(Way { name: coturn::NAME, process: Some(process), sockets, flows, _lines: Vec::new() })
}

/// Every round measures each way once, each time another one first.
fn measure(title: &str, rate: Rate, ways: &[Way], road: &Road) {
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); ways.len()];
    let mut by_kernel = (0, 0);
    for round in 0..ROUNDS {
        for turn in 0..ways.len() {
            let index = (round + turn) % ways.len();
            let way = &ways[index];
            if way.name == coturn::NAME {
                coturn::refresh(&way.sockets, &way.flows);
            }
            paced::run(&way.sockets, &way.flows, rate, WARM_UP);
            let before = if way.name == KERNEL { forwarded(road) } else { (0, 0) };
            rounds[index].push(paced::run(&way.sockets, &way.flows, rate, ROUND));
            if way.name == KERNEL {
                let after = forwarded(road);
                by_kernel.0 += after.0 - before.0;
                by_kernel.1 += after.1 - before.1;
            }
        }
    }
    print(title, ways, &rounds, by_kernel);
}

fn print(title: &str, ways: &[Way], rounds: &[Vec<Round>], by_kernel: (u64, u64)) {
    for (way, of_way) in ways.iter().zip(rounds) {
        let median = |figure: fn(&Round) -> f64| Median::of(of_way.iter().map(figure)).value;
        // A saturated machine has no idle time to compare.
        let marginal = of_way.iter().zip(&rounds[0]).map(|(round, direct)| {
            let scale = round.delivered as f64 / direct.delivered.max(1) as f64;
            (round.busy_us - scale * direct.busy_us) / round.delivered.max(1) as f64
        });
        let cost = if way.process.is_none() || title.starts_with("sat") || title.contains("busy") {
            String::new()
        } else {
            Median::of(marginal).to_string()
        };
        let share = match by_kernel {
            (forwarded, all) if way.name == KERNEL => {
                format!("{:.1} %", 100.0 * forwarded as f64 / all.max(1) as f64)
            }
            _ => String::new(),
        };
        println!(
            "{title:<28} {:<8} {:>11.0} {:>7.2} {:>8.0} {:>8.0} {:>8.0}  {cost:<20} {share}",
            way.name,
            median(|r| r.delivered_per_second),
            median(|r| r.loss_percent),
            median(|r| r.p50_us),
            median(|r| r.p99_us),
            median(|r| r.p999_us),
        );
    }
}

/// How many datagrams the kernel has relayed, and how many were relayed at all.
fn forwarded(road: &Road) -> (u64, u64) {
    let mut text = String::new();
    road.at_server(|| {
        let address = SocketAddr::from(([127, 0, 0, 1], HTTP.port() + 100));
        let mut stream = TcpStream::connect(address).expect("noray serves its metrics");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: noray\r\n\r\n").expect("noray reads");
        stream.read_to_string(&mut text).expect("text");
    });
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).expect("the metric")
    };
    (value("noray_kernel_datagrams_total"), value("noray_relay_datagrams_total"))
}
