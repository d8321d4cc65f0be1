//! `rockpool fsck`.

use std::time::Duration;

use serde_json::{Value, json};

use super::{File, ask};
use crate::config::Config;
use crate::service::Verdict;
use crate::service::fsck::{Finding, Request, Summary, Told};
use crate::store;

/// Exit code when something is wrong and has not been repaired.
pub(super) const EXIT_FINDINGS: u8 = 1;
/// Exit code when something could not be checked.
pub(super) const EXIT_UNCHECKED: u8 = 2;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Repair what can be repaired without risk. Without --yes it only says what it would do.
    #[arg(long)]
    repair: bool,
    /// Do what --repair says.
    #[arg(long, requires = "repair")]
    yes: bool,
    /// Leave alone what is younger, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    grace_s: u64,
    /// Look at this many images of the stores in one second; 0: as fast as it goes.
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    images_per_s: u32,
    /// Print JSON, one object per line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) file: File,
}

/// Compares the catalog with the pools.
pub(super) fn run(config: &Config, arguments: &Arguments) -> ! {
    let request = Request {
        grace: Duration::from_secs(arguments.grace_s),
        images_per_s: arguments.images_per_s,
        repair: arguments.yes,
    };
    let mut tell = |told: Told<'_>| match arguments.json {
        true => println!("{}", as_json(&told)),
        false => print(&told, arguments),
    };
    let summary = ask(config, EXIT_UNCHECKED, async |services| services.fsck(request, &mut tell).await);
    match arguments.json {
        true => println!("{}", json!({ "summary": summary })),
        false => println!("{}", sentence(&summary)),
    }
    store::exit(match summary {
        Summary { unchecked: 1.., .. } => EXIT_UNCHECKED,
        Summary { problems, repaired, .. } if problems > repaired => EXIT_FINDINGS,
        _ => 0,
    })
}

fn as_json(told: &Told<'_>) -> Value {
    match told {
        Told::Found(finding) => json!({ "found": finding }),
        Told::Repaired(finding) => json!({ "repaired": finding }),
        Told::Unrepaired(finding, error) => json!({ "unrepaired": finding, "error": error.to_string() }),
        Told::Unchecked(what) => json!({ "unchecked": what }),
    }
}

fn print(told: &Told<'_>, arguments: &Arguments) {
    match told {
        Told::Found(finding) => {
            println!("{}", line(finding));
            match (&finding.repair, &finding.advice) {
                (Some(repair), _) if arguments.yes => println!("      repairing: {repair}"),
                (Some(repair), _) if arguments.repair => println!("      --yes would: {repair}"),
                (Some(repair), _) => println!("      --repair --yes would: {repair}"),
                (None, Some(advice)) => println!("      -> {advice}"),
                (None, None) => {}
            }
        }
        Told::Repaired(_) => println!("      repaired"),
        Told::Unrepaired(_, error) => println!("      NOT repaired: {error}"),
        Told::Unchecked(what) => println!("????? not checked: {what}"),
    }
}

fn line(finding: &Finding) -> String {
    let mark = match finding.verdict {
        Verdict::Problem => "FIX",
        Verdict::Note | Verdict::Ok => "note",
    };
    let kind = serde_json::to_value(finding.kind).ok().and_then(|kind| kind.as_str().map(str::to_owned));
    let place = match (&finding.store, &finding.name) {
        (Some(store), Some(name)) => format!("{store}/{name}"),
        (None, Some(name)) => name.clone(),
        (_, None) => "-".to_owned(),
    };
    let image = finding.image.as_deref().filter(|image| !place.ends_with(image));
    let image = image.map(|image| format!(" (image {image})")).unwrap_or_default();
    format!("{mark:<6}{:<22}{place}{image}: {}", kind.unwrap_or_default(), finding.found)
}

fn sentence(summary: &Summary) -> String {
    let Summary { images, stored, foreign, problems, notes, repaired, unchecked } = summary;
    format!(
        "{images} images and {stored} names in the stores ({foreign} of others): {problems} problems, {repaired} repaired; {notes} notes; {unchecked} not checked"
    )
}
