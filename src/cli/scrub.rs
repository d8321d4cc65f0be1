//! `rockpool scrub`.

use serde_json::json;

use super::fsck::{EXIT_FINDINGS, EXIT_UNCHECKED};
use super::{File, ask};
use crate::config::Config;
use crate::service::scrub::{Bad, Request, Summary};
use crate::store;

const MIB: u64 = 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Read so many MiB in one second; 0: as fast as it goes.
    #[arg(long, value_name = "NUMBER", default_value_t = 64)]
    mib_per_s: u64,
    /// Read data that has not changed again after so many days; 0: each time.
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    days: u32,
    /// Print JSON, one object per line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) file: File,
}

/// Compares stored data with its hashes.
pub(super) fn run(config: &Config, arguments: &Arguments) -> ! {
    let request = Request { bytes_per_s: arguments.mib_per_s.saturating_mul(MIB), days: arguments.days };
    let mut tell = |bad: &Bad| match arguments.json {
        true => println!("{}", json!({ "bad": bad })),
        false => println!("{}", line(bad)),
    };
    let summary = ask(config, EXIT_UNCHECKED, async |services| services.scrub(request, &mut tell).await);
    match arguments.json {
        true => println!("{}", json!({ "summary": summary })),
        false => println!("{}", sentence(&summary)),
    }
    store::exit(match summary {
        Summary { mismatches: 1.., .. } => EXIT_FINDINGS,
        Summary { unreadable: 1.., .. } => EXIT_UNCHECKED,
        _ => 0,
    })
}

fn line(bad: &Bad) -> String {
    let Bad { image, store, url, algorithm, expected, found, why, .. } = bad;
    match (found, why) {
        (Some(found), _) => {
            format!("BAD    {image} in store {store} ({url}): its {algorithm} is {found}, and {expected} is recorded")
        }
        (None, why) => {
            format!("?????  {image} in store {store} ({url}) cannot be read: {}", why.as_deref().unwrap_or("-"))
        }
    }
}

fn sentence(summary: &Summary) -> String {
    let Summary { good, bytes, skipped, unhashed, mismatches, unreadable } = summary;
    format!(
        "{} MiB compared: {good} copies are good, {mismatches} are not; {skipped} had not changed, {unhashed} have no hash, {unreadable} could not be read",
        bytes / MIB
    )
}
