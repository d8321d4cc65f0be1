//! The `rockpool` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    rockpool::cli::run()
}
