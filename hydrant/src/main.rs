//! The command line: reads arguments, runs the command, turns its outcome into an exit code.

use std::process::ExitCode;

use clap::Parser;
use hydrant::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    Cli::parse().run()
}
