//! The layers of the house: an arrow never points up.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What each layer may use, besides itself.
const LAYERS: [(&str, &[&str]); 14] = [
    ("domain", &[]),
    ("format", &["domain"]),
    ("secret", &[]),
    ("tls", &[]),
    ("telemetry", &[]),
    ("catalog", &["domain", "tls"]),
    ("store", &["domain", "secret", "tls", "fetch", "telemetry"]),
    ("identity", &["domain", "secret", "tls"]),
    ("fetch", &["domain", "secret", "tls"]),
    ("service", &["domain", "format", "catalog", "store", "identity", "fetch", "telemetry"]),
    ("worker", &["service"]),
    ("api", &["domain", "identity", "service", "telemetry"]),
    ("config", &["domain", "catalog", "store", "identity", "fetch", "format", "service", "api"]),
    (
        "cli",
        &[
            "domain",
            "catalog",
            "store",
            "identity",
            "fetch",
            "format",
            "service",
            "worker",
            "api",
            "config",
            "telemetry",
        ],
    ),
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The first names of every `crate::` path of a file, `use crate::{a, b::c};` included.
fn used(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (position, _) in text.match_indices("crate::") {
        let rest = &text[position + "crate::".len()..];
        let name =
            |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        match rest.strip_prefix('{') {
            None => names.push(name(rest)),
            Some(list) => {
                let mut depth = 0;
                let mut start = true;
                for (at, character) in list.char_indices() {
                    if start && depth == 0 && !character.is_whitespace() {
                        names.push(name(&list[at..]));
                        start = false;
                    }
                    match character {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        _ => {}
                    }
                }
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn no_layer_uses_one_above_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allowed: BTreeMap<&str, &[&str]> = LAYERS.into_iter().collect();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for file in sources(&source) {
        let relative = file.strip_prefix(&source).unwrap();
        let layer =
            relative.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if matches!(layer.as_str(), "lib" | "main") {
            continue;
        }
        let permitted = allowed
            .get(layer.as_str())
            .unwrap_or_else(|| panic!("src/{layer} is no known layer: give it a place in LAYERS"));
        for name in used(&fs::read_to_string(&file).unwrap()) {
            checked += 1;
            if name != layer && !permitted.contains(&name.as_str()) {
                wrong.push(format!("{} uses crate::{name}", relative.display()));
            }
        }
    }
    assert!(checked > 50, "only {checked} uses were found: the test reads the wrong files");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_the_rbd_store_knows_the_crate_ceph_and_only_the_api_knows_axum() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in sources(&source) {
        let relative = file.strip_prefix(&source).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let uses = |name: &str| {
            text.contains(&format!("use {name}::"))
                || text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(&format!(" {name}::")))
        };
        if uses("axum") {
            assert!(relative.starts_with("api"), "{} uses axum", relative.display());
        }
        if uses("ceph") {
            assert!(relative.starts_with("store"), "{} uses ceph", relative.display());
        }
        if text.contains("tokio_postgres::") && !text.contains("tokio_postgres=") {
            assert!(relative.starts_with("catalog"), "{} uses tokio_postgres", relative.display());
        }
    }
}
