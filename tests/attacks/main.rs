//! An attacker's day: what strangers and neighbours try against the real binary with its defaults, and what honest
//! players lose meanwhile. `cargo test --test attacks -- --nocapture` prints the figures of the security page.
//!
//! The same rules are tested on the pure types in simulated time, in more variants: see `tests/neighbours.rs` and the
//! tests of `limits` and `core::relay`. Here the traffic is real, so the longest of these tests take some seconds.

mod crowds;
#[path = "../support/harness.rs"]
mod harness;
mod latching;
mod rates;
mod stage;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

use harness::tests;

fn main() -> ExitCode {
    harness::run(tests![
        crowds::a_carrier_of_448_gets_in_beside_three_greedy_ips,
        crowds::newcomers_get_in_beside_eleven_greedy_ips,
        crowds::newcomers_get_in_beside_eleven_greedy_networks_of_one_provider,
        crowds::newcomers_get_relays_beside_five_ips_that_keep_all_they_may,
        crowds::two_thousand_players_of_one_bridge_are_in_at_once,
        crowds::a_school_of_a_thousand_behind_one_ip_is_refused_nothing,
        crowds::a_carrier_with_three_thousand_players_is_refused_nothing,
        rates::a_leaked_code_does_not_keep_an_honest_client_away,
        rates::a_flood_over_the_rate_of_all_costs_honest_pairs_nothing,
        rates::datagrams_without_an_id_do_not_hide_that_an_id_is_stale,
        rates::a_leaked_code_does_not_fill_a_hosts_line,
        latching::spraying_from_one_source,
        latching::spraying_from_64_sources,
        latching::spraying_from_a_source_for_each_port,
        latching::neighbours_at_known_ports,
    ])
}
