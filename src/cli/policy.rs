//! `rockpool policy`.

use std::collections::BTreeSet;
use std::fs::File as StdFile;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{File, block_on, with_config};
use crate::catalog::Catalog;
use crate::config::Config;
use crate::domain::id::ImageId;
use crate::domain::image::{Attributes, Formats, Image};
use crate::domain::query::Scope;
use crate::identity::Caller;
use crate::identity::policy::{Action, Policy, Target};

/// Exit code of `policy explain` for what is denied.
const EXIT_DENIED: u8 = 3;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print every rule in force, as a policy file, and where it comes from.
    List {
        #[command(flatten)]
        file: File,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say everything that is wrong with a policy file; exit code 1 if anything is.
    Check {
        /// Policy file, YAML or JSON.
        file: PathBuf,
        /// Also try these cases, JSON objects a line each with "rule", "credentials", "target" and "allowed", and say
        /// which of them the rules decide otherwise.
        #[arg(long, value_name = "FILE")]
        cases: Option<PathBuf>,
    },
    /// Show which part of which rule allows or denies something; exit code 3 if it is denied.
    Explain(Explain),
}

#[derive(Debug, clap::Args)]
pub(super) struct Explain {
    #[command(flatten)]
    file: File,
    /// The caller: roles=member,reader,project_id=ID,user_id=ID,.. with all roles that the token has.
    #[arg(long = "as", value_name = "CALLER")]
    caller: String,
    /// What is done, by the name of its rule.
    #[arg(long)]
    action: String,
    /// The image that it is done to: its id, or attributes, such as owner=ID,visibility=shared,member_id=ID.
    #[arg(long, value_name = "ID|ATTRIBUTES")]
    image: Option<String>,
    /// The metadata definition that it is done to: owner=ID,visibility=public.
    #[arg(long, value_name = "ATTRIBUTES", conflicts_with = "image")]
    namespace: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: Command) -> ExitCode {
    match command {
        Command::List { file, json } => with_config(&file, |config| list(&config.policy, json)),
        Command::Check { file, cases } => report(check(&file, cases.as_deref())),
        Command::Explain(arguments) => with_config(&arguments.file, |config| {
            report(block_on(explain(&config, &arguments)).map_err(|problem| vec![problem]))
        }),
    }
}

fn report(outcome: Result<ExitCode, Vec<String>>) -> ExitCode {
    outcome.unwrap_or_else(|problems| {
        problems.iter().for_each(|problem| eprintln!("rockpool: {problem}"));
        ExitCode::FAILURE
    })
}

fn list(policy: &Policy, as_json: bool) -> ExitCode {
    let (mut rules, mut text) = (Vec::new(), String::new());
    policy.each_rule(|rule| {
        rules.push(json!({"name": rule.name, "rule": rule.written, "default": rule.default, "origin": rule.origin}));
        let from = match (&rule.origin, rule.default) {
            (None, _) => "default".to_owned(),
            (Some(origin), None) => origin.clone(),
            (Some(origin), Some(default)) => format!("{origin}, instead of {}", json!(default)),
        };
        text.push_str(&format!("{}: {}  # {from}\n", json!(rule.name), rule.written));
    });
    if as_json {
        text = format!("{:#}\n", Value::Array(rules));
    }
    // Whoever looks at the first lines only has closed the pipe by now.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// A verdict that somebody expects.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    rule: String,
    credentials: Map<String, Value>,
    #[serde(default)]
    target: Map<String, Value>,
    allowed: bool,
}

fn check(file: &Path, cases: Option<&Path>) -> Result<ExitCode, Vec<String>> {
    let policy = Policy::of_file(file)?;
    policy.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
    println!("{} is valid", file.display());
    let Some(path) = cases else { return Ok(ExitCode::SUCCESS) };
    let failed = |line: usize, what: &str| vec![format!("{}:{line}: {what}", path.display())];
    let (mut count, mut wrong) = (0, 0);
    let lines = StdFile::open(path).map_err(|e| failed(0, &e.to_string()))?;
    for (n, line) in BufReader::new(lines).lines().enumerate() {
        let line = line.map_err(|e| failed(n + 1, &e.to_string()))?;
        let case: Case = serde_json::from_str(&line).map_err(|e| failed(n + 1, &e.to_string()))?;
        count += 1;
        if policy.verdict(&case.rule, &case.credentials, &case.target) != case.allowed {
            wrong += 1;
            let is = if case.allowed { "denied" } else { "allowed" };
            println!("{}:{}: {} is {is}: {line}", path.display(), n + 1, case.rule);
        }
    }
    println!("{count} cases, {wrong} decided otherwise");
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn explain(config: &Config, arguments: &Explain) -> Result<ExitCode, String> {
    // 1. Who does what?
    let policy = &config.policy;
    let mut caller = caller(&arguments.caller)?;
    caller.admin = policy.is_admin(&caller).await;
    let action = Action::named(&arguments.action)?;
    // 2. To what?
    let mut attributes = Attributes::new(Some(caller.project_id.clone()));
    let (mut image, mut hidden) = (None, false);
    let (member, visibility);
    let target = match (&arguments.image, &arguments.namespace) {
        (None, None) => Target::Project(&caller.project_id),
        (None, Some(text)) => {
            let namespace = pairs(text)?;
            let value = |name: &str| namespace.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
            attributes.owner = value("owner");
            visibility = value("visibility").unwrap_or_else(|| "private".into());
            Target::Metadef { owner: attributes.owner.as_deref(), visibility: &visibility }
        }
        (Some(text), _) => match ImageId::parse(text) {
            Some(id) => {
                let (found, shown) = look_up(config, &caller, id).await?;
                hidden = !shown;
                Target::from(&*image.insert(found))
            }
            None => {
                member = describe(&mut attributes, text, &config.service(String::new()).formats)?;
                Target::Image { attributes: &attributes, image: None, member: member.as_deref() }
            }
        },
    };
    // 3. Why, or why not?
    let explanation =
        policy.explain(action, &caller, target).await.ok_or_else(|| "there is no such rule".to_owned())?;
    let unseen = arguments.image.is_some() && !policy.allows(Action::GetImage, &caller, target).await;
    let allowed = explanation.allowed && !hidden;
    let answer = match (hidden, explanation.allowed, unseen) {
        (true, ..) => {
            "The catalog does not show this image to the caller's project: the answer is 404, whatever the policy says."
        }
        (_, true, _) => "The policy permits it.",
        (_, false, true) => "The answer is 404: the rule get_image is denied, too.",
        (_, false, false) => "The answer is 403, and names the rule.",
    };
    if arguments.json {
        println!(
            "{:#}",
            json!({"allowed": allowed, "is_admin": caller.admin, "answer": answer, "explanation": explanation})
        );
    } else {
        println!("{explanation}\n{answer}");
        if caller.admin {
            println!("The caller is an administrator (context_is_admin): every image is in scope.");
        }
    }
    Ok(if allowed { ExitCode::SUCCESS } else { ExitCode::from(EXIT_DENIED) })
}

/// The image, and whether it lies within what the caller may see.
async fn look_up(config: &Config, caller: &Caller, id: ImageId) -> Result<(Image, bool), String> {
    let catalog = Catalog::new(&config.catalog).map_err(|e| e.to_string())?;
    let image = catalog.image(id, &Scope::Everything(None)).await.map_err(|e| e.to_string())?;
    let shown = catalog.image(id, &caller.scope()).await.map_err(|e| e.to_string())?.is_some();
    image.map(|image| (image, shown)).ok_or_else(|| format!("there is no image {id}"))
}

/// `name=value,name=value`; a value goes on over commas until the next name.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for part in text.split(',') {
        match (part.split_once('='), pairs.last_mut()) {
            (Some((name, value)), _) => pairs.push((name.trim().to_owned(), value.trim().to_owned())),
            (None, Some((_, value))) => *value = format!("{value},{}", part.trim()),
            (None, None) => return Err(format!("\"{part}\" must have the form NAME=VALUE")),
        }
    }
    Ok(pairs)
}

fn caller(text: &str) -> Result<Caller, String> {
    let names = |value: &str| -> BTreeSet<String> {
        value.split(',').filter(|role| !role.is_empty()).map(str::to_lowercase).collect()
    };
    let mut caller = Caller::default();
    for (name, value) in pairs(text)? {
        match name.as_str() {
            "roles" => caller.roles = names(&value),
            "service_roles" => caller.service_roles = names(&value),
            "user_id" => caller.user_id = value,
            "project_id" => caller.project_id = value,
            "user_domain_id" => caller.user_domain_id = Some(value),
            "project_domain_id" => caller.project_domain_id = Some(value),
            _ => {
                return Err(format!(
                    "--as: there is no \"{name}\"; known: roles, service_roles, user_id, project_id, user_domain_id, project_domain_id"
                ));
            }
        }
    }
    Ok(caller)
}

/// Sets the attributes; returns the member, if one is named.
fn describe(attributes: &mut Attributes, text: &str, formats: &Formats) -> Result<Option<String>, String> {
    let mut member = None;
    for (name, value) in pairs(text)? {
        let value = match name.as_str() {
            "member_id" => {
                member = Some(value);
                continue;
            }
            "protected" | "os_hidden" | "min_disk" | "min_ram" => {
                serde_json::from_str(&value).unwrap_or(Value::String(value))
            }
            "tags" => Value::from(value.split(',').collect::<Vec<_>>()),
            _ => Value::String(value),
        };
        attributes.set(&name, &value, formats).map_err(|refusal| format!("--image: {refusal}"))?;
    }
    Ok(member)
}
