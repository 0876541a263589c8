//! More players than a control group's memory suffices for, in the middle of a game.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use crate::game::{Match, Noray};
use crate::harness::ignore;
use crate::support::{Line, PATIENCE, own_ip, try_until};

const LIMIT: u64 = 48 << 20;

/// How many connect once there are as many as there may be.
const BEYOND: usize = 3000;

/// A control group with limited memory, removed when it goes out of scope, by when nothing may run in it.
struct Group {
    folder: PathBuf,
    files: &'static Files,
}

/// What cgroups(7) calls things in one of its versions.
struct Files {
    root: &'static str,
    limit: &'static str,
    peak: &'static str,
    /// How often the limit was hit: a number, or lines of words and numbers.
    hits: &'static str,
    hit: &'static str,
    kills: &'static str,
}

const VERSIONS: [Files; 2] = [
    Files {
        root: "/sys/fs/cgroup/memory",
        limit: "memory.limit_in_bytes",
        peak: "memory.max_usage_in_bytes",
        hits: "memory.failcnt",
        hit: "",
        kills: "memory.oom_control",
    },
    Files {
        root: "/sys/fs/cgroup",
        limit: "memory.max",
        peak: "memory.peak",
        hits: "memory.events",
        hit: "max ",
        kills: "memory.events",
    },
];

impl Group {
    /// The new group, or the reason why there is none.
    fn new() -> Result<Self, String> {
        let has_controller = |files: &&Files| {
            let root = Path::new(files.root);
            let controllers = fs::read_to_string(root.join("cgroup.controllers"));
            root.join(files.limit).exists()
                || controllers.is_ok_and(|all| all.split_whitespace().any(|one| one == "memory"))
        };
        let files = VERSIONS.iter().find(has_controller).ok_or("no memory controller")?;
        let folder = Path::new(files.root).join(format!("noray-test-{}", own_ip()));
        fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let group = Self { folder, files };
        // In version 2 the files are there only if the root hands the controller on.
        let limit = group.folder.join(files.limit);
        fs::write(&limit, LIMIT.to_string())
            .map_err(|error| format!("{}: {error}", limit.display()))?;
        Ok(group)
    }

    /// The number after `word` in that file; zero if there is none, as older kernels do not count everything.
    fn number(&self, file: &str, word: &str) -> u64 {
        let text = fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix(word)?.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Who was killed leaves it a little later.
        try_until(PATIENCE, || fs::remove_dir(&self.folder).is_ok());
    }
}

/// The `index`th network that players come from.
fn network(index: usize) -> IpAddr {
    let [.., high, low] = index.to_be_bytes();
    Ipv4Addr::new(127, 200 + high, low, 1).into()
}

/// How many players the log says that there is room for.
fn room(log: &str) -> usize {
    let (_, rest) = log.split_once("only ").unwrap_or_else(|| panic!("no warning: {log}"));
    let (number, _) = rest.split_once(" of NORAY_MAX_CONNECTIONS").expect("the key is named");
    number.parse().expect("a number")
}

pub(crate) fn players_beyond_the_memory_hear_that_the_server_is_full() {
    let group = Group::new().unwrap_or_else(|reason| ignore(reason));
    let script = format!("echo $$ > {}/cgroup.procs", group.folder.display());
    let noray = Noray::start(&script, &[]);
    let start = noray.process.start.clone();
    assert!(start.contains("48mb of memory; raise MemoryMax="), "{start}");
    let room = room(&start);
    let game = Match::begin(&noray.process);

    let mut inside = Vec::new();
    for index in 0..room - 2 {
        let mut line = Line::connect_from(noray.process.players, network(index));
        match index % 3 {
            // It fills the reader of lines.
            0 => line.send_bytes(&[b'x'; 4096]),
            // It leaves answers unread.
            1 => {
                line.send("register-host");
                (0..4).for_each(|_| line.send(&format!("echo {}", "x".repeat(4000))));
            }
            _ => {
                line.send("register-host");
                line.expect("set-oid");
                line.expect("set-pid");
                line.settle();
            }
        }
        inside.push(line);
    }
    noray.wait_for("noray_tcp_connections", room as u64);
    for index in 0..BEYOND {
        let mut line = Line::connect_from(noray.process.players, network(index % 250));
        if index % 2 == 0 {
            line.send("register-host");
        }
        assert_eq!(line.expect("error"), "server-full try again later");
    }
    game.goes_on();
    let registered = inside.iter_mut().skip(2).step_by(3);
    registered.for_each(Line::settle);
    assert_eq!(noray.metric("noray_tcp_connections"), room as u64, "nobody was closed");

    let Files { peak, hits, hit, kills, .. } = *group.files;
    let peak = group.number(peak, "");
    println!("{room} players and {BEYOND} more: {} of {} KiB", peak / 1024, LIMIT / 1024);
    assert!(peak < LIMIT, "{peak}");
    assert_eq!(group.number(hits, hit), 0, "the limit was hit");
    assert_eq!(group.number(kills, "oom_kill "), 0);
    inside.truncate(room / 2);
    let served = || {
        let mut line = Line::connect(noray.process.players);
        line.send("echo served");
        line.receive().is_some_and(|answer| answer == "echo served")
    };
    assert!(try_until(PATIENCE, served), "places come free");
    game.end().settle();
}
