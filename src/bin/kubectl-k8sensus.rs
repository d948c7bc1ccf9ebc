//! The kubectl plugin: hands its arguments over to `k8sensus_plugin`.

use std::process::ExitCode;

fn main() -> ExitCode {
    k8sensus_plugin::run(std::env::args_os())
}
