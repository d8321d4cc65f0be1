//! `rockpool image clones`.

use super::{EXIT_FAILURE, File, ask};
use crate::config::Config;
use crate::service::{CloneUse, CloneUses};
use crate::store;

/// Exit code when there may be more clones than are listed.
const EXIT_INCOMPLETE: u8 = 3;

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

/// Lists who uses an image.
pub(super) fn run(config: &Config, arguments: &Arguments) -> ! {
    let uses = ask(config, EXIT_FAILURE, async |services| services.clones(&arguments.id).await);
    if arguments.json {
        println!("{:#}", serde_json::json!(uses));
    } else {
        print(&uses);
    }
    store::exit(if uses.complete { 0 } else { EXIT_INCOMPLETE })
}

fn print(uses: &CloneUses) {
    let name = uses.name.as_deref().map(|name| format!(" ({name})")).unwrap_or_default();
    match uses.clones.len() {
        0 => println!("Image {}{name} has no clones{}.", uses.id, if uses.complete { "" } else { " that can be seen" }),
        count => {
            let sum = |bytes: fn(&CloneUse) -> Option<u64>| readable(uses.clones.iter().filter_map(bytes).sum());
            let (own, shared) = (sum(|clone| clone.own_bytes), sum(|clone| clone.shared_bytes));
            println!(
                "Image {}{name} has {count} clone(s), with {own} of their own and {shared} shared with it.\n",
                uses.id
            );
            table(&uses.clones);
        }
    }
    for problem in &uses.problems {
        println!("\nNOT ALL: {problem}");
    }
}

fn table(clones: &[CloneUse]) {
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), readable);
    let rows = clones.iter().map(|clone| {
        let user = match (clone.service, clone.kind, &clone.id) {
            (Some(service), Some(kind), Some(id)) => format!("{service} {kind} {id}"),
            _ => "unknown".into(),
        };
        let trash = if clone.in_trash { " (in the trash)" } else { "" };
        [
            clone.store.clone(),
            format!("{}/{}{trash}", clone.pool, clone.image),
            user,
            bytes(clone.size_bytes),
            bytes(clone.own_bytes),
            bytes(clone.shared_bytes),
        ]
    });
    let head = ["STORE", "CLONE", "USED BY", "SIZE", "OWN", "SHARED"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(rows).collect();
    let widths: [usize; 6] = std::array::from_fn(|n| rows.iter().map(|row| row[n].chars().count()).max().unwrap_or(0));
    for [store, clone, user, size, own, shared] in &rows {
        let [a, b, c, d, e, f] = widths;
        println!("{store:<a$}  {clone:<b$}  {user:<c$}  {size:>d$}  {own:>e$}  {shared:>f$}");
    }
    for clone in clones {
        if let Some(problem) = &clone.problem {
            println!("\n{}/{}: its size is not known: {problem}", clone.pool, clone.image);
        }
    }
}

/// Bytes for people.
fn readable(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match UNITS.into_iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn bytes_can_be_read() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_572_864, "1.5 MiB"), (1 << 40, "1.0 TiB")]
        {
            assert_eq!(readable(bytes), text);
        }
    }
}
