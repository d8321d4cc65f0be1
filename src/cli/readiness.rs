//! `rockpool image readiness`.

use super::{EXIT_FAILURE, File, ask};
use crate::config::Config;
use crate::service::{Finding, Readiness, Shown, Verdict};
use crate::store;

/// Exit code for an image that will be copied instead of cloned.
const EXIT_NOT_READY: u8 = 3;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The image.
    id: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) file: File,
}

/// Says whether Nova and Cinder will clone an image.
pub(super) fn run(config: &Config, arguments: &Arguments) -> ! {
    let shown =
        Shown { direct_url: config.images.show_image_direct_url, locations: config.images.show_multiple_locations };
    let readiness = ask(config, EXIT_FAILURE, async |services| services.readiness(&arguments.id, shown).await);
    if arguments.json {
        println!("{:#}", serde_json::json!(readiness));
    } else {
        print(&readiness);
    }
    store::exit(if readiness.ready { 0 } else { EXIT_NOT_READY })
}

fn print(readiness: &Readiness) {
    let name = readiness.name.as_deref().map(|name| format!(" ({name})")).unwrap_or_default();
    let from: Vec<&str> = readiness.copies.iter().filter(|copy| copy.ready).map(|copy| copy.store.as_str()).collect();
    match from.is_empty() {
        false => println!("Nova and Cinder clone image {}{name} from: {}.", readiness.id, from.join(", ")),
        true => {
            println!("Nova and Cinder do NOT clone image {}{name}: they copy all of it, if they can.", readiness.id)
        }
    }
    println!("\nimage");
    table(&readiness.findings);
    for copy in &readiness.copies {
        println!("\nstore {}: {}", copy.store, copy.url);
        table(&copy.findings);
    }
}

fn table(findings: &[Finding]) {
    for Finding { check, verdict, found, advice } in findings {
        let mark = match verdict {
            Verdict::Ok => "ok",
            Verdict::Note => "note",
            Verdict::Problem => "FIX",
        };
        println!("  {mark:<5}{check:<18}{found}");
        if let Some(advice) = advice {
            println!("  {:<23}-> {advice}", "");
        }
    }
}
