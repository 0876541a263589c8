//! Plans from seeds.

mod others;

use super::net::Line;
use super::plan::{Act, Break, Family, Plan, PlayerPlan, Role, Site, Way, What};
use super::random::Rng;
use super::router::RouterKind;

/// How much is in a world.
#[derive(Clone, Copy)]
struct Size {
    games: u64,
    clients: u64,
    strangers: u64,
    acts: u64,
    play_s: (u64, u64),
}

/// The first seed of a large world.
pub const FIRST_LARGE: u64 = 1_000_000;

impl Size {
    /// Seeds below [`FIRST_LARGE`] are small worlds, of which `cargo test` plays many.
    fn of(seed: u64) -> Self {
        if seed < FIRST_LARGE { Self::SMALL } else { Self::LARGE }
    }

    const SMALL: Self = Self { games: 2, clients: 3, strangers: 3, acts: 3, play_s: (9, 16) };
    const LARGE: Self = Self { games: 5, clients: 7, strangers: 6, acts: 8, play_s: (10, 60) };
}

/// What a world is about beside its games.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Theme {
    /// Games, strangers and an operator, with settings that hold nothing up.
    Open,
    /// Several IPs for one player, and latching that allows it.
    AnyLatching,
    NoLatching,
    RelayOnly,
    /// Relays that end soon, by age or by what they carried.
    ShortLives,
    /// Few connections, and hoarders.
    FewConnections,
    /// A line for all relays that one stranger can fill.
    NarrowLine,
    /// Carriers that use several IPs for one player, without latching that allows it.
    SeveralIps,
    /// Strangers among themselves: a host with very many clients.
    Crowd,
    /// Strangers among themselves: players whose datagrams come from elsewhere after a while.
    Elsewhere,
    /// Strangers among themselves: few ports, very short ids, players whose datagrams come from elsewhere.
    NoOneHonest,
}

struct Maker {
    random: Rng,
    plan: Plan,
    next: u16,
    theme: Theme,
    has_ipv6: bool,
    size: Size,
    rate_limit: u64,
}

/// The plan of a seed.
pub fn plan(seed: u64) -> Plan {
    let size = Size::of(seed);
    let mut random = Rng::of(seed, "plan", 0);
    let strangers = [Theme::NoOneHonest, Theme::NoOneHonest, Theme::Crowd, Theme::Elsewhere];
    let among_strangers = *random.pick(&strangers);
    let theme = *random.pick(&[
        Theme::Open,
        Theme::Open,
        Theme::Open,
        Theme::Open,
        Theme::Open,
        Theme::AnyLatching,
        Theme::NoLatching,
        Theme::RelayOnly,
        Theme::ShortLives,
        Theme::FewConnections,
        Theme::NarrowLine,
        Theme::SeveralIps,
        among_strangers,
    ]);
    let (sites, players, strangers, acts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let plan = Plan { seed, config: Vec::new(), seconds: 0, sites, players, strangers, acts };
    let has_ipv6 = random.is_hit(400);
    let mut maker = Maker { random, plan, next: 0, theme, has_ipv6, size, rate_limit: 128 * 1024 };
    maker.make();
    maker.plan
}

/// A plan from any bytes, for fuzzing: the seed of a small world, and what its operator and its routers do besides.
pub fn plan_of_bytes(data: &[u8]) -> Plan {
    let (seed, more) = data.split_at(data.len().min(2));
    let seed = seed.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte));
    let mut plan = plan(seed);
    for act in more.chunks_exact(4).take(16) {
        let at_ms = u32::from(u16::from_le_bytes([act[0], act[1]]));
        let number = usize::from(act[3]);
        let site = plan.sites.get(number % plan.sites.len().max(1)).map(|site| site.id);
        let what = match (act[2] % 8, site) {
            (0..=3, _) => What::HandOver,
            (4, _) => What::Reload(plan.config.clone()),
            (5, _) => What::StandStill { ms: 100 * u32::from(act[3]), loses: act[3] % 2 == 0 },
            (6, Some(site)) => What::Forget { site },
            _ => What::FromItself,
        };
        plan.acts.push(Act { at_ms, what });
    }
    plan
}

impl Maker {
    fn id(&mut self) -> u16 {
        self.next += 1;
        self.next
    }

    fn set(&mut self, key: &str, value: impl std::fmt::Display) {
        self.plan.config.retain(|line| !line.starts_with(&format!("NORAY_{key}=")));
        self.plan.config.push(format!("NORAY_{key}={value}"));
    }

    fn make(&mut self) {
        self.configure();
        if !self.is_without_players() {
            for _ in 0..self.random.within(1, self.size.games) {
                self.game();
            }
        }
        let least = match self.theme {
            Theme::NoOneHonest => 2,
            Theme::Elsewhere => 4,
            Theme::Crowd | Theme::FewConnections | Theme::NarrowLine => 1,
            Theme::Open
            | Theme::AnyLatching
            | Theme::NoLatching
            | Theme::RelayOnly
            | Theme::ShortLives
            | Theme::SeveralIps => 0,
        };
        for _ in 0..self.random.within(least, self.size.strangers.max(least)) {
            self.stranger();
        }
        let last = self.plan.players.iter().map(|p| p.start_ms / 1000 + u32::from(p.play_s)).max();
        self.plan.seconds = last.unwrap_or(40) + 12;
        for _ in 0..self.random.within(0, self.size.acts) {
            self.act();
        }
    }

    fn is_without_players(&self) -> bool {
        matches!(self.theme, Theme::NoOneHonest | Theme::Crowd | Theme::Elsewhere)
    }

    fn configure(&mut self) {
        if self.has_ipv6 {
            self.set("UDP_HOST", "::");
            self.set("SOCKET_HOST", "::");
        }
        self.set("UDP_RELAY_PORTS", "50000-50199");
        let resume = *self.random.pick(&["0", "8s", "20s", "1m"]);
        self.set("RESUME_WINDOW", resume);
        // The shortest is shorter than some stalls.
        let idle = if self.random.is_hit(400) { 5 } else { self.random.within(5, 35) };
        self.set("UDP_RELAY_TIMEOUT", format!("{idle}s"));
        let sweep = self.random.within(1, 30);
        self.set("UDP_RELAY_CLEANUP_INTERVAL", format!("{sweep}s"));
        let drain = self.random.within(3, 20);
        self.set("DRAIN_TIMEOUT", format!("{drain}s"));
        match self.random.below(4) {
            0 => {
                self.set("OID_LENGTH", 6);
                self.set("OID_CHARSET", "ABCDEFGHJKLMNPQRSTUVWXYZ23456789");
            }
            1 => self.set("ENABLE_WORDS_OID", true),
            _ => {}
        }
        match self.theme {
            Theme::Open | Theme::SeveralIps | Theme::Elsewhere => {}
            Theme::Crowd => self.set("UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC", "8kb"),
            Theme::AnyLatching => self.set("UDP_RELAY_LATCHING", "any"),
            Theme::NoLatching => self.set("UDP_RELAY_LATCHING", "off"),
            Theme::RelayOnly => {
                self.set("RELAY_ONLY", true);
                if self.random.is_hit(500) {
                    self.set("PUBLIC_HOST", "81.7.0.0");
                }
            }
            Theme::ShortLives => {
                let seconds = self.random.within(5, 20);
                let limit = self.random.within(40, 400);
                self.set("UDP_RELAY_MAX_LIFETIME_DURATION", format!("{seconds}s"));
                self.set("UDP_RELAY_MAX_LIFETIME_TRAFFIC", format!("{limit}kb"));
            }
            Theme::FewConnections => self.set("MAX_CONNECTIONS", 100),
            Theme::NarrowLine => {
                self.set("UDP_RELAY_MAX_GLOBAL_TRAFFIC", "1mb");
                self.set("UDP_RELAY_MAX_INDIVIDUAL_TRAFFIC", "1gb");
                self.rate_limit = 48 * 1024;
            }
            Theme::NoOneHonest => {
                self.set("UDP_RELAY_PORTS", "50000-50007");
                self.set("UDP_RELAY_MAX_GLOBAL_TRAFFIC", "200kb");
                if self.random.is_hit(500) {
                    self.set("OID_LENGTH", 1);
                    self.set("OID_CHARSET", "ABCD");
                    self.set("ENABLE_WORDS_OID", false);
                }
                if self.random.is_hit(300) {
                    self.set("MAX_CONNECTIONS", 30);
                    self.set("MAX_CONNECTIONS_PER_IP", 30);
                }
                let age = self.random.within(10, 40);
                self.set("UDP_RELAY_MAX_LIFETIME_DURATION", format!("{age}s"));
            }
        }
    }

    fn line(&mut self) -> Line {
        if self.random.is_hit(300) {
            return Line::PERFECT;
        }
        Line {
            delay_ms: self.random.within(2, 120) as u16,
            jitter_ms: self.random.within(0, 30) as u16,
            loss: *self.random.pick(&[0, 0, 5, 20, 80]),
            duplicates: *self.random.pick(&[0, 0, 5, 30]),
            late: *self.random.pick(&[0, 0, 10, 50]),
        }
    }

    fn site(&mut self, kind: RouterKind) -> u16 {
        self.site_with(kind, if kind == RouterKind::SeveralIps { 3 } else { 1 })
    }

    fn site_with(&mut self, kind: RouterKind, ipv4: u16) -> u16 {
        let (id, line) = (self.id(), self.line());
        let ipv6 = self.has_ipv6.then_some(id);
        let timeout_s = self.random.within(30, 120) as u16;
        self.plan.sites.push(Site { id, kind, ipv4, ipv6, timeout_s, line });
        id
    }

    fn kind(&mut self) -> RouterKind {
        loop {
            let kind = *self.random.pick(&RouterKind::ALL);
            let has_any = matches!(self.theme, Theme::AnyLatching | Theme::SeveralIps);
            if self.theme == Theme::SeveralIps && self.random.is_hit(500) {
                return RouterKind::SeveralIps;
            }
            if kind != RouterKind::SeveralIps || has_any || self.random.is_hit(100) {
                return kind;
            }
        }
    }

    fn game(&mut self) {
        let start_ms = self.random.within(0, 4000) as u32;
        let kind = self.kind();
        let site = self.site(kind);
        let (low, high) = self.size.play_s;
        let rate = self.random.within(20, 60) as u16;
        let clients = self.random.within(1, self.size.clients);
        let size =
            self.random.within(0, 900.min(self.rate_limit / 3 / u64::from(rate) - 28)) as u16;
        let plan = self.player(site, Role::Host, start_ms, rate, size, 0);
        let host = plan.id;
        self.plan.players.push(plan);
        // A carrier has many players behind one IP.
        let carrier = self.random.is_hit(300).then(|| self.site(RouterKind::Symmetric));
        let mut last = 0;
        for _ in 0..clients {
            let kind = self.kind();
            let site = carrier.unwrap_or_else(|| self.site(kind));
            let later = self.random.within(0, 3000) as u32;
            let play_s = self.random.within(low, high) as u16;
            let role = Role::Client(host);
            let plan = self.player(site, role, start_ms + later, rate, size, play_s);
            last = last.max(later / 1000 + u32::from(play_s));
            self.plan.players.push(plan);
        }
        let of_host = self.plan.players.iter_mut().find(|player| player.id == host);
        of_host.expect("it was added").play_s = last as u16 + 25;
    }

    fn player(
        &mut self,
        site: u16,
        role: Role,
        start_ms: u32,
        rate: u16,
        size: u16,
        play_s: u16,
    ) -> PlayerPlan {
        let family = match self.random.below(8) {
            0 | 1 if self.has_ipv6 => Family::V6,
            2 if self.has_ipv6 => Family::Both,
            _ => Family::V4,
        };
        let is_host = role == Role::Host;
        let hangs_up = !is_host && self.random.is_hit(300);
        let has_break = self.random.is_hit(200) && !hangs_up;
        let breaks = has_break.then(|| Break {
            after_ms: self.random.within(500, 15_000) as u32,
            vanishes: self.random.is_hit(300),
            back_after_ms: self.random.within(0, 12_000) as u32,
        });
        PlayerPlan {
            id: self.id(),
            site,
            family,
            start_ms,
            role,
            way: *self.random.pick(&[Way::Page, Way::Page, Way::AddOn, Way::Relay, Way::Relay]),
            rate,
            size,
            play_s,
            hangs_up,
            in_pieces: self.random.is_hit(300),
            writes_freely: self.random.is_hit(300),
            breaks,
        }
    }
}
