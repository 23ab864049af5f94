//! Ways by which what one client has left reached another, or was lost, each closed since.

use std::time::Duration;

mod compared;
mod constants;
mod definitions;
mod discard;
mod domains;
mod readings;
mod settings;
mod statements;
mod turns;
mod types;

const TWO: &str = "mode = \"auto\"\nsize = 2";

fn sleep(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}
