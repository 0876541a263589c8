//! Shrinks a plan that breaks a promise to what is needed for that.

use super::net::Line;
use super::plan::Plan;
use super::play;

/// How many worlds are played at most.
const TRIES: usize = 400;

/// A smaller plan that breaks the same promise.
pub fn shrink(plan: &Plan, promise: &str) -> Plan {
    let mut tries = 0;
    shrink_while(plan, |plan| {
        tries += 1;
        tries <= TRIES && play(plan).violation.is_some_and(|found| found.promise == promise)
    })
}

/// A smaller plan of which something still holds.
pub fn shrink_while(plan: &Plan, mut still_fails: impl FnMut(&Plan) -> bool) -> Plan {
    let mut small = plan.clone();
    loop {
        let before = small.clone();
        remove(&mut small, |plan| &mut plan.strangers, &mut still_fails);
        remove(&mut small, |plan| &mut plan.acts, &mut still_fails);
        remove(&mut small, |plan| &mut plan.players, &mut still_fails);
        simplify(&mut small, &mut still_fails);
        if small == before {
            break;
        }
    }
    let used = |site: u16| {
        small.players.iter().any(|player| player.site == site)
            || small.strangers.iter().any(|stranger| stranger.site == site)
            || small.acts.iter().any(
                |act| matches!(act.what, super::plan::What::Move { site: to, .. } if to == site),
            )
    };
    let mut without = small.clone();
    without.sites.retain(|site| used(site.id));
    if still_fails(&without) { without } else { small }
}

/// Removes halves of a list, then quarters, down to single parts.
fn remove<T: Clone>(
    plan: &mut Plan,
    list: fn(&mut Plan) -> &mut Vec<T>,
    still_fails: &mut impl FnMut(&Plan) -> bool,
) {
    let mut length = list(plan).len().div_ceil(2);
    while length > 0 {
        let mut at = 0;
        while at < list(plan).len() {
            let mut smaller = plan.clone();
            let end = (at + length).min(list(&mut smaller).len());
            list(&mut smaller).drain(at..end);
            if still_fails(&smaller) {
                *plan = smaller;
            } else {
                at += length;
            }
        }
        length = if length == 1 { 0 } else { length.div_ceil(2) };
    }
}

/// Perfect lines, players without habits, and as few settings as possible.
fn simplify(plan: &mut Plan, still_fails: &mut impl FnMut(&Plan) -> bool) {
    let mut perfect = plan.clone();
    perfect.sites.iter_mut().for_each(|site| site.line = Line::PERFECT);
    let mut plain = plan.clone();
    for player in &mut plain.players {
        (player.in_pieces, player.writes_freely, player.breaks) = (false, false, None);
    }
    for simpler in [perfect, plain] {
        if simpler != *plan && still_fails(&simpler) {
            *plan = simpler;
        }
    }
    remove(plan, |plan| &mut plan.config, still_fails);
}
