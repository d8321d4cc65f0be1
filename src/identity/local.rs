//! `[identity] mode = "local"`: users, projects, roles and tokens written in the configuration, for
//! demonstrations, tests and small sites. A client uses it with the auth type `admin_token`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{Caller, Config};

/// A user.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Identifier.
    pub id: String,
    /// Name, by which tokens refer to it.
    pub name: String,
}

/// A project.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// Identifier: the `owner` of the project's images.
    pub id: String,
    /// Name, by which tokens refer to it.
    pub name: String,
}

/// A token: one user on one project with some roles.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// SHA-256 of the token in hex: `printf %s "$TOKEN" | sha256sum`. The token itself is nowhere.
    pub sha256: String,
    /// Name of the user.
    pub user: String,
    /// Name of the project.
    pub project: String,
    /// Roles. As in Keystone, admin implies member, and member implies reader.
    pub roles: BTreeSet<String>,
}

/// The known tokens.
#[derive(Debug, Clone)]
pub struct Local {
    callers: BTreeMap<[u8; 32], Caller>,
}

impl Local {
    /// Builds the table of tokens.
    ///
    /// # Errors
    /// Everything that is wrong with the section, in sentences.
    pub fn new(config: &Config) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut callers = BTreeMap::new();
        problems.extend(duplicates("users", config.users.iter().map(|user| (&user.id, &user.name))));
        problems.extend(duplicates("projects", config.projects.iter().map(|project| (&project.id, &project.name))));
        for (n, token) in config.tokens.iter().enumerate() {
            let user = config.users.iter().find(|user| user.name == token.user);
            let project = config.projects.iter().find(|project| project.name == token.project);
            let digest = digest_from_hex(&token.sha256);
            if digest.is_none() {
                problems.push(format!("identity.tokens[{n}].sha256 must be the 64 hex digits of a SHA-256: printf %s \"$TOKEN\" | sha256sum"));
            }
            if user.is_none() {
                problems.push(format!(
                    "identity.tokens[{n}].user: there is no user named \"{}\" under identity.users",
                    token.user
                ));
            }
            if project.is_none() {
                problems.push(format!(
                    "identity.tokens[{n}].project: there is no project named \"{}\" under identity.projects",
                    token.project
                ));
            }
            if let (Some(digest), Some(user), Some(project)) = (digest, user, project) {
                let caller = Caller {
                    user_id: user.id.clone(),
                    project_id: project.id.clone(),
                    roles: with_implied(&token.roles),
                    ..Caller::default()
                };
                if callers.insert(digest, caller).is_some() {
                    problems.push(format!("identity.tokens[{n}].sha256 is there twice"));
                }
            }
        }
        if problems.is_empty() { Ok(Self { callers }) } else { Err(problems) }
    }

    /// Whose token that is.
    #[must_use]
    pub fn caller(&self, token: &str) -> Option<&Caller> {
        // Looking up the digest, not the token: timing tells nothing about a token's beginning.
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        self.callers.get(&digest)
    }
}

fn duplicates<'a>(section: &str, pairs: impl Iterator<Item = (&'a String, &'a String)>) -> Vec<String> {
    let (mut ids, mut names) = (BTreeSet::new(), BTreeSet::new());
    let mut problems = Vec::new();
    for (id, name) in pairs {
        if id.is_empty() || name.is_empty() {
            problems.push(format!("identity.{section}: id and name must not be empty"));
        }
        if !ids.insert(id) {
            problems.push(format!("identity.{section}: the id \"{id}\" is there twice"));
        }
        if !names.insert(name) {
            problems.push(format!("identity.{section}: the name \"{name}\" is there twice"));
        }
    }
    problems
}

fn with_implied(roles: &BTreeSet<String>) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = roles.iter().map(|role| role.to_lowercase()).collect();
    for (role, implied) in [("admin", "member"), ("member", "reader")] {
        if all.contains(role) {
            all.insert(implied.to_owned());
        }
    }
    all
}

fn digest_from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::Local;
    use crate::identity::Config;

    const CONFIG: &str = r#"
        mode = "local"
        users = [{ id = "u1", name = "alice" }]
        projects = [{ id = "p1", name = "demo" }]
        [[tokens]]
        # printf %s secret | sha256sum
        sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
        user = "alice"
        project = "demo"
        roles = ["Member"]
    "#;

    fn local(text: &str) -> Result<Local, Vec<String>> {
        Local::new(&toml::from_str::<Config>(text).unwrap())
    }

    #[test]
    fn a_token_names_its_caller() {
        let local = local(CONFIG).unwrap();
        let caller = local.caller("secret").unwrap();
        assert_eq!((caller.user_id.as_str(), caller.project_id.as_str()), ("u1", "p1"));
        assert!(caller.has_role("member") && caller.has_role("reader") && !caller.has_role("admin"));
        for wrong in ["", "Secret", "secret ", "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"] {
            assert_eq!(local.caller(wrong), None);
        }
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let problems = local(
            &CONFIG.replace("\"alice\"\n        project", "\"bob\"\n        project").replace("2bb80d", "nothex"),
        )
        .unwrap_err();
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
