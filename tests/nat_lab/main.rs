//! noray and its players in a laboratory of routers: the real binary, real sockets, real NAT in network namespaces.
//!
//! Needs root, `ip` and `nft`, for the fleet `gdnsd`, and for one fault `strace`; a test that misses something
//! shows as ignored, with the reason.
//! `cargo test --test nat_lab -- --nocapture` prints the matrices and the times to recover.

mod changes;
mod crowds;
mod dns;
mod families;
mod faults;
mod fleet;
mod games;
mod handover;
#[path = "../support/harness.rs"]
mod harness;
mod hijacks;
mod kernel_path;
mod lab;
mod matrix;
mod players;
mod probe;
mod relay_only;
mod resumption;
mod routers;
#[path = "../support/mod.rs"]
mod support;
mod weapons;

use std::process::ExitCode;

use harness::tests;

fn main() -> ExitCode {
    harness::run(tests![
        changes::traffic_flows_again_after_a_router_forgot_its_mappings,
        changes::a_player_that_registers_again_from_another_network_takes_its_relays_along,
        crowds::a_symmetric_router_full_of_clients_and_two_games_behind_one_router,
        families::an_ipv6_and_an_ipv4_player_play_by_relay,
        families::addresses_are_shown_in_their_own_familys_form,
        families::players_on_the_servers_link_play_by_their_link_local_addresses,
        families::a_carrier_with_several_ips_is_served_if_any_ip_may_latch,
        families::a_carrier_with_several_ips_is_not_served_by_default_and_the_log_says_what_to_set,
        faults::a_firewall_that_refuses_one_player_costs_nobody_else_a_datagram,
        faults::a_server_without_a_route_to_one_player_goes_on_with_the_others,
        faults::a_datagram_that_is_too_large_for_ipv4_is_dropped_alone,
        faults::an_interface_whose_queue_is_full_loses_only_what_did_not_fit,
        faults::a_storm_of_icmp_errors_about_a_player_that_closed_its_socket_disturbs_nobody,
        faults::what_full_buffers_lose_is_counted_to_the_datagram,
        faults::relays_and_players_go_on_when_the_servers_interface_was_away,
        faults::players_whose_router_vanishes_are_noticed_within_two_minutes,
        fleet::players_meet_where_their_code_says_and_a_draining_server_gets_no_new_hosts,
        fleet::behind_a_load_balancer_players_do_not_register_or_do_not_meet,
        handover::games_behind_all_kinds_of_routers_go_on_through_handovers,
        handover::the_first_process_of_a_container_hands_over,
        hijacks::strangers_are_dropped_counted_and_get_no_relay,
        hijacks::forged_sources_are_dropped_unless_they_are_exact,
        hijacks::a_forger_of_the_hosts_address_diverts_nothing_from_a_settled_game,
        hijacks::a_neighbour_that_tries_every_two_seconds_never_succeeds_while_the_stream_is_alive,
        hijacks::a_neighbour_that_inherits_the_victims_old_port_gets_nothing,
        hijacks::a_stream_that_paused_and_was_taken_is_taken_back_by_the_next_datagram,
        kernel_path::an_established_pair_is_forwarded_by_the_kernel_and_counted,
        kernel_path::a_firewall_that_blocks_a_player_is_honoured_at_once_after_a_reload,
        kernel_path::a_killed_server_leaves_no_traffic_running,
        kernel_path::what_comes_while_the_server_hangs_waits_at_its_sockets,
        kernel_path::a_reload_switches_it_on_and_off_under_a_live_game,
        kernel_path::interfaces_that_come_and_go_are_followed,
        kernel_path::two_capabilities_suffice_and_what_is_missing_is_named,
        matrix::every_pair_of_routers_plays_by_relay_and_punches_where_its_client_can,
        probe::it_knows_the_callers_router,
        probe::a_blocked_registrar,
        probe::a_registrar_whose_port_is_rejected,
        probe::a_dropped_connection,
        probe::blocked_relay_ports,
        probe::a_firewall_that_is_open_for_a_part_of_the_relay_ports,
        probe::a_server_that_does_not_latch_is_probed_all_the_same,
        relay_only::stock_players_behind_every_pair_of_routers_meet_and_no_ip_is_told,
        relay_only::a_player_with_tcp_by_ipv6_and_udp_by_ipv4_meets_others,
        relay_only::behind_a_providers_nat_the_key_names_the_public_address,
        resumption::a_host_whose_router_fell_silent_comes_back_from_another_network_in_mid_game,
        resumption::two_that_fight_over_one_id_have_it_in_turns_and_the_server_plays_on,
        routers::a_router_maps_as_its_kind_says,
        routers::a_router_filters_as_its_kind_says,
        routers::neighbours_at_the_same_port_do_not_disturb_each_others_mapping,
        routers::a_router_forgets_and_maps_to_other_ports,
        routers::a_neighbour_inherits_the_old_port,
        routers::a_forged_source_is_believed,
        routers::an_ipv6_host_has_ipv6_only,
        routers::tcp_passes_every_router_and_outlives_its_mappings,
        routers::a_thread_comes_back_even_from_a_panic,
        routers::a_process_runs_inside_and_ends_when_dropped,
        weapons::the_registrar_answers_with_no_more_bytes_than_it_got,
        weapons::relay_ports_say_nothing_to_anybody_but_the_introduced_two,
        weapons::commands_and_http_lead_to_no_datagram,
        weapons::a_forged_registration_turns_at_most_64_kib_on_a_stranger,
        weapons::real_and_forged_addresses_in_turn_turn_no_more_than_that_on_a_stranger,
        weapons::two_registrars_do_not_answer_each_other,
        weapons::two_servers_pairs_with_each_others_ports_are_no_ring,
        weapons::where_any_ip_may_latch_two_servers_can_be_made_a_ring,
    ])
}
