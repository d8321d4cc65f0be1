//! The command line.

mod adopt;
mod clones;
mod db;
mod fsck;
mod inspect;
mod metadefs;
mod policy;
mod readiness;
mod rebuild;
mod scrub;
mod serve;

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use uuid::Uuid;

use crate::catalog::Catalog;
use crate::config::Config;
use crate::service::{Parts, Services};
use crate::store::{self, Stores};
use crate::telemetry::Telemetry;

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
    /// Say what a disk image is, and whether an upload of it would be accepted: exit code 0 if so, 3 if not.
    Inspect(inspect::Arguments),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at the rules that say who may do what.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Look after the catalog.
    #[command(subcommand)]
    Db(DbCommand),
    /// Make an RBD image that is there already an image of the catalog: a copy made within the cluster, or in place.
    /// Prints the id.
    Adopt(adopt::Arguments),
    /// Compare the catalog with the pools, beside gateways that go on working: exit code 0 if they agree, 1 if something
    /// is wrong and not repaired, 2 if something could not be checked.
    Fsck(fsck::Arguments),
    /// Restore records of a lost or older catalog from what stands beside the data in the pools: exit code 0 if nothing
    /// is left to restore, 1 if something is, 2 if a pool could not be read.
    Rebuild(rebuild::Arguments),
    /// Read stored images and compare them with their hashes: exit code 0 if all are what they were, 1 if some are not,
    /// 2 if some could not be read.
    Scrub(scrub::Arguments),
    /// Look at images as their consumers do.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Load, remove and export metadata definitions.
    #[command(subcommand)]
    Metadefs(metadefs::Command),
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Say whether Nova and Cinder will clone an image from here, and if not, why and what to do: exit code 0 if they
    /// clone some copy of it, 3 if they copy all bytes.
    Readiness(readiness::Arguments),
    /// List who uses an image: its clones with their pools, the machine or volume they are for, and the bytes that they
    /// have of their own and share with it: exit code 0, or 3 if there may be more than can be seen.
    Clones(clones::Arguments),
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

/// Exit code of a command that failed and ends by itself.
const EXIT_FAILURE: u8 = 1;

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
        Command::Inspect(arguments) => match arguments.config.clone() {
            Some(config) => with_config(&File { config }, |config| inspect::run(config.inspection, &arguments)),
            None => inspect::run(Arc::default(), &arguments),
        },
        Command::Policy(command) => policy::run(command),
        Command::Config(ConfigCommand::Check(file)) => with_config(&file, |_| {
            println!("{} is valid", file.config.display());
            ExitCode::SUCCESS
        }),
        Command::Db(DbCommand::Upgrade(file)) => with_config(&file, |config| db::upgrade(&config)),
        Command::Db(DbCommand::Check(file)) => with_config(&file, |config| db::check(&config)),
        Command::Adopt(arguments) => with_config(&arguments.file, |config| adopt::run(&config, &arguments)),
        Command::Fsck(arguments) => {
            with_config_or(&arguments.file, fsck::EXIT_UNCHECKED, |config| fsck::run(&config, &arguments))
        }
        Command::Rebuild(arguments) => {
            with_config_or(&arguments.file, fsck::EXIT_UNCHECKED, |config| rebuild::run(&config, &arguments))
        }
        Command::Scrub(arguments) => {
            with_config_or(&arguments.file, fsck::EXIT_UNCHECKED, |config| scrub::run(&config, &arguments))
        }
        Command::Image(ImageCommand::Readiness(arguments)) => {
            with_config(&arguments.file, |config| readiness::run(&config, &arguments))
        }
        Command::Image(ImageCommand::Clones(arguments)) => {
            with_config(&arguments.file, |config| clones::run(&config, &arguments))
        }
        Command::Metadefs(command) => with_config(command.file(), |config| metadefs::run(&config, &command)),
    }
}

fn with_config(file: &File, command: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    with_config_or(file, EXIT_FAILURE, command)
}

/// As [`with_config`], with an exit code of the command's own for a configuration that cannot be used.
fn with_config_or(file: &File, unusable: u8, command: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match Config::load(&file.config, |name| std::env::var(name).ok()) {
        Ok(config) => command(config),
        Err(problems) => {
            eprintln!("rockpool: the configuration {} cannot be used:", file.config.display());
            for problem in problems {
                eprintln!("  - {problem}");
            }
            ExitCode::from(unusable)
        }
    }
}

/// The services, for a command that needs them and is no gateway. Nothing is connected yet.
fn services(config: &Config) -> Result<Arc<Services>, String> {
    let catalog = Catalog::new(&config.catalog).map_err(|e| e.to_string())?;
    let telemetry = Telemetry::new()?;
    let stores = config.stores.values().map(|store| store.build(&config.fetch, &telemetry)).collect();
    Ok(assemble(config, catalog, stores, telemetry, process_name()))
}

/// The services on this catalog and these stores; `gateway` names this process in leases.
fn assemble(
    config: &Config,
    catalog: Catalog,
    stores: Vec<Arc<dyn store::Store>>,
    telemetry: Arc<Telemetry>,
    gateway: String,
) -> Arc<Services> {
    let parts = Parts {
        catalog,
        stores: Stores::new(stores, config.default_store.clone()),
        identity: Arc::clone(&config.identity),
        policy: Arc::clone(&config.policy),
        limits: config.limits.clone(),
        fetcher: Arc::clone(&config.fetch),
        telemetry,
    };
    Services::new(parts, config.service(gateway))
}

/// A name that no other process has, also not an earlier life of this one.
fn process_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}/{}/{}", host.trim(), std::process::id(), Uuid::new_v4().as_simple())
}

/// A runtime for a command that does one thing.
/// What the services say to a question; an error of theirs ends the program with `exit_code`.
fn ask<T, E: Display>(config: &Config, exit_code: u8, question: impl AsyncFnOnce(Arc<Services>) -> Result<T, E>) -> T {
    let answer = block_on(async { question(services(config)?).await.map_err(|e| e.to_string()) });
    answer.unwrap_or_else(|problem| {
        eprintln!("rockpool: {problem}");
        store::exit(exit_code)
    })
}

fn block_on<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| format!("no runtime: {e}"))?;
    runtime.block_on(work)
}
