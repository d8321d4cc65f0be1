//! What an address stands for: whoever connects on behalf of others must not be led into their own house.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// Kind of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Anybody's on the Internet.
    Public,
    /// RFC 1918's: a site's own.
    Private,
    /// The machine itself.
    Loopback,
    /// Of the same wire; clouds have their metadata service there.
    LinkLocal,
    /// "This host", or "this network".
    Unspecified,
    /// Many at once.
    Multicast,
    /// Carrier-grade NAT's (RFC 6598).
    Shared,
    /// IPv6's private ones (RFC 4193), and the site-local ones before them.
    UniqueLocal,
    /// An IPv6 address that stands for an IPv4 one: mapped, compatible, translated or tunnelled. What it leads to
    /// depends on the network, so that no list can judge it.
    Embedded,
    /// For documents, tests and the future.
    Reserved,
}

impl Kind {
    /// Kind of `address`.
    pub(super) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => {
                V4.iter().find(|(network, _)| network.contains(&address)).map_or(Self::Public, |(_, kind)| *kind)
            }
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        let special = V6.iter().find(|(network, _)| network.contains(&address)).map(|(_, kind)| *kind);
        match special {
            Some(kind) => kind,
            // ISATAP (RFC 5214) has its IPv4 address behind this identifier, below any prefix.
            None if matches!(address.segments()[4..6], [0x0000 | 0x0200, 0x5efe]) => Self::Embedded,
            None if GLOBAL_V6.contains(&address) => Self::Public,
            None => Self::Reserved,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "a public address",
            Self::Private => "a private address",
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Unspecified => "an unspecified address",
            Self::Multicast => "a multicast address",
            Self::Shared => "an address of carrier-grade NAT",
            Self::UniqueLocal => "a unique-local address",
            Self::Embedded => "an IPv6 address that stands for an IPv4 one",
            Self::Reserved => "a reserved address",
        })
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, c: u16, d: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), prefix)
}

/// IANA's special IPv4 networks. None lies within another.
const V4: [(Ipv4Net, Kind); 15] = [
    (v4(0, 0, 0, 0, 8), Kind::Unspecified),
    (v4(10, 0, 0, 0, 8), Kind::Private),
    (v4(100, 64, 0, 0, 10), Kind::Shared),
    (v4(127, 0, 0, 0, 8), Kind::Loopback),
    (v4(169, 254, 0, 0, 16), Kind::LinkLocal),
    (v4(172, 16, 0, 0, 12), Kind::Private),
    (v4(192, 0, 0, 0, 24), Kind::Reserved),
    (v4(192, 0, 2, 0, 24), Kind::Reserved),
    // The relays of 6to4.
    (v4(192, 88, 99, 0, 24), Kind::Reserved),
    (v4(192, 168, 0, 0, 16), Kind::Private),
    (v4(198, 18, 0, 0, 15), Kind::Reserved),
    (v4(198, 51, 100, 0, 24), Kind::Reserved),
    (v4(203, 0, 113, 0, 24), Kind::Reserved),
    (v4(224, 0, 0, 0, 4), Kind::Multicast),
    (v4(240, 0, 0, 0, 4), Kind::Reserved),
];

/// All that IANA has given out for the Internet.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 0, 0, 3);

/// Special IPv6 networks; the first that contains an address counts.
const V6: [(Ipv6Net, Kind); 16] = [
    (Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128), Kind::Unspecified),
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), Kind::Loopback),
    // IPv4-compatible, IPv4-mapped, and IPv4-translated (RFC 2765).
    (v6(0, 0, 0, 0, 96), Kind::Embedded),
    (Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96), Kind::Embedded),
    (Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96), Kind::Embedded),
    // NAT64, well-known and local.
    (v6(0x64, 0xff9b, 0, 0, 96), Kind::Embedded),
    (v6(0x64, 0xff9b, 1, 0, 48), Kind::Embedded),
    // Teredo, then the rest of the protocol assignments, ORCHIDs among them.
    (v6(0x2001, 0, 0, 0, 32), Kind::Embedded),
    (v6(0x2001, 0, 0, 0, 23), Kind::Reserved),
    (v6(0x2001, 0xdb8, 0, 0, 32), Kind::Reserved),
    // 6to4.
    (v6(0x2002, 0, 0, 0, 16), Kind::Embedded),
    (v6(0x3fff, 0, 0, 0, 20), Kind::Reserved),
    (v6(0xfc00, 0, 0, 0, 7), Kind::UniqueLocal),
    (v6(0xfe80, 0, 0, 0, 10), Kind::LinkLocal),
    (v6(0xfec0, 0, 0, 0, 10), Kind::UniqueLocal),
    (v6(0xff00, 0, 0, 0, 8), Kind::Multicast),
];

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::Kind;

    #[test]
    fn every_special_network_is_known() {
        for (text, kind) in [
            ("1.1.1.1", Kind::Public),
            ("9.255.255.255", Kind::Public),
            ("11.0.0.0", Kind::Public),
            ("10.1.2.3", Kind::Private),
            ("172.15.255.255", Kind::Public),
            ("172.16.0.1", Kind::Private),
            ("172.32.0.0", Kind::Public),
            ("192.168.255.255", Kind::Private),
            ("100.63.255.255", Kind::Public),
            ("100.64.0.1", Kind::Shared),
            ("100.127.255.255", Kind::Shared),
            ("100.128.0.0", Kind::Public),
            ("127.8.8.8", Kind::Loopback),
            ("169.254.169.254", Kind::LinkLocal),
            ("0.0.0.0", Kind::Unspecified),
            ("0.1.2.3", Kind::Unspecified),
            ("224.0.0.1", Kind::Multicast),
            ("239.255.255.255", Kind::Multicast),
            ("240.0.0.1", Kind::Reserved),
            ("255.255.255.255", Kind::Reserved),
            ("198.19.0.1", Kind::Reserved),
            ("192.0.2.1", Kind::Reserved),
            ("2606:4700::1111", Kind::Public),
            ("2a00:1450:4001::1", Kind::Public),
            ("::", Kind::Unspecified),
            ("::1", Kind::Loopback),
            ("::2", Kind::Embedded),
            ("::7f00:1", Kind::Embedded),
            ("::ffff:8.8.8.8", Kind::Embedded),
            ("::ffff:0:7f00:1", Kind::Embedded),
            ("64:ff9b::127.0.0.1", Kind::Embedded),
            ("64:ff9b:1:2::3", Kind::Embedded),
            ("2001::1", Kind::Embedded),
            ("2001:20::1", Kind::Reserved),
            ("2001:db8::1", Kind::Reserved),
            ("2002:7f00:1::", Kind::Embedded),
            ("2003::1", Kind::Public),
            ("2a00:1450::5efe:7f00:1", Kind::Embedded),
            ("3fff::1", Kind::Reserved),
            ("fd00::1", Kind::UniqueLocal),
            ("fe80::1", Kind::LinkLocal),
            ("fec0::1", Kind::UniqueLocal),
            ("ff02::1", Kind::Multicast),
            ("100::1", Kind::Reserved),
            ("4000::1", Kind::Reserved),
        ] {
            assert_eq!(Kind::of(text.parse().unwrap()), kind, "{text}");
        }
    }

    proptest! {
        /// Whatever the standard library knows to be special is not public here.
        #[test]
        fn what_is_public_is_nothing_else(v4: u32, v6: u128) {
            let v4 = Ipv4Addr::from(v4);
            let special = v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || v4.is_multicast()
                || v4.is_private() || v4.is_broadcast() || v4.is_documentation();
            prop_assert!(!special || Kind::of(v4.into()) != Kind::Public, "{}", v4);
            let v6 = Ipv6Addr::from(v6);
            let special = v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast()
                || v6.is_unique_local() || v6.to_ipv4().is_some();
            prop_assert!(!special || Kind::of(v6.into()) != Kind::Public, "{}", v6);
        }

        /// No IPv4 address gets through in the dress of an IPv6 one.
        #[test]
        fn an_embedded_address_is_seen(v4: u32, rest: u64) {
            let bits = u128::from(v4);
            for address in [
                Ipv4Addr::from(v4).to_ipv6_mapped(),
                Ipv6Addr::from(0x0064_ff9b_u128 << 96 | bits),
                Ipv6Addr::from(0x0064_ff9b_0001_u128 << 80 | u128::from(rest)),
                Ipv6Addr::from(0x2002_u128 << 112 | bits << 80 | u128::from(rest)),
                Ipv6Addr::from(0x2001_0000_u128 << 96 | u128::from(rest) << 32 | bits),
                Ipv6Addr::from(0x2a00_1450_u128 << 96 | 0x5efe_u128 << 32 | bits),
            ] {
                prop_assert_eq!(Kind::of(IpAddr::from(address)), Kind::Embedded, "{}", address);
            }
        }
    }
}
