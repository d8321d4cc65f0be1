//! Where a request goes: a URL, taken apart once. What was checked is what is connected to; nobody reads the text again.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use hyper::Uri;

/// Longest URL, in bytes.
pub const URL_BYTES_MAX: usize = 8192;
/// Longest DNS name and label, in bytes.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// Protocol of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As it stands in URLs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        [Self::Http, Self::Https].into_iter().find(|scheme| scheme.as_str().eq_ignore_ascii_case(text))
    }

    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Whom a URL names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An address, in its standard form.
    Address(IpAddr),
    /// A name for DNS, in lower case, without the dot of the root.
    Name(String),
}

impl Host {
    /// Reads the host of a URL; IPv6 addresses stand in brackets.
    ///
    /// # Errors
    /// Why it is none, as the rest of a sentence about it.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(text) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            let address = text.parse::<Ipv6Addr>().map_err(|_| "has brackets around what is no IPv6 address")?;
            return Ok(Self::Address(address.into()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let letters = |label: &str| label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        let labels = || name.split('.');
        if !name.is_ascii() {
            return Err("is no name of DNS; one with other letters than ASCII's is written as xn--...");
        }
        if name.len() > NAME_BYTES_MAX || labels().any(|l| l.is_empty() || l.len() > LABEL_BYTES_MAX || !letters(l)) {
            return Err("is neither a name of DNS nor an IP address");
        }
        // What a system may take for an IPv4 address: 2130706433, 0x7f.1, 0177.0.0.1.
        let last = labels().next_back().unwrap_or_default();
        let hex = last.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("0x"));
        if hex || last.bytes().all(|b| b.is_ascii_digit()) {
            return Err("looks like an encoded address; write it as four decimal numbers, such as 192.0.2.1");
        }
        Ok(Self::Name(name.to_ascii_lowercase()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A URL of http or https. It is shown without path and query, which may hold secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Protocol.
    pub scheme: Scheme,
    /// Server.
    pub host: Host,
    /// Port, also where the URL leaves it out.
    pub port: u16,
    /// Path and query.
    path: String,
}

impl Target {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// What is wrong with it, as the rest of a sentence about it. The text does not repeat it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > URL_BYTES_MAX {
            return Err(format!("is longer than {URL_BYTES_MAX} bytes"));
        }
        let uri = text.parse::<Uri>().map_err(|e| format!("is no URL: {e}"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err("is no URL; it must begin with http:// or https://".into());
        };
        let scheme = Scheme::parse(scheme).ok_or("must begin with http:// or https://")?;
        if authority.as_str().contains('@') {
            return Err("has a user or password in it, which would be stored and shown".into());
        }
        let host = Host::parse(authority.host()).map_err(|why| format!("has a host that {why}"))?;
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => scheme.port(),
            _ => authority.port_u16().filter(|port| *port > 0).ok_or("has a port that is none")?,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        // "http://host?query" has no path.
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { scheme, host, port, path })
    }

    /// The URL that a `Location` header of this one's answer means (RFC 3986, 5.2).
    pub fn join(&self, reference: &str) -> String {
        let reference = reference.split('#').next().unwrap_or_default();
        let scheme = self.scheme.as_str();
        let origin = format!("{scheme}://{}:{}", self.host, self.port);
        let path = self.path();
        let absolute = reference.split_once(':').is_some_and(|(scheme, _)| {
            !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        });
        if absolute {
            reference.to_owned()
        } else if reference.starts_with("//") {
            format!("{scheme}:{reference}")
        } else if reference.starts_with('/') {
            format!("{origin}{reference}")
        } else if reference.is_empty() || reference.starts_with('?') {
            format!("{origin}{path}{reference}")
        } else {
            let folder = path.rfind('/').map_or("/", |end| &path[..=end]);
            let (relative, query) = reference.find('?').map_or((reference, ""), |at| reference.split_at(at));
            format!("{origin}{}{query}", without_dots(&format!("{folder}{relative}")))
        }
    }

    /// Path without query.
    pub fn path(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// What stands in the first line of a request to the server itself.
    pub fn path_and_query(&self) -> &str {
        &self.path
    }

    /// `host:port`, for a proxy.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The header `Host`.
    pub fn host_header(&self) -> String {
        if self.port == self.scheme.port() { self.host.to_string() } else { self.authority() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.host_header())
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}/...")
    }
}

/// A path without its segments "." and "..".
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Host, Target};

    #[test]
    fn a_url_is_taken_apart_once_and_shows_no_secrets() {
        let target = Target::parse("HTTPS://Mirror.Example.org:8443/a/b?token=secret#part").unwrap();
        assert_eq!(target.host, Host::Name("mirror.example.org".into()));
        assert_eq!((target.port, target.path_and_query()), (8443, "/a/b?token=secret"));
        assert_eq!(format!("{target} {target:?}").matches("secret").count(), 0);
        assert_eq!(Target::parse("http://a").unwrap().path_and_query(), "/");
        assert_eq!(Target::parse("http://a?b").unwrap().path_and_query(), "/?b");
        assert_eq!(Target::parse("http://[2606:4700::1]/").unwrap().authority(), "[2606:4700::1]:80");
        assert_eq!(Target::parse("https://localhost./").unwrap().host, Host::Name("localhost".into()));
    }

    #[test]
    fn what_is_no_plain_url_is_refused() {
        for text in [
            "",
            "/etc/passwd",
            "example.org/x",
            "file:///etc/passwd",
            "ftp://example.org/",
            "http:///x",
            "http://user@example.org/",
            "http://user:secret@example.org/",
            "http://example.org:0/",
            "http://example.org:/",
            "http://example.org:99999/",
            "http://example.org:80x/",
            "http://exa mple.org/",
            "http://example.org/\r\nHost: x",
            "http://ex%61mple.org/",
            "http://-/../",
            "http://a..b/",
            "http://\u{2460}27.0.0.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://127.0.0.1./",
            "http://127.0.0.01/",
            "http://[127.0.0.1]/",
            "http://[::1%25lo]/",
            "http://[::ffff:0x7f.1]/",
            "http://[::1/",
        ] {
            let refused = Target::parse(text);
            // A host of one hyphen is odd, and harmless.
            assert!(refused.is_err() || text.contains("://-/"), "{text}: {refused:?}");
            assert!(!refused.err().unwrap_or_default().contains("secret"));
        }
        assert!(Target::parse(&format!("http://example.org/{}", "a".repeat(9000))).is_err());
    }

    #[test]
    fn a_redirect_is_read_as_the_rfc_says() {
        let base = Target::parse("http://a:8080/b/c/d;p?q").unwrap();
        for (reference, url) in [
            ("https://g/x", "https://g/x"),
            ("//g/x", "http://g/x"),
            ("/g", "http://a:8080/g"),
            ("g", "http://a:8080/b/c/g"),
            ("g/", "http://a:8080/b/c/g/"),
            ("./g?y/../x", "http://a:8080/b/c/g?y/../x"),
            ("../g", "http://a:8080/b/g"),
            ("../../../g", "http://a:8080/g"),
            ("..", "http://a:8080/b/"),
            ("?y", "http://a:8080/b/c/d;p?y"),
            ("#s", "http://a:8080/b/c/d;p"),
            ("g#s", "http://a:8080/b/c/g"),
        ] {
            assert_eq!(base.join(reference), url, "{reference}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text: String, reference: String) {
            let _ = Target::parse(&text);
            let base = Target::parse("http://a/b").unwrap();
            let _ = Target::parse(&base.join(&reference));
            let _ = Target::parse(&format!("http://{text}/"));
        }

        /// What the system's resolver would take for an IPv4 address is refused, or is that address in its standard form.
        #[test]
        fn every_spelling_of_an_ipv4_address_is_known(bits: u32, form in 0..7) {
            let [a, b, c, d] = bits.to_be_bytes();
            let (host, standard) = match form {
                0 => (format!("{a}.{b}.{c}.{d}"), true),
                1 => (format!("{bits}"), false),
                2 => (format!("0x{bits:x}"), false),
                3 => (format!("0X{a:x}.{b}.{c}.0x{d:X}"), false),
                4 => (format!("{a}.{b}.{}", u16::from_be_bytes([c, d])), false),
                5 => (format!("0{a:o}.{b}.{c}.0{d:o}"), false),
                _ => (format!("0{bits:o}"), false),
            };
            prop_assert_eq!(Target::parse(&format!("http://{host}/")).is_ok(), standard, "{}", host);
        }
    }
}
