//! `[identity.keystone]`: the counterpart of oslo's `[keystone_authtoken]`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hyper::Uri;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::domain::endpoint::Interface;
use crate::secret::Secret;
use crate::tls::Trust;

/// Domain of users and projects that are given by name without one.
const DEFAULT_DOMAIN: &str = "Default";

/// `[identity.keystone]` of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Base URL of Keystone that this service uses, with or without `/v3`.
    pub auth_url: String,
    /// Base URL of Keystone that clients are told of in a 401; without it `auth_url`.
    pub www_authenticate_uri: Option<String>,
    /// The service's own user, by name.
    pub username: Option<String>,
    /// The service's own user, by id.
    pub user_id: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// File that holds the password and nothing else.
    pub password_file: Option<PathBuf>,
    /// Domain of `username`, by name.
    pub user_domain_name: Option<String>,
    /// Domain of `username`, by id.
    pub user_domain_id: Option<String>,
    /// Project on which the user has the role `service` (or `admin`), by name.
    pub project_name: Option<String>,
    /// That project, by id.
    pub project_id: Option<String>,
    /// Domain of `project_name`, by name.
    pub project_domain_name: Option<String>,
    /// Domain of `project_name`, by id.
    pub project_domain_id: Option<String>,
    /// An application credential instead of user, password and project.
    pub application_credential_id: Option<String>,
    /// Its secret.
    pub application_credential_secret: Option<Secret>,
    /// File that holds the secret and nothing else.
    pub application_credential_secret_file: Option<PathBuf>,
    /// Region of this site: of the Keystone to ask, if `interface` is set, and of the limits.
    pub region_name: Option<String>,
    /// Which endpoint of Keystone in the catalog to ask; without it, the one at `auth_url`.
    pub interface: Option<Interface>,
    /// Endpoint of this service in the catalog, whose service and region the unified limits belong to. Without
    /// it, the image service, in `region_name`.
    pub endpoint_id: Option<String>,
    /// How long limits are remembered, in seconds.
    pub limits_cache_time_s: u64,
    /// PEM file of the authorities that may sign Keystone's certificate; without it, the system's.
    pub cafile: Option<PathBuf>,
    /// Whether to accept any certificate.
    pub insecure: bool,
    /// How long a validated token is taken for valid without asking again, in seconds.
    pub token_cache_time_s: u64,
    /// Most tokens that are remembered.
    pub token_cache_size: u64,
    /// Roles of which a service token must have one.
    pub service_token_roles: BTreeSet<String>,
    /// Whether a service token without such a role is refused; otherwise it grants nothing.
    pub service_token_roles_required: bool,
    /// Longest wait for a connection, in seconds.
    pub http_connect_timeout_s: u64,
    /// Longest wait for an answer, with all attempts, in seconds.
    pub http_request_timeout_s: u64,
    /// Attempts after the first.
    pub http_request_max_retries: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            auth_url: String::new(),
            www_authenticate_uri: None,
            username: None,
            user_id: None,
            password: None,
            password_file: None,
            user_domain_name: None,
            user_domain_id: None,
            project_name: None,
            project_id: None,
            project_domain_name: None,
            project_domain_id: None,
            application_credential_id: None,
            application_credential_secret: None,
            application_credential_secret_file: None,
            region_name: None,
            interface: None,
            endpoint_id: None,
            limits_cache_time_s: 0,
            cafile: None,
            insecure: false,
            token_cache_time_s: 60,
            token_cache_size: 10_000,
            service_token_roles: BTreeSet::from(["service".to_owned()]),
            service_token_roles_required: true,
            http_connect_timeout_s: 5,
            http_request_timeout_s: 10,
            http_request_max_retries: 3,
        }
    }
}

impl Config {
    /// Base of all requests, `.../v3`.
    pub(super) fn base(&self) -> Result<String, String> {
        // Not repeated: somebody may have put a password into it.
        with_version(&self.auth_url).map_err(|problem| format!("auth_url {problem}"))
    }

    /// The challenge of a 401.
    pub(super) fn challenge(&self) -> Result<String, String> {
        let uri = self.www_authenticate_uri.as_deref().unwrap_or(&self.auth_url);
        if uri.parse::<Uri>().is_err() || uri.contains('"') {
            return Err(format!(
                "www_authenticate_uri must be a URL such as https://keystone.example.org:5000, not \"{uri}\""
            ));
        }
        Ok(format!("Keystone uri=\"{uri}\""))
    }

    pub(super) fn trust(&self) -> Trust<'_> {
        match &self.cafile {
            _ if self.insecure => Trust::Anybody,
            None => Trust::System,
            Some(file) => Trust::Authorities(file),
        }
    }

    /// What is sent to Keystone for a token of our own.
    pub(super) fn credentials(&self) -> Result<Secret, Vec<String>> {
        let mut problems = Vec::new();
        let body = if let Some(id) = &self.application_credential_id {
            for (name, given) in [("username", self.username.is_some()), ("user_id", self.user_id.is_some())]
                .into_iter()
                .chain([("project_name", self.project_name.is_some()), ("project_id", self.project_id.is_some())])
            {
                if given {
                    problems.push(format!(
                        "{name} and application_credential_id exclude each other: the credential has a user and a project of its own"
                    ));
                }
            }
            let secret = one_secret(
                "application_credential_secret",
                self.application_credential_secret.as_ref(),
                self.application_credential_secret_file.as_deref(),
            );
            let secret = secret.map_err(|problem| problems.push(problem)).ok();
            json!({"identity": {
                "methods": ["application_credential"],
                "application_credential": {"id": id, "secret": secret.as_ref().map(Secret::expose)},
            }})
        } else {
            let user = by_id_or_name(
                ("username", "user_id"),
                (self.username.as_deref(), self.user_id.as_deref()),
                (self.user_domain_name.as_deref(), self.user_domain_id.as_deref()),
            );
            let project = by_id_or_name(
                ("project_name", "project_id"),
                (self.project_name.as_deref(), self.project_id.as_deref()),
                (self.project_domain_name.as_deref(), self.project_domain_id.as_deref()),
            );
            let password = one_secret("password", self.password.as_ref(), self.password_file.as_deref());
            let mut user = user.map_err(|problem| problems.push(problem)).unwrap_or_default();
            let project = project.map_err(|problem| problems.push(problem)).unwrap_or_default();
            if let Ok(password) = password.map_err(|problem| problems.push(problem)) {
                user["password"] = json!(password.expose());
            }
            json!({
                "identity": {"methods": ["password"], "password": {"user": user}},
                "scope": {"project": project},
            })
        };
        if problems.is_empty() { Ok(Secret::new(json!({"auth": body}).to_string())) } else { Err(problems) }
    }
}

/// A URL of Keystone with `/v3` at its end.
pub(super) fn with_version(url: &str) -> Result<String, &'static str> {
    let url = url.trim_end_matches('/');
    let usable = url.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.query().is_none()
            // No user, no password, and a port that is one.
            && uri.authority().is_some_and(|at| {
                !at.as_str().contains('@') && (at.as_str() == at.host() || at.port_u16().is_some())
            })
    });
    if !usable {
        return Err("must be a URL such as https://keystone.example.org:5000/v3");
    }
    if url.ends_with("/v2.0") {
        return Err("names version 2.0 of the Identity API, which has gone; use .../v3");
    }
    Ok(if url.ends_with("/v3") { url.to_owned() } else { format!("{url}/v3") })
}

/// How Keystone wants to be told of a user or a project.
fn by_id_or_name(
    (name_option, id_option): (&str, &str),
    (name, id): (Option<&str>, Option<&str>),
    (domain_name, domain_id): (Option<&str>, Option<&str>),
) -> Result<Value, String> {
    match (name, id) {
        (Some(_), Some(_)) => Err(format!("{name_option} and {id_option} exclude each other")),
        (None, None) => Err(format!("{name_option} (or {id_option}) is missing")),
        (None, Some(id)) => Ok(json!({"id": id})),
        (Some(name), None) => {
            let domain = match domain_id {
                Some(id) => json!({"id": id}),
                None => json!({"name": domain_name.unwrap_or(DEFAULT_DOMAIN)}),
            };
            Ok(json!({"name": name, "domain": domain}))
        }
    }
}

fn one_secret(option: &str, text: Option<&Secret>, file: Option<&Path>) -> Result<Secret, String> {
    match (text, file) {
        (Some(_), Some(_)) => Err(format!("{option} and {option}_file exclude each other")),
        (Some(text), None) => Ok(text.clone()),
        (None, Some(file)) => Secret::from_file(file).map_err(|problem| format!("{option}_file {problem}")),
        (None, None) => Err(format!("{option} (or {option}_file) is missing")),
    }
}
