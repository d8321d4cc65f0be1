//! `rockpool inspect`: what an upload of a file would say, without one.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::format::Format;
use crate::format::inspect::{Expected, Inspection, Rules};

/// Exit code for a file that would be refused.
const EXIT_REFUSED: u8 = 3;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// File or block device to look at.
    file: PathBuf,
    /// The image's disk_format; without it, whatever the file is.
    #[arg(long, value_name = "FORMAT")]
    disk_format: Option<String>,
    /// The image's container_format.
    #[arg(long, value_name = "FORMAT", default_value = "bare")]
    container_format: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Configuration file whose [inspection] holds; without it, the defaults.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// Prints a verdict. Exit code 0: an upload would be accepted, 3: refused, 1: the file cannot be read.
pub(super) fn run(rules: Arc<Rules>, arguments: &Arguments) -> ExitCode {
    match report(rules, arguments) {
        Ok((report, accepted)) => {
            if arguments.json {
                println!("{report:#}");
            } else {
                print!("{}", table(&report));
            }
            if accepted { ExitCode::SUCCESS } else { ExitCode::from(EXIT_REFUSED) }
        }
        Err(error) => {
            eprintln!("rockpool: {} cannot be read: {error}", arguments.file.display());
            ExitCode::FAILURE
        }
    }
}

fn report(rules: Arc<Rules>, arguments: &Arguments) -> std::io::Result<(Value, bool)> {
    let expected = Expected {
        rules,
        disk_format: arguments.disk_format.clone(),
        container_format: Some(arguments.container_format.clone()),
    };
    let (inspection, size_bytes) = look(&arguments.file, expected)?;
    let found = inspection.found();
    let verdict = match (&arguments.disk_format, found.as_slice()) {
        (Some(_), _) => inspection.finish(),
        (None, [one]) if one.format != Format::Gpt => inspection.named(one.format.as_str()).finish(),
        (None, _) => inspection.named(Format::Raw.as_str()).finish(),
    };
    let formats: Vec<&str> = found.iter().map(|found| found.format.as_str()).collect();
    let faults: Vec<Value> = found
        .iter()
        .flat_map(|found| &found.faults)
        .map(|fault| json!({"check": fault.check, "reason": fault.text}))
        .collect();
    let report = json!({
        "file": arguments.file.display().to_string(),
        "format": if formats.is_empty() { Format::Raw.as_str().to_owned() } else { formats.join(", ") },
        "size": size_bytes,
        "virtual_size": match found.as_slice() {
            [] => Some(size_bytes),
            [one] => one.virtual_size_bytes,
            _ => None,
        },
        "accepted": verdict.is_ok(),
        "reason": verdict.as_ref().err().map(ToString::to_string),
        "warning": verdict.as_ref().ok().and_then(|facts| facts.warning.clone()),
        "faults": faults,
    });
    Ok((report, verdict.is_ok()))
}

fn look(path: &Path, expected: Expected) -> std::io::Result<(Inspection, u64)> {
    let mut file = File::open(path)?;
    let size_bytes = file.seek(SeekFrom::End(0))?;
    let mut inspection = Inspection::new(expected);
    while let Some(range) = inspection.wanted(size_bytes) {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
        file.seek(SeekFrom::Start(range.start))?;
        file.read_exact(&mut bytes)?;
        inspection.skip_to(range.start);
        inspection.feed(&bytes);
    }
    Ok((inspection, size_bytes))
}

fn table(report: &Value) -> String {
    let shown = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let mut lines = String::new();
    let mut line = |name: &str, value: &str| lines.push_str(&format!("{name:<14}{value}\n"));
    for (name, key) in [("file", "file"), ("format", "format"), ("size", "size"), ("virtual size", "virtual_size")] {
        line(name, &shown(&report[key]));
    }
    line("verdict", if report["accepted"] == true { "accepted" } else { "refused" });
    for key in ["reason", "warning"] {
        if !report[key].is_null() {
            line(key, &shown(&report[key]));
        }
    }
    for fault in report["faults"].as_array().into_iter().flatten() {
        line("fault", &format!("{}: {}", shown(&fault["check"]), shown(&fault["reason"])));
    }
    lines
}
