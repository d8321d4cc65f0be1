//! `rockpool rebuild`.

use serde_json::{Value, json};

use super::fsck::{EXIT_FINDINGS, EXIT_UNCHECKED};
use super::{File, block_on, services};
use crate::config::Config;
use crate::service::rebuild::{Request, Restored, Summary, Told};
use crate::store;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Write the records. Without it, it is only said which ones.
    #[arg(long)]
    yes: bool,
    /// Replace records that exist, where what stands beside the data is newer; and bring back images that this catalog
    /// knows to be deleted, if their data is still there.
    #[arg(long)]
    overwrite: bool,
    /// Look at this many images of the stores in one second; 0: as fast as it goes.
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    images_per_s: u32,
    /// Print JSON, one object per line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) file: File,
}

/// Restores records from the pools.
pub(super) fn run(config: &Config, arguments: &Arguments) -> ! {
    let request =
        Request { write: arguments.yes, overwrite: arguments.overwrite, images_per_s: arguments.images_per_s };
    let mut tell = |told: Told<'_>| match arguments.json {
        true => println!("{}", as_json(&told)),
        false => print(&told),
    };
    let rebuilt = block_on(async {
        let services = services(config)?;
        services.rebuild(request, &mut tell).await.map_err(|e| e.to_string())
    });
    match rebuilt {
        Ok(summary) => {
            match arguments.json {
                true => println!("{}", json!({ "summary": summary })),
                false => println!("{}", sentence(&summary)),
            }
            store::exit(match summary {
                Summary { unchecked: 1.., .. } => EXIT_UNCHECKED,
                Summary { restorable, restored, skipped, .. } if restorable > restored || skipped > 0 => EXIT_FINDINGS,
                _ => 0,
            })
        }
        Err(problem) => {
            eprintln!("rockpool: {problem}; rockpool db upgrade makes the schema in an empty database");
            store::exit(EXIT_UNCHECKED)
        }
    }
}

fn as_json(told: &Told<'_>) -> Value {
    match told {
        Told::Restorable(restored) => json!({ "restorable": restored }),
        Told::Restored(restored) => json!({ "restored": restored }),
        Told::Skipped { place, why } => json!({ "skipped": place, "why": why }),
        Told::Unchecked(what) => json!({ "unchecked": what }),
    }
}

fn print(told: &Told<'_>) {
    match told {
        Told::Restorable(restored) => println!("would restore  {}", line(restored)),
        Told::Restored(restored) => println!("restored       {}", line(restored)),
        Told::Skipped { place, why } => println!("NOT            {place}: {why}"),
        Told::Unchecked(what) => println!("?????          not checked: {what}"),
    }
}

fn line(restored: &Restored) -> String {
    let Restored { image, name, owner, status, visibility, size, members, stores, replaces } = restored;
    let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let replaces = if *replaces { ", instead of a record that exists" } else { "" };
    format!(
        "{image}  {status:<11} {visibility:<9} {size:>14} bytes  project {}  \"{}\" ({} members; {}{replaces})",
        shown(owner),
        shown(name),
        members,
        stores.join(", ")
    )
}

fn sentence(summary: &Summary) -> String {
    let Summary { stored, known, restorable, restored, skipped, unchecked } = summary;
    format!(
        "{stored} names in the stores: {known} images are known; {restorable} can be restored, {restored} have been; {skipped} cannot; {unchecked} stores not checked"
    )
}
