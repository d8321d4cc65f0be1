//! Through whom servers are asked: the operator's HTTP proxies, and for whom they are left out.

use std::net::IpAddr;

use hyper::header::HeaderValue;
use ipnet::IpNet;
use percent_encoding::percent_decode_str;

use super::Config;
use super::target::{Host, Scheme, Target};

/// An HTTP proxy.
#[derive(Debug, Clone)]
pub(super) struct Proxy {
    pub(super) host: Host,
    pub(super) port: u16,
    /// Value of `Proxy-Authorization`; no log shows it.
    pub(super) authorization: Option<HeaderValue>,
}

impl Proxy {
    /// Reads `http://user:password@host:port`.
    ///
    /// # Errors
    /// What is wrong with it, as the rest of a sentence; without the password.
    fn parse(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("http://").ok_or("must be a URL such as http://proxy.example.org:3128")?;
        let (user, rest) = rest.rsplit_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
        let target = Target::parse(&format!("http://{rest}"))?;
        if target.path_and_query() != "/" {
            return Err("must have no path".into());
        }
        let authorization = match user {
            None => None,
            Some(user) => {
                let plain: Vec<u8> = percent_decode_str(user).collect();
                let mut value = HeaderValue::from_str(&format!("Basic {}", openssl::base64::encode_block(&plain)))
                    .map_err(|_| "has a user that no header can carry")?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Self { host: target.host, port: target.port, authorization })
    }
}

/// For whom no proxy is asked.
#[derive(Debug, Clone)]
enum Except {
    Everybody,
    /// The domain and all names below it.
    Domain(String),
    Network(IpNet),
}

impl Except {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Everybody);
        }
        if let Some(network) = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)) {
            return Some(Self::Network(network));
        }
        match Host::parse(text.trim_start_matches('.')) {
            Ok(Host::Name(name)) => Some(Self::Domain(name)),
            _ => None,
        }
    }

    fn covers(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Everybody, _) => true,
            (Self::Domain(domain), Host::Name(name)) => {
                name.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            (Self::Network(network), Host::Address(address)) => network.contains(address),
            _ => false,
        }
    }
}

/// The proxies for each scheme.
#[derive(Debug, Clone, Default)]
pub(super) struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    except: Vec<Except>,
}

impl Proxies {
    /// Those of the configuration, or of `environment` where the configuration says so.
    ///
    /// # Errors
    /// Everything that is wrong, a sentence each.
    pub(super) fn new(config: &Config, environment: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut proxies = Self::default();
        let mut read = |what: &str, url: Option<String>| {
            let url = url.filter(|url| !url.is_empty())?;
            Proxy::parse(&url).map_err(|why| problems.push(format!("{what} {why}"))).ok()
        };
        let except = if config.proxy_from_environment {
            proxies.http = read("the environment's http_proxy", environment("http_proxy"));
            let https = environment("https_proxy").or_else(|| environment("HTTPS_PROXY"));
            proxies.https = read("the environment's https_proxy", https);
            let list = environment("no_proxy").or_else(|| environment("NO_PROXY")).unwrap_or_default();
            list.split(',').map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect()
        } else {
            proxies.http = read("fetch.proxy", config.proxy.as_ref().map(|url| url.expose().to_owned()));
            proxies.https = proxies.http.clone();
            config.no_proxy.clone()
        };
        if config.proxy_from_environment && config.proxy.is_some() {
            problems.push("fetch.proxy and fetch.proxy_from_environment exclude each other".into());
        }
        for text in except {
            match Except::parse(&text) {
                Some(except) => proxies.except.push(except),
                // Other programs read the environment in their own ways.
                None if config.proxy_from_environment => {}
                None => problems.push(format!("fetch.no_proxy must be domains, addresses or networks, not \"{text}\"")),
            }
        }
        if problems.is_empty() { Ok(proxies) } else { Err(problems) }
    }

    /// Whom to ask for `target`; `None`: the server itself.
    pub(super) fn of(&self, target: &Target) -> Option<&Proxy> {
        let proxy = match target.scheme {
            Scheme::Http => &self.http,
            Scheme::Https => &self.https,
        };
        proxy.as_ref().filter(|_| !self.except.iter().any(|except| except.covers(&target.host)))
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, Proxies, Target};
    use crate::secret::Secret;

    fn asked(proxies: &Proxies, url: &str) -> Option<String> {
        proxies.of(&Target::parse(url).unwrap()).map(|proxy| format!("{}:{}", proxy.host, proxy.port))
    }

    #[test]
    fn exceptions_are_domains_addresses_and_networks() {
        let config = Config {
            proxy: Some(Secret::new("http://me:pa%40ss@proxy.example.org:3128")),
            no_proxy: [".inner.example.org", "mirror", "10.0.0.0/8"].map(str::to_owned).to_vec(),
            ..Config::default()
        };
        let proxies = Proxies::new(&config, |_| Some("http://ignored:1".into())).unwrap();
        for url in ["http://a.inner.example.org/", "https://inner.example.org/", "http://mirror/", "http://10.1.2.3/"] {
            assert_eq!(asked(&proxies, url), None, "{url}");
        }
        for url in ["http://notinner.example.org/", "https://example.org/", "http://11.1.2.3/"] {
            assert_eq!(asked(&proxies, url).as_deref(), Some("proxy.example.org:3128"), "{url}");
        }
        assert!(!format!("{proxies:?}").contains("bWU6"), "{proxies:?}");
        let authorization = proxies.http.unwrap().authorization.unwrap();
        assert_eq!(authorization.to_str().unwrap(), "Basic bWU6cGFAc3M=");
    }

    #[test]
    fn the_environment_counts_only_when_it_is_asked_for() {
        let environment = |name: &str| match name {
            "http_proxy" => Some("http://a:1".to_owned()),
            "HTTPS_PROXY" => Some("http://b:2".to_owned()),
            "no_proxy" => Some("localhost, *.odd, 127.0.0.1".to_owned()),
            _ => None,
        };
        let off = Proxies::new(&Config::default(), environment).unwrap();
        assert_eq!(asked(&off, "http://c/"), None);
        let on = Proxies::new(&Config { proxy_from_environment: true, ..Config::default() }, environment).unwrap();
        assert_eq!(asked(&on, "http://c/").as_deref(), Some("a:1"));
        assert_eq!(asked(&on, "https://c/").as_deref(), Some("b:2"));
        assert_eq!(asked(&on, "http://localhost/"), None);
        let wrong = Config { proxy: Some(Secret::new("socks5://x:secret@y")), ..Config::default() };
        let problems = Proxies::new(&wrong, |_| None).unwrap_err().join(" ");
        assert!(problems.contains("fetch.proxy") && !problems.contains("secret"), "{problems}");
    }
}
