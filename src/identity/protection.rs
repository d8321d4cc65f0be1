//! Property protections: who may do what with which additional property (`image-api.md` 3.9).
//!
//! The file is Glance's: a section's name is a regular expression that is searched for in the name of a property, and the
//! first section that fits decides. What no section fits is nobody's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use regex::Regex;
use serde::Deserialize;

use super::policy::Target;
use super::{Caller, Policy};
use crate::domain::image::{PropertyOperation, RESERVED_PREFIX};

/// Largest file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What a section must say, in the order of [`PropertyOperation`].
const KEYS: [&str; 4] = ["create", "read", "update", "delete"];
/// A section that Glance's parser takes for something else than a regular expression.
const DEFAULTS_SECTION: &str = "DEFAULT";

/// What stands behind the keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleFormat {
    /// Roles, with commas.
    #[default]
    Roles,
    /// The name of one rule of the policy.
    Policies,
}

/// Whom a section allows an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Permit {
    Everybody,
    Nobody,
    Roles(BTreeSet<String>),
    Rule(String),
}

#[derive(Debug, Clone)]
struct Section {
    name: Regex,
    permits: [Permit; KEYS.len()],
}

/// The protections in force.
#[derive(Debug, Clone)]
pub struct Protections {
    sections: Vec<Section>,
}

impl Protections {
    /// Reads the file, whose rules have to be among the policy's.
    ///
    /// # Errors
    /// Everything that is wrong with it, in sentences that name file and line.
    pub fn load(path: &Path, format: RuleFormat, policy: &Policy) -> Result<Self, Vec<String>> {
        let unreadable =
            |error| vec![format!("images.property_protection_file {} cannot be read: {error}", path.display())];
        if std::fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
            return Err(vec![format!("{} is larger than {FILE_BYTES_MAX} bytes", path.display())]);
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Self::parse(&text, format, policy)
            .map_err(|found| found.into_iter().map(|problem| format!("{} {problem}", path.display())).collect())
    }

    fn parse(text: &str, format: RuleFormat, policy: &Policy) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut seen = BTreeSet::new();
        let mut sections = Vec::new();
        for written in written(text, &mut problems) {
            let line = written.line;
            if !seen.insert(written.name.clone()) {
                problems.push(format!("line {line}: the section [{}] is there twice", written.name));
            }
            match written.section(format, policy) {
                Ok(section) => sections.push(section),
                Err(found) => problems.extend(found),
            }
        }
        if problems.is_empty() { Ok(Self { sections }) } else { Err(problems) }
    }

    /// Whether `caller` may do that with the property of this name, on whichever image it is.
    pub async fn allow(&self, operation: PropertyOperation, name: &str, caller: &Caller, policy: &Policy) -> bool {
        // The service's own: clients cannot write it, and have always read it.
        if name.starts_with(RESERVED_PREFIX) {
            return true;
        }
        let Some(section) = self.sections.iter().find(|section| section.name.is_match(name)) else { return false };
        match &section.permits[operation as usize] {
            Permit::Everybody => true,
            Permit::Nobody => false,
            Permit::Roles(roles) => !roles.is_disjoint(&caller.roles) || !roles.is_disjoint(&caller.service_roles),
            // A rule that has gone since: the policy's own answer would be "default", and that everybody may.
            Permit::Rule(rule) => policy.defines(rule) && policy.allows_rule(rule, caller, Target::Nothing).await,
        }
    }
}

/// A section as it stands in the file: each key with its line and value.
struct Written {
    line: usize,
    name: String,
    values: BTreeMap<String, (usize, String)>,
}

/// Reads the INI format as Python's `configparser` does: whole lines of comment, `=` or `:`, and indented lines that go on
/// with the value before them.
fn written(text: &str, problems: &mut Vec<String>) -> Vec<Written> {
    let mut sections: Vec<Written> = Vec::new();
    let mut last_key: Option<String> = None;
    for (line, whole) in (1..).zip(text.lines()) {
        let content = whole.trim();
        if content.is_empty() || content.starts_with(['#', ';']) {
            continue;
        }
        if whole.starts_with(char::is_whitespace)
            && let Some(value) = last_key.as_ref().and_then(|key| sections.last_mut()?.values.get_mut(key))
        {
            value.1.push(' ');
            value.1.push_str(content);
            continue;
        }
        last_key = None;
        if let Some(rest) = content.strip_prefix('[') {
            match rest.strip_suffix(']') {
                Some(name) if !name.is_empty() => {
                    sections.push(Written { line, name: name.to_owned(), values: BTreeMap::new() });
                }
                Some(_) | None => problems.push(format!(
                    "line {line}: a section is a regular expression between [ and ], and nothing else is on its line"
                )),
            }
            continue;
        }
        let Some((key, value)) = content.split_once(['=', ':']) else {
            problems.push(format!("line {line}: '{content}' is neither a section nor a key with '=' and a value"));
            continue;
        };
        let (key, value) = (key.trim().to_lowercase(), value.trim().to_owned());
        match sections.last_mut() {
            None => problems.push(format!("line {line}: '{key}' stands before the first section")),
            Some(section) => {
                if section.values.insert(key.clone(), (line, value)).is_some() {
                    problems.push(format!("line {line}: '{key}' is there twice in the section [{}]", section.name));
                }
                last_key = Some(key);
            }
        }
    }
    sections
}

impl Written {
    fn section(mut self, format: RuleFormat, policy: &Policy) -> Result<Section, Vec<String>> {
        let (line, name) = (self.line, &self.name);
        let mut problems = Vec::new();
        if name == DEFAULTS_SECTION {
            problems.push(format!(
                "line {line}: [{DEFAULTS_SECTION}] is no regular expression to Glance; write [^{DEFAULTS_SECTION}$]"
            ));
        }
        let expression = Regex::new(name).map_err(|error| {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
            problems.push(format!("line {line}: [{name}] is no regular expression that can be used here: {why}"));
        });
        let permits = KEYS.map(|key| match self.values.remove(key) {
            Some((line, value)) => permit(&value, format, policy).unwrap_or_else(|why| {
                problems.push(format!("line {line}: {key} = {value}: {why}"));
                Permit::Nobody
            }),
            None => {
                problems.push(format!(
                    "line {line}: the section [{name}] does not say who may {key}; write '{key} = !' for nobody"
                ));
                Permit::Nobody
            }
        });
        for (key, (line, _)) in &self.values {
            problems.push(format!("line {line}: unknown key '{key}'; known: {}", KEYS.join(", ")));
        }
        match expression {
            Ok(name) if problems.is_empty() => Ok(Section { name, permits }),
            Ok(_) | Err(()) => Err(problems),
        }
    }
}

fn permit(value: &str, format: RuleFormat, policy: &Policy) -> Result<Permit, String> {
    let names: BTreeSet<String> =
        value.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
    if names.contains("@") && names.contains("!") {
        return Err("'@' (everybody) and '!' (nobody) exclude each other".into());
    }
    if format == RuleFormat::Policies && value.contains(',') {
        return Err("with the rule format \"policies\" an operation has one rule; combine several in the policy".into());
    }
    Ok(match (names.first(), format) {
        (None, _) => Permit::Nobody,
        (Some(_), _) if names.contains("!") => Permit::Nobody,
        (Some(_), _) if names.contains("@") => Permit::Everybody,
        (Some(rule), RuleFormat::Policies) if !policy.defines(rule) => {
            return Err("the policy has no such rule".into());
        }
        (Some(rule), RuleFormat::Policies) => Permit::Rule(rule.clone()),
        (Some(_), RuleFormat::Roles) => Permit::Roles(names.iter().map(|role| role.to_lowercase()).collect()),
    })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use proptest::prelude::{any, proptest};

    use super::{Protections, RuleFormat};
    use crate::domain::image::PropertyOperation::{self, Create, Delete, Read, Update};
    use crate::identity::{Caller, Policy, policy};

    const OPERATIONS: [PropertyOperation; 4] = [Create, Read, Update, Delete];

    fn policy() -> Policy {
        Policy::load(policy::Config::default()).unwrap()
    }

    fn caller(roles: &[&str]) -> Caller {
        Caller { roles: roles.iter().map(|role| (*role).to_owned()).collect(), ..Caller::default() }
    }

    /// The operations that somebody with these roles may do, as letters.
    fn may(protections: &Protections, name: &str, roles: &[&str]) -> String {
        let policy = policy();
        let allowed = OPERATIONS
            .into_iter()
            .filter(|operation| protections.allow(*operation, name, &caller(roles), &policy).now_or_never().unwrap());
        allowed.map(|operation| format!("{operation:?}").chars().take(1).collect::<String>()).collect()
    }

    fn roles(text: &str) -> Protections {
        Protections::parse(text, RuleFormat::Roles, &policy()).unwrap_or_else(|problems| panic!("{problems:#?}"))
    }

    #[test]
    fn the_first_section_that_fits_decides() {
        let protections = roles(
            "# who bills whom\n\n[^x_billing_code_]\ncreate = admin, Billing\nread: admin,billing\nupdate = billing\n  ,auditor\nDELETE=!\n\
             [billing]\ncreate = @\nread = @\nupdate = @\ndelete = @\n; the rest\n[^x_]\ncreate =\nread = @\nupdate = member\ndelete = member,!\n",
        );
        for (name, who, expected) in [
            ("x_billing_code_1", &["billing", "member"][..], "CRU"),
            ("x_billing_code_1", &["admin"], "CR"),
            ("x_billing_code_1", &["auditor"], "U"),
            ("x_billing_code_1", &["member"], ""),
            // A later section that would allow more is not looked at; searching is not matching the whole.
            ("my billing", &[], "CRUD"),
            ("x_other", &["member"], "RU"),
            ("x_other", &["admin"], "R"),
            ("X_other", &["member"], ""),
            ("unheard_of", &["admin", "member"], ""),
            // The service's own.
            ("os_glance_import_task", &[], "CRUD"),
        ] {
            assert_eq!(may(&protections, name, who), expected, "{name} {who:?}");
        }
        // Who vouches for the request counts, too.
        let service = Caller { service_roles: ["billing".to_owned()].into(), ..Caller::default() };
        assert!(protections.allow(Update, "x_billing_code_1", &service, &policy()).now_or_never().unwrap());
    }

    #[test]
    fn an_order_of_sections_is_an_order_of_verdicts() {
        let section =
            |name: &str, who: &str| format!("[{name}]\ncreate={who}\nread={who}\nupdate={who}\ndelete={who}\n");
        let names = ["^a", "b", "c$"];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let text: String = order.iter().map(|n| section(names[*n], &format!("role{n}"))).collect();
            let protections = roles(&text);
            for role in 0..3 {
                let allowed = !may(&protections, "abc", &[&format!("role{role}")]).is_empty();
                assert_eq!(allowed, role == order[0], "{order:?} {role}");
            }
        }
    }

    #[test]
    fn everything_wrong_is_named_with_its_line() {
        let problems = Protections::parse(
            "create = admin\n[a(]\ncreate = @\nread = @,!\nupdate = x\ndelete = x\n[ok]\ncreate = @\nread\nupdate = x\nupdate = y\nremove = x\ndelete =\n\
             [ok]\n[DEFAULT]\n[unclosed\n[lookahead(?!x)]\ncreate=@\nread=@\nupdate=@\ndelete=@\n",
            RuleFormat::Roles,
            &policy(),
        )
        .unwrap_err();
        for expected in [
            "line 1: 'create' stands before the first section",
            "line 2: [a(] is no regular expression",
            "line 4: read = @,!: '@' (everybody) and '!' (nobody) exclude each other",
            "line 9: 'read' is neither a section nor a key",
            "line 7: the section [ok] does not say who may read",
            "line 11: 'update' is there twice",
            "line 12: unknown key 'remove'; known: create, read, update, delete",
            "line 14: the section [ok] is there twice",
            "line 15: [DEFAULT]",
            "line 16: a section is a regular expression between [ and ]",
            "line 17: [lookahead(?!x)] is no regular expression that can be used here: look-around",
        ] {
            assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{expected}: {problems:#?}");
        }
        let problems = Protections::parse(
            "[a]\ncreate=get_image,add_image\nread=@\nupdate=modify_imgae\ndelete=",
            RuleFormat::Policies,
            &policy(),
        )
        .unwrap_err();
        assert!(
            matches!(&problems[..], [one, two] if one.starts_with("line 2: create = get_image,add_image: ") && two.starts_with("line 4: update = modify_imgae: the policy has no such rule")),
            "{problems:?}"
        );
    }

    proptest! {
        #[test]
        fn no_file_panics(text in "(\\[[a-z^.*]{0,3}\\]|create|read|=|@|!|,| |\n){0,40}|\\PC{0,40}", name in any::<String>()) {
            let policy = policy();
            for format in [RuleFormat::Roles, RuleFormat::Policies] {
                if let Ok(protections) = Protections::parse(&text, format, &policy) {
                    let _ = protections.allow(Read, &name, &caller(&["member"]), &policy).now_or_never().unwrap();
                }
            }
        }
    }
}
