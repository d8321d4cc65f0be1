//! `rockpool metadefs`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;

use super::{File, block_on};
use crate::catalog::{Catalog, SchemaState};
use crate::config::Config;
use crate::domain::limits::JSON_BODY_BYTES_MAX;
use crate::domain::metadef::Definition;
use crate::service::Error;
use crate::service::definitions::{self, Loaded, Merge};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Load definitions from a folder of JSON files, or from one. Namespaces that are there already stay as they are.
    Load {
        /// Such as Glance's /etc/glance/metadefs.
        path: PathBuf,
        /// Add to namespaces that are there what they lack.
        #[arg(long)]
        merge: bool,
        /// With --merge: replace what differs.
        #[arg(long, alias = "prefer_new", requires = "merge", conflicts_with = "overwrite")]
        prefer_new: bool,
        /// Remove namespaces that are there, with all that they hold, and make them anew.
        #[arg(long)]
        overwrite: bool,
        #[command(flatten)]
        file: File,
    },
    /// Remove the namespaces that a folder's files define, or all of them, protected or not.
    Unload {
        /// The folder, or one file; without it every namespace is removed.
        path: Option<PathBuf>,
        #[command(flatten)]
        file: File,
    },
    /// Write every namespace to a file of its own, for load to read.
    Export {
        /// The folder; it is made if it is not there. Files of the same names are overwritten.
        dir: PathBuf,
        #[command(flatten)]
        file: File,
    },
}

impl Command {
    /// Which configuration to use.
    pub(super) fn file(&self) -> &File {
        match self {
            Self::Load { file, .. } | Self::Unload { file, .. } | Self::Export { file, .. } => file,
        }
    }
}

/// Carries out a command. Whatever could be done has been done; what could not is said, and the exit code is 1.
pub(super) fn run(config: &Config, command: &Command) -> ExitCode {
    let outcome = block_on(async {
        let catalog = Catalog::new(&config.catalog).map_err(|e| e.to_string())?;
        if catalog.schema_state().await.map_err(|e| e.to_string())? != SchemaState::Current {
            return Err("the catalog's schema is not the one of this program: see rockpool db check".into());
        }
        match command {
            Command::Load { path, merge, prefer_new, overwrite, .. } => {
                load(&catalog, path, merge_of(*merge, *prefer_new, *overwrite)).await
            }
            Command::Unload { path, .. } => unload(&catalog, path.as_deref()).await,
            Command::Export { dir, .. } => export(&catalog, dir).await,
        }
    });
    match outcome {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("rockpool: {error}");
            ExitCode::FAILURE
        }
    }
}

fn merge_of(merge: bool, prefer_new: bool, overwrite: bool) -> Merge {
    match (overwrite, prefer_new, merge) {
        (true, _, _) => Merge::Overwrite,
        (false, true, _) => Merge::PreferNew,
        (false, false, true) => Merge::Add,
        (false, false, false) => Merge::Skip,
    }
}

/// Loads every file by itself; returns how many could not be.
async fn load(catalog: &Catalog, path: &Path, merge: Merge) -> Result<usize, String> {
    let (mut added, mut merged, mut overwritten, mut kept, mut failed) = (0, 0, 0, 0, 0);
    for file in json_files(path)? {
        let outcome = match read(&file) {
            Ok(definition) => match definitions::load(catalog, &definition, merge).await {
                // The next file would fare no better.
                Err(error @ (Error::Unavailable(_) | Error::Internal(_))) => {
                    return Err(format!("{}: {error}", file.display()));
                }
                outcome => outcome.map(|loaded| (definition, loaded)).map_err(|e| e.to_string()),
            },
            Err(problem) => Err(problem),
        };
        let (definition, loaded) = match outcome {
            Ok(done) => done,
            Err(problem) => {
                eprintln!("{}: not loaded: {problem}", file.display());
                failed += 1;
                continue;
            }
        };
        let said = match loaded {
            Loaded::Added => {
                added += 1;
                "added".to_owned()
            }
            Loaded::Overwritten => {
                overwritten += 1;
                "overwritten".to_owned()
            }
            Loaded::Merged(count) => {
                merged += 1;
                format!("merged, {count} changes")
            }
            Loaded::Kept => {
                kept += 1;
                "kept as it was".to_owned()
            }
        };
        println!("{}: {}: {said}", file.display(), definition.attributes.name);
    }
    println!(
        "{added} added, {merged} merged, {overwritten} overwritten, {kept} kept as they were, {failed} not loaded"
    );
    Ok(failed)
}

/// Removes what the files define, if all of them can be read: what is not understood is not half removed.
async fn unload(catalog: &Catalog, path: Option<&Path>) -> Result<usize, String> {
    let names = match path {
        None => None,
        Some(path) => {
            let mut names = Vec::new();
            for file in json_files(path)? {
                let definition = read(&file).map_err(|e| format!("{}: {e}; nothing was removed", file.display()))?;
                names.push(definition.attributes.name);
            }
            Some(names)
        }
    };
    let removed = definitions::unload(catalog, names.as_deref()).await.map_err(|e| e.to_string())?;
    println!("{} removed", removed.len());
    Ok(0)
}

/// Writes every namespace to a file of its own; returns how many could not be.
async fn export(catalog: &Catalog, dir: &Path) -> Result<usize, String> {
    fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut taken = BTreeSet::new();
    let (mut written, mut failed) = (0, 0);
    for name in definitions::names(catalog).await.map_err(|e| e.to_string())? {
        let Some(definition) = definitions::export(catalog, &name).await.map_err(|e| e.to_string())? else { continue };
        let file = dir.join(file_name(&name, &mut taken));
        let text = format!("{:#}\n", definition.document());
        match fs::write(&file, text) {
            Ok(()) => written += 1,
            Err(error) => {
                eprintln!("{}: {name} was not written: {error}", file.display());
                failed += 1;
            }
        }
    }
    println!("{written} written to {}, {failed} not written", dir.display());
    Ok(failed)
}

/// A name for the file of a namespace: its letters and digits, and a number where another one has the same.
fn file_name(namespace: &str, taken: &mut BTreeSet<String>) -> String {
    let words: Vec<&str> =
        namespace.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let stem = if words.is_empty() { "namespace".to_owned() } else { words.join("-") };
    let mut name = format!("{stem}.json");
    let mut number = 2;
    while !taken.insert(name.to_lowercase()) {
        name = format!("{stem}-{number}.json");
        number += 1;
    }
    name
}

/// The JSON files of a folder by name, or the one file.
fn json_files(path: &Path) -> Result<Vec<PathBuf>, String> {
    let problem = |error: std::io::Error| format!("{}: {error}", path.display());
    if fs::metadata(path).map_err(problem)?.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(problem)? {
        let file = entry.map_err(problem)?.path();
        if file.extension().is_some_and(|extension| extension == "json") && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(format!("{}: there is no JSON file in it", path.display()));
    }
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<Definition, String> {
    let length = fs::metadata(file).map_err(|e| e.to_string())?.len();
    if usize::try_from(length).is_ok_and(|length| length > JSON_BODY_BYTES_MAX) {
        return Err(format!("it is larger than {JSON_BODY_BYTES_MAX} bytes"));
    }
    let bytes = fs::read(file).map_err(|e| e.to_string())?;
    let document = serde_json::from_slice(&bytes).map_err(|e| format!("it is no JSON: {e}"))?;
    Definition::parse_file(document).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::file_name;

    #[test]
    fn every_namespace_has_a_file_of_its_own() {
        let mut taken = BTreeSet::new();
        for (namespace, file) in [
            ("OS::Compute::Watchdog", "OS-Compute-Watchdog.json"),
            ("OS Compute Watchdog", "OS-Compute-Watchdog-2.json"),
            ("os::compute::watchdog", "os-compute-watchdog-3.json"),
            ("../../etc/passwd", "etc-passwd.json"),
            ("漢字", "namespace.json"),
            ("..", "namespace-2.json"),
        ] {
            assert_eq!(file_name(namespace, &mut taken), file);
        }
    }
}
