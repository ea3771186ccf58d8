//! The command line.

mod args;
mod arrays;
mod bench;
mod beside;
mod copies;
mod doctor;
mod feed;
mod inspect;
mod load;
mod memory;
mod run;
mod target;
mod trace;

use args::{Arguments, Command, Doctor};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    if let Command::Doctor(Doctor { trace: Some(trace), .. }) = &command {
        return trace::examine(trace);
    }
    let result = match command {
        Command::Run(args) => run::run(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::BenchMemory(args) => memory::bench(&args),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Doctor(args) => doctor::doctor(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error.to_string().replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}
