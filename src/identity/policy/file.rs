//! Where rules are written: YAML files, of which JSON is a part.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};

use super::remote::ContentType;
use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde::{Deserialize, Serialize};

/// Where rules are looked for without an option.
const DEFAULT_FILE: &str = "/etc/rockpool/policy.yaml";
/// Largest file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Endings of the files in `policy.dirs` that are read.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// `[policy]` of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// File with rules that take the place of the defaults. It need not exist at its default place.
    pub file: PathBuf,
    /// Folders with further files, read in the order of their names; each replaces what was read before.
    pub dirs: Vec<PathBuf>,
    /// How often the files are looked at for changes, in seconds.
    pub reload_interval_s: u64,
    /// Servers that `http:` and `https:` checks may ask: `host`, or `host:port`. Without any, such checks are errors.
    pub remote_checks_allowed_hosts: Vec<String>,
    /// Longest wait for such a server, in seconds.
    pub remote_timeout_s: u64,
    /// How it is asked.
    pub remote_content_type: ContentType,
    /// PEM file of the authorities that `https:` servers must be signed by; without, the system's.
    pub remote_cafile: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            file: DEFAULT_FILE.into(),
            dirs: Vec::new(),
            reload_interval_s: 5,
            remote_checks_allowed_hosts: Vec::new(),
            remote_timeout_s: 5,
            remote_content_type: ContentType::Form,
            remote_cafile: None,
        }
    }
}

/// A rule in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Override {
    pub(super) name: String,
    pub(super) written: Written,
    file: PathBuf,
    line: usize,
}

impl Override {
    /// File and line.
    pub(super) fn origin(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }
}

/// How a rule is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Written {
    /// In the policy language.
    Text(String),
    /// The older way: one of these lists has to hold in all its elements.
    Lists(Vec<Vec<String>>),
}

/// As JSON, and so as YAML.
impl Display for Written {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).unwrap_or_default())
    }
}

/// The texts of all files, in the order in which they count.
pub(super) type Texts = Vec<(PathBuf, String)>;

impl Config {
    /// Reads the files.
    ///
    /// # Errors
    /// Everything that cannot be read, a sentence each.
    pub(super) fn texts(&self) -> Result<Texts, Vec<String>> {
        let (mut texts, mut problems) = (Texts::new(), Vec::new());
        let mut paths = Vec::new();
        if self.file != Path::new(DEFAULT_FILE) || self.file.exists() {
            paths.push(self.file.clone());
        }
        for dir in &self.dirs {
            match files(dir) {
                Ok(found) => paths.extend(found),
                Err(problem) => problems.push(problem),
            }
        }
        for path in paths {
            match text(&path) {
                Ok(text) => texts.push((path, text)),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(texts) } else { Err(problems) }
    }
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error: std::io::Error| format!("policy.dirs: {} cannot be read: {error}", dir.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let visible = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| !name.starts_with('.'));
        let read = path.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| ENDINGS.contains(&ending));
        if visible && read && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn text(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let size = std::fs::metadata(path).map_err(|e| format!("{shown} cannot be read: {e}"))?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("{shown} has {size} bytes; a policy file has at most {FILE_BYTES_MAX}"));
    }
    std::fs::read_to_string(path).map_err(|e| format!("{shown} cannot be read: {e}"))
}

/// The rules of a file, in its order.
///
/// # Errors
/// The first thing that is not as it has to be, with file and line.
pub(super) fn overrides(path: &Path, text: &str) -> Result<Vec<Override>, String> {
    let mut reader = Reader { events: Parser::new_from_str(text), path, line: 1 };
    let mut overrides = Vec::new();
    match reader.next()? {
        Some(Node::MapStart) => {}
        // A file of comments.
        None => return Ok(overrides),
        Some(Node::Empty) => {}
        Some(_) => return reader.wrong("a policy file has lines of the form \"rule\": \"condition\""),
    }
    let mut names = BTreeSet::new();
    loop {
        let name = match reader.next()? {
            Some(Node::Text(name)) => name,
            None | Some(Node::End) => break,
            Some(_) => return reader.wrong("the name of a rule must be a text"),
        };
        let line = reader.line;
        let written = reader.written(&name)?;
        if !names.insert(name.clone()) {
            return reader.wrong(&format!("the rule {name} is there twice"));
        }
        overrides.push(Override { name, written, file: path.to_owned(), line });
    }
    match reader.next()? {
        None => Ok(overrides),
        Some(_) => reader.wrong("a policy file is one document"),
    }
}

/// What the reader of a file meets.
enum Node {
    Text(String),
    Empty,
    ListStart,
    MapStart,
    End,
}

struct Reader<'t> {
    events: Parser<'t, saphyr_parser::StrInput<'t>>,
    path: &'t Path,
    line: usize,
}

impl Reader<'_> {
    fn wrong<T>(&self, what: &str) -> Result<T, String> {
        Err(format!("{}:{}: {what}", self.path.display(), self.line))
    }

    fn next(&mut self) -> Result<Option<Node>, String> {
        loop {
            let (event, span): (Event<'_>, Span) = match self.events.next_event() {
                None => return Ok(None),
                Some(Ok(event)) => event,
                Some(Err(error)) => {
                    self.line = error.marker().line();
                    return self.wrong(&format!("this is not YAML: {}", error.info()));
                }
            };
            self.line = span.start.line();
            return Ok(Some(match event {
                Event::Nothing
                | Event::StreamStart
                | Event::StreamEnd
                | Event::DocumentStart(_)
                | Event::DocumentEnd => continue,
                Event::Scalar(.., Some(_)) | Event::SequenceStart(_, Some(_)) | Event::MappingStart(_, Some(_)) => {
                    return self.wrong("tags have no meaning here: put the rule between quotes");
                }
                Event::Alias(_) => {
                    return self
                        .wrong("aliases have no meaning here: give the rule a name and refer to it by rule:NAME");
                }
                Event::Scalar(text, style, ..) => match (style, &*text) {
                    (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Node::Empty,
                    _ => Node::Text(text.into_owned()),
                },
                Event::SequenceStart(..) => Node::ListStart,
                Event::MappingStart(..) => Node::MapStart,
                Event::SequenceEnd | Event::MappingEnd => Node::End,
            }));
        }
    }

    fn written(&mut self, name: &str) -> Result<Written, String> {
        match self.next()? {
            Some(Node::Text(text)) => return Ok(Written::Text(text)),
            Some(Node::ListStart) => {}
            Some(Node::Empty) => {
                return self
                    .wrong(&format!("the rule {name} is empty: write \"\" or \"@\" for everybody, \"!\" for nobody"));
            }
            _ => return self.wrong(&format!("the rule {name} must be a text, or a list of lists of texts")),
        }
        let mut lists = Vec::new();
        loop {
            match self.next()? {
                // As in the reference, an element that is no list is a list of one, and an empty one is none.
                Some(Node::Text(text)) => lists.push(if text.is_empty() { Vec::new() } else { vec![text] }),
                Some(Node::ListStart) => {
                    let mut list = Vec::new();
                    loop {
                        match self.next()? {
                            Some(Node::Text(text)) => list.push(text),
                            Some(Node::End) => break,
                            _ => return self.wrong(&format!("the lists of rule {name} must consist of texts")),
                        }
                    }
                    lists.push(list);
                }
                Some(Node::End) => return Ok(Written::Lists(lists)),
                _ => return self.wrong(&format!("the rule {name} must be a text, or a list of lists of texts")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::{any, proptest};

    use super::{Written, overrides};

    proptest! {
        #[test]
        fn any_file_is_read_or_refused_with_its_line(text in any::<String>(), yaml in "([a-b'\"\\[\\]{}:,&*!|>#%@? -]|\n|: |- |---\n){0,60}") {
            for text in [text, yaml] {
                if let Err(problem) = overrides(Path::new("f"), &text) {
                    assert!(problem.starts_with("f:"), "{problem}");
                }
            }
        }

        #[test]
        fn a_rule_in_json_is_read_as_it_is_written(name in "[ -~]{1,20}", text in "[ -~é\n\t]{0,40}") {
            let file = serde_json::json!({name.clone(): text}).to_string();
            let read = overrides(Path::new("f"), &file).unwrap();
            assert_eq!((&read[0].name, &read[0].written), (&name, &Written::Text(text)));
        }
    }
}
