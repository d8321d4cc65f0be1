//! Cross-origin requests: which web pages may call this API from a browser (Horizon's direct uploads do).

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method};
use serde::Deserialize;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// `[cors]`. Without an origin nothing of it is in force.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Origins of pages, such as `https://dashboard.example.org`; `*` for all of them.
    pub allowed_origin: Vec<String>,
    /// Whether browsers may send cookies and the like along.
    pub allow_credentials: bool,
    /// How long browsers may remember the answer to a preflight, in seconds.
    pub max_age_s: u64,
    /// Methods that pages may use.
    pub allow_methods: Vec<String>,
    /// Headers that pages may send.
    pub allow_headers: Vec<String>,
    /// Headers of answers that pages may read.
    pub expose_headers: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            allowed_origin: Vec::new(),
            allow_credentials: true,
            max_age_s: 3600,
            allow_methods: names(&["GET", "PUT", "POST", "DELETE", "PATCH"]),
            allow_headers: names(&[
                "Accept-Encoding",
                "Content-MD5",
                "Content-Type",
                "Range",
                "X-Auth-Token",
                "X-Image-Meta-Checksum",
                "X-Image-Meta-Store",
                "X-OpenStack-Append",
                "X-OpenStack-Image-Size",
                "X-OpenStack-Request-ID",
                "X-Service-Token",
            ]),
            expose_headers: names(&[
                "Accept-Ranges",
                "Content-MD5",
                "Content-Range",
                "ETag",
                "Location",
                "OpenStack-Image-Import-Methods",
                "OpenStack-Image-Store-Ids",
                "Retry-After",
                "X-Auth-Token",
                "X-Image-Meta-Checksum",
                "X-OpenStack-Request-ID",
                "X-Service-Token",
                "X-Subject-Token",
            ]),
        }
    }
}

impl Config {
    /// What is wrong with it, a sentence each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for origin in &self.allowed_origin {
            if origin == "*" {
                if self.allow_credentials {
                    problems.push("cors.allowed_origin \"*\" lets every web page act with the credentials of whoever looks at it: name origins, or set allow_credentials = false".to_owned());
                }
                if self.allowed_origin.len() > 1 {
                    problems.push("cors.allowed_origin: \"*\" stands alone".to_owned());
                }
            } else if !is_origin(origin) {
                problems.push(format!("cors.allowed_origin must be a list of origins such as https://dashboard.example.org, without a path; \"{origin}\" is none"));
            }
        }
        for method in &self.allow_methods {
            if method.parse::<Method>().is_err() {
                problems.push(format!("cors.allow_methods: \"{method}\" is no method"));
            }
        }
        for (key, names) in [("allow_headers", &self.allow_headers), ("expose_headers", &self.expose_headers)] {
            for name in names.iter().filter(|name| name.parse::<HeaderName>().is_err()) {
                problems.push(format!("cors.{key}: \"{name}\" is no name of a header"));
            }
        }
        problems
    }

    /// The layer that answers preflights and marks every other answer; `None` where it is off.
    pub(super) fn layer(&self) -> Option<CorsLayer> {
        let origins = match self.allowed_origin.as_slice() {
            [] => return None,
            [any] if any == "*" => AllowOrigin::any(),
            some => AllowOrigin::list(some.iter().filter_map(|origin| HeaderValue::from_str(origin).ok())),
        };
        let headers = |names: &[String]| names.iter().filter_map(|name| name.parse().ok()).collect::<Vec<HeaderName>>();
        let methods: Vec<Method> = self.allow_methods.iter().filter_map(|name| name.parse().ok()).collect();
        let layer = CorsLayer::new()
            .allow_origin(origins)
            .allow_credentials(self.allow_credentials)
            .allow_methods(methods)
            .allow_headers(headers(&self.allow_headers))
            .expose_headers(headers(&self.expose_headers))
            .max_age(Duration::from_secs(self.max_age_s));
        Some(layer)
    }
}

/// As a browser writes it: scheme, host in lower case, port unless it is the usual one.
fn is_origin(text: &str) -> bool {
    let Some(host) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else { return false };
    !host.contains(['/', '@', '*'])
        && !host.chars().any(|character| character.is_ascii_uppercase())
        && host.parse::<axum::http::uri::Authority>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::Config;

    fn problems(origins: &[&str], allow_credentials: bool) -> String {
        let allowed_origin = origins.iter().map(|origin| (*origin).to_owned()).collect();
        Config { allowed_origin, allow_credentials, ..Config::default() }.problems().join("\n")
    }

    #[test]
    fn origins_are_explicit() {
        assert_eq!(problems(&[], true), "");
        assert_eq!(problems(&["https://a.example", "http://[::1]:8080", "http://localhost:3000"], true), "");
        assert_eq!(problems(&["*"], false), "");
        assert!(problems(&["*"], true).contains("credentials"));
        assert!(problems(&["*", "https://a.example"], false).contains("alone"));
        for bad in [
            "",
            "null",
            "a.example",
            "https://",
            "https://a.example/",
            "https://*.example",
            "https://A.example",
            "ftp://a",
        ] {
            assert!(problems(&[bad], true).contains(&format!("\"{bad}\"")), "{bad}");
        }
    }

    #[test]
    fn off_by_default() {
        assert!(Config::default().layer().is_none());
        let odd = Config { allow_methods: vec!["A B".into()], expose_headers: vec!["a:".into()], ..Config::default() };
        assert_eq!(odd.problems().len(), 2);
    }
}
