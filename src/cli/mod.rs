//! The command line.

mod db;
mod metadefs;
mod policy;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;

/// Where the configuration is looked for by default.
const DEFAULT_CONFIG: &str = "/etc/rockpool/rockpool.toml";

/// OpenStack Image API gateway that keeps every image as one named, clonable RBD image.
#[derive(Debug, Parser)]
#[command(name = "rockpool", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    Serve(File),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at the rules that say who may do what.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Look after the catalog.
    #[command(subcommand)]
    Db(DbCommand),
    /// Load, remove and export metadata definitions.
    #[command(subcommand)]
    Metadefs(metadefs::Command),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say everything that is wrong with a configuration; exit code 1 if anything is.
    Check(File),
}

#[derive(Debug, Subcommand)]
enum DbCommand {
    /// Bring the schema up to date (serve does so, too).
    Upgrade(File),
    /// Say whether the schema is up to date: exit code 0 if so, 3 if older, 4 if newer than this program.
    Check(File),
}

#[derive(Debug, clap::Args)]
struct File {
    /// Configuration file.
    #[arg(long, env = "ROCKPOOL_CONFIG", default_value = DEFAULT_CONFIG, value_name = "FILE")]
    config: PathBuf,
}

/// Runs the command that the process was started with.
#[must_use]
pub fn run() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve(file) => with_config(&file, |config| serve::serve(config)),
        Command::Policy(command) => policy::run(command),
        Command::Config(ConfigCommand::Check(file)) => with_config(&file, |_| {
            println!("{} is valid", file.config.display());
            ExitCode::SUCCESS
        }),
        Command::Db(DbCommand::Upgrade(file)) => with_config(&file, |config| db::upgrade(&config)),
        Command::Db(DbCommand::Check(file)) => with_config(&file, |config| db::check(&config)),
        Command::Metadefs(command) => with_config(command.file(), |config| metadefs::run(&config, &command)),
    }
}

fn with_config(file: &File, command: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match Config::load(&file.config, |name| std::env::var(name).ok()) {
        Ok(config) => command(config),
        Err(problems) => {
            eprintln!("rockpool: the configuration {} cannot be used:", file.config.display());
            for problem in problems {
                eprintln!("  - {problem}");
            }
            ExitCode::FAILURE
        }
    }
}

/// A runtime for a command that does one thing.
fn block_on<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| format!("no runtime: {e}"))?;
    runtime.block_on(work)
}
