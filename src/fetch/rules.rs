//! What may be fetched from where: the operator's lists, by Glance's names, and the addresses that no list is needed for.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Config;
use super::address::Kind;
use super::target::{Host, Scheme, Target};
use crate::domain::Refusal;

/// An allow list, which counts alone unless it is empty, and a deny list.
#[derive(Debug, Clone)]
struct Lists<T> {
    allowed: Vec<T>,
    disallowed: Vec<T>,
}

impl<T> Lists<T> {
    fn permit(&self, is: impl Fn(&T) -> bool) -> bool {
        if self.allowed.is_empty() { !self.disallowed.iter().any(is) } else { self.allowed.iter().any(is) }
    }
}

/// A host in a list.
#[derive(Debug, Clone)]
enum Listed {
    Name(String),
    Network(IpNet),
}

impl Listed {
    fn is(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Name(listed), Host::Name(name)) => listed == name,
            (Self::Network(network), Host::Address(address)) => network.contains(address),
            _ => false,
        }
    }

    fn has(&self, address: IpAddr) -> bool {
        matches!(self, Self::Network(network) if network.contains(&address))
    }
}

/// What may be fetched from where.
#[derive(Debug, Clone)]
pub struct Rules {
    schemes: Lists<Scheme>,
    hosts: Lists<Listed>,
    ports: Lists<u16>,
    allowed_networks: Vec<IpNet>,
    allow_private_networks: bool,
}

impl Rules {
    /// # Errors
    /// Everything that is wrong with the lists, a sentence each.
    pub fn new(config: &Config) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut schemes =
            |option: &str, texts: &[String]| read(option, texts, "http or https", &mut problems, Scheme::parse);
        let schemes = Lists {
            allowed: schemes("allowed_schemes", &config.allowed_schemes),
            disallowed: schemes("disallowed_schemes", &config.disallowed_schemes),
        };
        let mut hosts = |option: &str, texts: &[String]| {
            read(option, texts, "names, addresses or networks such as 10.0.0.0/8", &mut problems, |text| {
                let name =
                    || Host::parse(text).ok().and_then(|host| matches!(host, Host::Name(_)).then(|| host.to_string()));
                network(text).map(Listed::Network).or_else(|| name().map(Listed::Name))
            })
        };
        let hosts = Lists {
            allowed: hosts("allowed_hosts", &config.allowed_hosts),
            disallowed: hosts("disallowed_hosts", &config.disallowed_hosts),
        };
        let allowed_networks = read(
            "allowed_networks",
            &config.allowed_networks,
            "addresses or networks such as fd00::/8",
            &mut problems,
            network,
        );
        let ports = Lists { allowed: config.allowed_ports.clone(), disallowed: config.disallowed_ports.clone() };
        let allow_private_networks = config.allow_private_networks;
        if problems.is_empty() {
            Ok(Self { schemes, hosts, ports, allowed_networks, allow_private_networks })
        } else {
            Err(problems)
        }
    }

    /// Looks at a URL alone and asks nobody: scheme, host, port, and the address if the host is one.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] with the rule that was broken. The text does not repeat the URL, which may hold secrets.
    pub fn check(&self, url: &str) -> Result<Target, Refusal> {
        let invalid = |why: String| Refusal::Invalid(format!("Invalid URL: uri {why}."));
        let target = Target::parse(url).map_err(invalid)?;
        let refused = if !self.schemes.permit(|scheme| *scheme == target.scheme) {
            Some(format!("is of the scheme {}", target.scheme.as_str()))
        } else if !self.hosts.permit(|listed| listed.is(&target.host)) {
            Some(format!("names the host {}", target.host))
        } else if !self.ports.permit(|port| *port == target.port) {
            Some(format!("names the port {}", target.port))
        } else {
            match target.host {
                Host::Address(address) => self.refusal(&target.host, address).map(|kind| format!("names {kind}")),
                Host::Name(_) => None,
            }
        };
        match refused {
            Some(what) => Err(invalid(format!("{what}, which does not pass filtering"))),
            None => Ok(target),
        }
    }

    /// Those of the addresses that `host` has which may be connected to.
    ///
    /// # Errors
    /// There is none; which kind of address there is instead.
    pub fn permitted(&self, host: &Host, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, String> {
        let (mut permitted, mut refused) = (Vec::new(), None);
        for address in addresses {
            match self.refusal(host, *address) {
                None => permitted.push(*address),
                Some(kind) => refused = Some(kind),
            }
        }
        match refused {
            Some(kind) if permitted.is_empty() => {
                Err(format!("The host {host} has {kind}, which does not pass filtering."))
            }
            _ => Ok(permitted),
        }
    }

    /// Why `address`, which `host` is or has, may not be connected to. Whoever lists a host means its addresses, too.
    fn refusal(&self, host: &Host, address: IpAddr) -> Option<String> {
        if !self.hosts.allowed.is_empty() {
            return (!self.hosts.allowed.iter().any(|listed| listed.is(host)))
                .then(|| "an address that is not listed".to_owned());
        }
        if self.hosts.disallowed.iter().any(|listed| listed.has(address)) {
            return Some("an address that is listed as disallowed".to_owned());
        }
        if self.allowed_networks.iter().any(|network| network.contains(&address)) {
            return None;
        }
        match Kind::of(address) {
            Kind::Public => None,
            Kind::Private if self.allow_private_networks => None,
            kind => Some(kind.to_string()),
        }
    }
}

/// A network, or the one of a single address.
fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn read<T>(
    option: &str,
    texts: &[String],
    what: &str,
    problems: &mut Vec<String>,
    parse: impl Fn(&str) -> Option<T>,
) -> Vec<T> {
    let mut values = Vec::new();
    for text in texts {
        match parse(text) {
            Some(value) => values.push(value),
            None => problems.push(format!("fetch.{option} must be {what}, not \"{text}\"")),
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{Config, Rules};

    fn rules(change: impl FnOnce(&mut Config)) -> Rules {
        let mut config = Config::default();
        change(&mut config);
        Rules::new(&config).unwrap()
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[track_caller]
    fn check(rules: &Rules, permitted: &[&str], refused: &[&str]) {
        for url in permitted {
            assert!(rules.check(url).is_ok(), "{url}: {:?}", rules.check(url));
        }
        for url in refused {
            assert!(rules.check(url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_defaults_are_glances_and_stricter_about_addresses() {
        check(
            &rules(|_| {}),
            &[
                "http://example.org/a",
                "https://example.org/a?b",
                "https://example.org:80/",
                "http://10.0.0.5/a",
                "http://192.168.1.1/",
                "https://[2606:4700::1111]/",
            ],
            &[
                "http://example.org:8080/",
                "ftp://example.org/",
                "http://127.0.0.1/",
                "http://127.99.0.1/",
                "http://169.254.169.254/latest/meta-data/",
                "http://0.0.0.0/",
                "http://100.64.0.1/",
                "http://224.0.0.1/",
                "http://255.255.255.255/",
                "http://[::1]/",
                "http://[::]/",
                "http://[::ffff:127.0.0.1]/",
                "http://[::ffff:8.8.8.8]/",
                "http://[fe80::1]/",
                "http://[fd00::1]/",
                "http://[64:ff9b::a00:1]/",
                "http://[2002:7f00:1::]/",
            ],
        );
    }

    #[test]
    fn an_allow_list_disables_its_deny_list() {
        let both = rules(|config| {
            config.allowed_hosts = strings(&["Mirror.example.org", "192.0.2.0/24", "localhost", "::1"]);
            config.disallowed_hosts = strings(&["mirror.example.org"]);
            config.allowed_ports = vec![8080];
            config.disallowed_ports = vec![8080];
            config.allowed_schemes = strings(&["http"]);
            config.disallowed_schemes = strings(&["http"]);
        });
        check(
            &both,
            &[
                "http://mirror.example.org:8080/",
                "http://MIRROR.example.org.:8080/",
                "http://192.0.2.77:8080/",
                "http://localhost:8080/",
                "http://[::1]:8080/",
            ],
            &[
                "http://mirror.example.org/",
                "https://mirror.example.org:8080/",
                "http://example.org:8080/",
                "http://127.0.0.1:8080/",
            ],
        );
        let deny = rules(|config| {
            config.disallowed_hosts = strings(&["evil.example.org", "10.1.0.0/16"]);
            config.allowed_ports = Vec::new();
            config.disallowed_ports = vec![22];
            config.allowed_schemes = Vec::new();
            config.disallowed_schemes = strings(&["http"]);
        });
        check(
            &deny,
            &["https://example.org:8443/", "https://10.2.0.1/"],
            &["http://example.org/", "https://evil.example.org/", "https://10.1.2.3/", "https://example.org:22/"],
        );
    }

    #[test]
    fn resolved_addresses_are_filtered_one_by_one() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let permitted = |rules: &Rules, name: &str, all: &[&str]| {
            rules.permitted(&rules.check(&format!("http://{name}/")).unwrap().host, &addresses(all))
        };
        let usual = rules(|_| {});
        let mixed = ["127.0.0.1", "8.8.8.8", "::1", "10.0.0.1", "2606:4700::1111", "169.254.169.254"];
        assert_eq!(permitted(&usual, "a", &mixed), Ok(addresses(&["8.8.8.8", "10.0.0.1", "2606:4700::1111"])));
        let none = permitted(&usual, "localhost", &["127.0.0.1", "::1"]).unwrap_err();
        assert!(none.contains("localhost") && none.contains("loopback"), "{none}");
        let strict = rules(|config| config.allow_private_networks = false);
        assert_eq!(permitted(&strict, "a", &mixed), Ok(addresses(&["8.8.8.8", "2606:4700::1111"])));
        let opened = rules(|config| config.allowed_networks = strings(&["fd00::/8", "127.0.0.2"]));
        let inner = ["fd12::1", "127.0.0.1", "127.0.0.2"];
        assert_eq!(permitted(&opened, "a", &inner), Ok(addresses(&["fd12::1", "127.0.0.2"])));
        let listed = rules(|config| config.allowed_hosts = strings(&["localhost"]));
        assert_eq!(permitted(&listed, "localhost", &["127.0.0.1"]), Ok(addresses(&["127.0.0.1"])));
        let denied = rules(|config| config.disallowed_hosts = strings(&["8.8.0.0/16"]));
        assert_eq!(permitted(&denied, "a", &["8.8.8.8", "9.9.9.9"]), Ok(addresses(&["9.9.9.9"])));
    }

    #[test]
    fn lists_that_cannot_be_read_are_named() {
        let config = Config {
            allowed_schemes: strings(&["file"]),
            disallowed_hosts: strings(&["http://example.org", "127.1"]),
            allowed_networks: strings(&["example.org"]),
            ..Config::default()
        };
        let problems = Rules::new(&config).unwrap_err().join("\n");
        for expected in ["allowed_schemes", "file", "disallowed_hosts", "http://", "127.1", "allowed_networks"] {
            assert!(problems.contains(expected), "{expected}: {problems}");
        }
    }
}
