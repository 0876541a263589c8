//! Strangers and the operator in a plan.

use super::{Maker, Theme};
use crate::world::plan::{Act, Deed, Family, Role, StrangerPlan, What};
use crate::world::router::RouterKind;

impl Maker {
    pub(super) fn deed(&mut self) -> (Deed, u16) {
        let all: &[(Deed, u16)] = match self.theme {
            Theme::FewConnections => &[
                (Deed::Connections, 40),
                (Deed::Silent, 40),
                (Deed::Connections, 10),
                (Deed::HalfLine, 1),
            ],
            Theme::NarrowLine => &[(Deed::Flood, 1500)],
            Theme::Crowd => &[(Deed::Crowd, 400)],
            Theme::Elsewhere => &[(Deed::Drift, 10)],
            Theme::NoOneHonest => &[
                (Deed::Relays, 60),
                (Deed::Ids, 10),
                (Deed::BothUnconfirmed, 20),
                (Deed::BothUnconfirmed, 20),
                (Deed::Flood, 300),
                (Deed::Connections, 60),
            ],
            Theme::Open
            | Theme::AnyLatching
            | Theme::NoLatching
            | Theme::RelayOnly
            | Theme::SeveralIps
            | Theme::ShortLives => &[
                (Deed::Scan, 200),
                (Deed::Scan, 30),
                (Deed::KnownPort, 100),
                (Deed::KnownPort, 5),
                (Deed::ForgeSources, 60),
                (Deed::ForgeAddress, 100),
                (Deed::ForgeAlive, 100),
                (Deed::Registrar, 300),
                (Deed::RegistrarForged, 300),
                (Deed::Implausible, 5),
                (Deed::Moves, 20),
                (Deed::Guess, 15),
                (Deed::AskForHost, 15),
                (Deed::Relays, 60),
                (Deed::Flood, 400),
                (Deed::FloodHost, 200),
                (Deed::Mute, 10),
                (Deed::Ids, 10),
                (Deed::SlowReader, 15),
                (Deed::HalfLine, 1),
                (Deed::LongLine, 4),
                (Deed::TooMany, 4),
                (Deed::Fumble, 8),
                (Deed::Unconfirmed, 15),
                (Deed::Silent, 2),
                (Deed::BothUnconfirmed, 10),
            ],
        };
        *self.random.pick(all)
    }

    pub(super) fn stranger(&mut self) {
        let (deed, rate) = self.deed();
        let victim = (!self.plan.players.is_empty()).then(|| {
            let players = &self.plan.players;
            let victim = &players[self.random.below(players.len() as u64) as usize];
            (victim.id, victim.site, victim.role)
        });
        let wants_host = matches!(
            deed,
            Deed::AskForHost | Deed::FloodHost | Deed::Mute | Deed::Unconfirmed | Deed::Fumble
        );
        let target = match victim {
            Some((_, _, Role::Client(host))) if wants_host => Some(host),
            other => other.map(|(id, ..)| id),
        };
        // A neighbour behind the victim's IP, where the page on security says what that can do.
        let is_neighbour =
            deed == Deed::KnownPort || (deed == Deed::Scan && self.random.is_hit(500));
        let kind = if matches!(deed, Deed::Unconfirmed | Deed::BothUnconfirmed) {
            RouterKind::SeveralIps
        } else {
            *self.random.pick(&[RouterKind::None, RouterKind::Home])
        };
        let site = match victim {
            Some((_, site, _)) if is_neighbour => site,
            // From its second IP it goes on after a while.
            _ if deed == Deed::Drift => self.site_with(kind, 2),
            _ => self.site(kind),
        };
        let id = self.id();
        let start_ms = self.random.within(0, 6000) as u32;
        let for_s = self.random.within(10, 60) as u16;
        let plan = StrangerPlan { id, site, start_ms, for_s, rate, deed, victim: target };
        self.plan.strangers.push(plan);
    }

    pub(super) fn act(&mut self) {
        let at_ms = self.random.within(1000, u64::from(self.plan.seconds) * 1000) as u32;
        let what = match self.random.below(16) {
            0..=3 => What::HandOver,
            4 | 5 => What::Reload(self.plan.config.clone()),
            6 => {
                let mut config = self.plan.config.clone();
                config.retain(|line| !line.starts_with("NORAY_UDP_RELAY_PORTS"));
                let range = if self.theme == Theme::NoOneHonest {
                    "50004-50011"
                } else {
                    *self.random.pick(&["50000-50249", "50050-50199", "51000-51199"])
                };
                config.push(format!("NORAY_UDP_RELAY_PORTS={range}"));
                What::Reload(config)
            }
            7 | 8 => {
                let ms = *self.random.pick(&[300, 1500, 2500, 6000, 20_000, 3_600_000]);
                if ms > 10_000 {
                    self.plan.seconds += ms / 1000;
                }
                What::StandStill { ms, loses: self.random.is_hit(500) }
            }
            9 => What::Restart { after_ms: self.random.within(0, 3000) as u32 },
            10 => What::NoThreads { ms: self.random.within(100, 2000) as u32 },
            11 => What::FromItself,
            12 | 13 if !self.plan.players.is_empty() => {
                let players = &self.plan.players;
                let player = &players[self.random.below(players.len() as u64) as usize];
                if player.family == Family::V4 {
                    let player = player.id;
                    let site = self.site(RouterKind::Home);
                    What::Move { player, site }
                } else {
                    What::HandOver
                }
            }
            _ => {
                let sites = &self.plan.sites;
                let site = sites[self.random.below(sites.len() as u64) as usize].id;
                What::Forget { site }
            }
        };
        self.plan.acts.push(Act { at_ms, what });
    }
}
