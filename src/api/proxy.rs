//! What proxies in front say about a client: believed of those alone that the operator trusts.

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::header::{FORWARDED, HOST};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// How the client reached the outermost proxy; after [`admit`], `https` or `http` and to be believed.
pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Everything that could be forged.
const HEADERS: [HeaderName; 4] = [FORWARDED, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO];

/// Who sent a request: the other end of the connection, or the client that trusted proxies name.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientAddress(pub(super) IpAddr);

/// Reads what the proxies say, and leaves in the request only what is to be believed: the client's address
/// as an extension, `Host` and `X-Forwarded-Proto` as the client would have written them. `secure`: the connection itself
/// is of TLS.
pub(super) fn admit(request: &mut Request, peer: IpAddr, trusted: &[IpNet], secure: bool) {
    let told = told(request.headers(), peer.to_canonical(), trusted);
    let headers = request.headers_mut();
    for name in HEADERS {
        headers.remove(name);
    }
    if let Some(host) = told.host.and_then(|host| HeaderValue::from_str(&host).ok()) {
        headers.insert(HOST, host);
    }
    if let Some(scheme) = told.scheme.or(secure.then_some("https")) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    request.extensions_mut().insert(ClientAddress(told.address));
}

/// What is known of a client.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    address: IpAddr,
    scheme: Option<&'static str>,
    host: Option<String>,
}

/// One proxy's word about the one that it got the request from.
#[derive(Default)]
struct Hop {
    address: Option<IpAddr>,
    scheme: Option<&'static str>,
    host: Option<String>,
}

/// Goes back from the nearest proxy for as long as each is trusted: what lies beyond, anybody could have written.
fn told(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> Told {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    let mut told = Told { address: peer, scheme: None, host: None };
    if !is_trusted(peer) {
        return told;
    }
    let standard: Vec<Hop> = values(headers, &FORWARDED).map(hop).collect();
    let hops = if standard.is_empty() { customary(headers) } else { standard };
    for hop in hops.into_iter().rev() {
        told.scheme = hop.scheme.or(told.scheme);
        told.host = hop.host.or(told.host);
        match hop.address {
            Some(address) => told.address = address,
            // A proxy that hides who is behind it.
            None => break,
        }
        if !is_trusted(told.address) {
            break;
        }
    }
    told
}

/// The elements of a header's list, in order, from all its lines.
fn values<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|value| !value.is_empty())
}

/// An element of `Forwarded` (RFC 7239).
fn hop(element: &str) -> Hop {
    let mut hop = Hop::default();
    for (name, value) in element.split(';').filter_map(|pair| pair.split_once('=')) {
        let value = value.trim().trim_matches('"');
        match name.trim().to_ascii_lowercase().as_str() {
            "for" => hop.address = address(value),
            "proto" => hop.scheme = scheme(value),
            "host" => hop.host = Some(value.to_owned()),
            _ => {}
        }
    }
    hop
}

/// `X-Forwarded-For` is a list like `Forwarded`; of the others, the nearest proxy's word counts.
fn customary(headers: &HeaderMap) -> Vec<Hop> {
    let of = |address| Hop { address, ..Hop::default() };
    let mut hops: Vec<Hop> = values(headers, &FORWARDED_FOR).map(|value| of(address(value))).collect();
    if hops.is_empty() {
        hops.push(of(None));
    }
    if let Some(nearest) = hops.last_mut() {
        nearest.scheme = values(headers, &FORWARDED_PROTO).last().and_then(scheme);
        nearest.host = values(headers, &FORWARDED_HOST).last().map(str::to_owned);
    }
    hops
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

fn scheme(text: &str) -> Option<&'static str> {
    ["https", "http"].into_iter().find(|scheme| scheme.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::{any, proptest};

    use super::{Told, told};

    fn tell(headers: &[(&str, &str)], peer: &str) -> Told {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
            .fold(HeaderMap::new(), |mut all, (name, value)| {
                all.append(name, value);
                all
            });
        told(&headers, peer.parse().unwrap(), &["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()])
    }

    fn is(address: &str, scheme: Option<&'static str>, host: Option<&str>) -> Told {
        Told { address: address.parse().unwrap(), scheme, host: host.map(str::to_owned) }
    }

    #[test]
    fn strangers_are_not_believed() {
        let forged = [
            ("forwarded", "for=1.2.3.4;proto=https;host=evil"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(tell(&forged, "192.0.2.1"), is("192.0.2.1", None, None));
        // What a stranger wrote before the first proxy is not believed either.
        let chained = [("x-forwarded-for", "6.6.6.6, 192.0.2.1, 10.0.0.2"), ("x-forwarded-proto", "https")];
        assert_eq!(tell(&chained, "10.0.0.1"), is("192.0.2.1", Some("https"), None));
        let chained = [
            ("forwarded", "for=6.6.6.6;host=evil, for=192.0.2.1;proto=https;host=good"),
            ("forwarded", "for=10.0.0.2;proto=http"),
        ];
        assert_eq!(tell(&chained, "10.0.0.1"), is("192.0.2.1", Some("https"), Some("good")));
    }

    #[test]
    fn every_way_to_write_it_is_read() {
        for (value, address) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:4711", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(tell(&[("x-forwarded-for", value)], "fd00::1"), is(address, None, None));
            let forwarded = format!("For=\"{value}\"; Proto=HTTPS ;by=_hidden");
            assert_eq!(tell(&[("forwarded", &forwarded)], "10.1.1.1"), is(address, Some("https"), None));
        }
        // A hidden client is as far as the nearest proxy.
        assert_eq!(tell(&[("forwarded", "for=unknown;proto=https")], "10.1.1.1"), is("10.1.1.1", Some("https"), None));
        let bare = [("x-forwarded-proto", "ftp, https"), ("x-forwarded-host", "image.example.org")];
        assert_eq!(tell(&bare, "10.1.1.1"), is("10.1.1.1", Some("https"), Some("image.example.org")));
        assert_eq!(tell(&[("x-forwarded-proto", "gopher")], "10.1.1.1"), is("10.1.1.1", None, None));
    }

    proptest! {
        #[test]
        fn nothing_written_panics(text in any::<Vec<u8>>()) {
            let Ok(value) = HeaderValue::from_bytes(&text) else { return Ok(()) };
            for name in super::HEADERS {
                let headers = HeaderMap::from_iter([(name, value.clone())]);
                let _ = told(&headers, [10, 0, 0, 1].into(), &["10.0.0.0/8".parse().unwrap()]);
            }
        }
    }
}
