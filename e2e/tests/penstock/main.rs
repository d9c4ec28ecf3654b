//! Penstock on the real cluster, one test after the other.

mod quickstart;

use std::process::ExitCode;

use penstock_e2e::{e2e_tests, harness};

fn main() -> ExitCode {
    harness::main(&e2e_tests![quickstart::pods_on_all_nodes_read_the_same_and_a_second_pass_fetches_nothing,])
}
