//! Some more bots, introduced each to each, so that many relay ports are in use at once.

use std::ops::Range;
use std::thread;
use std::time::Duration;

use noray::operation::clock;

use super::bots::{Bot, Bots};
use super::control::{ControlConnection, NoAnswer};
use super::introductions::{introduce, relay_port};
use super::play::Link;
use super::registrar::register;

/// How long a bot of the crowd may take to connect, and then to get its ids.
const JOIN_TIME: Duration = Duration::from_secs(2);

/// How long all introductions may take together.
const INTRODUCTION_TIME: Duration = Duration::from_secs(3);

/// The introductions of a crowd, as far as the server made them.
#[derive(Default)]
pub(super) struct Crowd {
    pub(super) links: Vec<Link>,
    /// How many pairs of bots got no relay.
    pub(super) failed: usize,
    /// Why the last one got none.
    pub(super) why_failed: Option<String>,
}

/// Adds up to `size` bots and introduces each to each.
///
/// # Errors
/// Why there is not a single introduction.
pub(super) fn gather(bots: &mut Bots, size: usize) -> Result<Crowd, String> {
    let (crowd_range, why_fewer) = join_all(bots, size);
    let registered = register(bots, crowd_range.clone());
    let members: Vec<usize> = crowd_range.filter(|bot| !registered.without.contains(bot)).collect();
    let mut crowd = Crowd::default();
    let deadline = clock::now() + INTRODUCTION_TIME;
    for (index, asker) in members.iter().enumerate() {
        let hosts = &members[index + 1..];
        let told = introduce(bots, *asker, hosts, "connect-relay", relay_port, deadline);
        for (host, told) in hosts.iter().zip(told) {
            match told {
                Ok(ports) => crowd.links.push(Link { bots: [*asker, *host], ports }),
                Err(why) => {
                    crowd.failed += 1;
                    crowd.why_failed = Some(why.to_string());
                }
            }
        }
    }
    if crowd.links.is_empty() {
        let why = crowd.why_failed.or(why_fewer.map(|why| why.to_string()));
        return Err(why.unwrap_or("too few players could register their address".to_owned()));
    }
    Ok(crowd)
}

/// Which bots joined, and why the others did not. All at once: one after another, far servers would take long.
fn join_all(bots: &mut Bots, size: usize) -> (Range<usize>, Option<NoAnswer>) {
    let (first, server) = (bots.all.len(), bots.server);
    let join = || Bot::join(ControlConnection::open(server, JOIN_TIME)?, JOIN_TIME);
    let joined: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..size).map(|_| scope.spawn(join)).collect();
        threads.into_iter().map(|thread| thread.join().expect("joining does not panic")).collect()
    });
    let mut why_fewer = None;
    for bot in joined {
        why_fewer = bot.and_then(|bot| Ok(bots.add(bot)?)).err().or(why_fewer);
    }
    (first..bots.all.len(), why_fewer)
}
