//! Penstock on the real cluster.

mod bad_input;
mod changes;
mod elastic;
mod faults;
mod isolation;
mod parquet;
mod pictures;
mod quickstart;
mod reads;
mod says;
mod scaling;
mod upgrades;

use std::process::ExitCode;

use penstock_e2e::{e2e_tests, harness};

fn main() -> ExitCode {
    harness::main(&e2e_tests![
        #[exclusive]
        quickstart::pods_on_all_nodes_read_the_same_and_a_second_pass_fetches_nothing,
        #[exclusive]
        reads::twelve_readers_at_once_on_cold_data_fetch_each_byte_once,
        reads::a_dataset_works_under_the_restricted_pod_security_standard,
        parquet::duckdb_answers_a_query_over_real_prices,
        pictures::prometheus_draws_the_dashboard_and_reads_the_alerts,
        scaling::scaling_from_2_to_4_to_1_disturbs_no_reader_and_fetches_nothing,
        elastic::from_3_to_6_to_3_to_1_and_back_readers_notice_nothing,
        #[exclusive]
        elastic::kills_in_mid_hand_over_are_overcome,
        elastic::a_dataset_that_nobody_uses_sleeps_and_a_pod_wakes_it,
        elastic::a_load_warms_what_readers_then_need_not_fetch,
        faults::a_killed_worker_pod_disturbs_no_reader,
        faults::a_killed_worker_container_keeps_its_memory_tier,
        faults::a_killed_reader_is_let_go_while_another_waits,
        #[exclusive]
        faults::a_killed_operator_disturbs_no_reader_and_goes_on,
        #[exclusive]
        faults::an_api_server_down_for_30_s_disturbs_no_reader,
        changes::a_mount_added_while_it_serves_appears_to_running_pods,
        #[exclusive]
        changes::a_dataset_in_use_is_served_until_its_pod_ends,
        #[exclusive]
        changes::deleting_in_any_order_leaves_nothing,
        bad_input::an_unknown_scheme_a_bad_quota_and_a_long_name_are_refused,
        bad_input::a_missing_secret_one_without_the_label_and_a_missing_key_are_named,
        bad_input::wrong_credentials_an_unreachable_endpoint_and_a_missing_bucket_are_named,
        bad_input::a_claim_of_somebody_elses_is_left_alone,
        bad_input::of_two_runtimes_for_one_dataset_one_serves_and_the_other_is_told,
        bad_input::a_tier_path_that_is_not_writable_is_named,
        bad_input::a_quota_larger_than_its_medium_is_named,
        bad_input::an_image_that_cannot_run_is_named,
        bad_input::secrets_of_users_are_never_written,
        isolation::datasets_whose_joined_names_are_equal_read_their_own_data,
        isolation::an_inline_volume_of_a_stranger_is_refused,
        isolation::a_volume_with_a_wrong_key_shows_nothing,
        #[exclusive]
        upgrades::an_operator_that_dies_is_followed_by_its_standby,
        #[exclusive]
        upgrades::a_new_worker_image_costs_readers_a_pause,
        #[exclusive]
        upgrades::a_chart_of_the_first_release_is_upgraded_under_readers,
        #[exclusive]
        upgrades::a_plugin_killed_ten_times_costs_readers_a_pause,
        #[exclusive]
        upgrades::a_deleted_plugin_pod_costs_readers_a_pause,
        #[exclusive]
        upgrades::a_killed_keeper_is_given_the_mounts_again,
        #[exclusive]
        upgrades::pods_are_told_when_keeper_and_plugin_are_killed_at_once,
        #[exclusive]
        upgrades::a_drained_node_hands_its_workers_data_over,
        #[exclusive]
        upgrades::an_uninstall_waits_for_readers_and_then_leaves_nothing,
    ])
}
