use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where an address is. Only [`Self::Public`] may be reached by a tool that says nothing else;
/// [`Self::Never`] by none.
///
/// After the special-purpose registries of IANA (RFC 6890 and its updates).
///
/// # Examples
/// ```
/// use sovereign_effects::tools::Network;
/// let of = |text: &str| Network::of(text.parse().unwrap());
/// assert_eq!(of("93.184.215.14"), Network::Public);
/// assert_eq!(of("::ffff:10.0.0.1"), Network::Private);
/// assert_eq!(of("169.254.169.254"), Network::Metadata);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// The Internet. It need not be named.
    #[serde(skip_deserializing)]
    Public,
    /// This machine.
    Loopback,
    /// 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fc00::/7.
    Private,
    /// Between a provider and its customers: 100.64.0.0/10.
    Shared,
    /// 169.254.0.0/16, fe80::/10.
    LinkLocal,
    /// Where clouds hand out credentials.
    Metadata,
    /// Multicast, broadcast, documentation, reserved, unspecified.
    #[serde(skip_deserializing)]
    Never,
}

impl Network {
    /// Where the address is. IPv6 addresses that stand for an IPv4 address count as that.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => of_v6(address),
        }
    }

    /// As in `reach`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::Shared => "shared",
            Self::LinkLocal => "link-local",
            Self::Metadata => "metadata",
            Self::Never => "reserved",
        }
    }
}

/// AWS and most others; Alibaba; Azure's host; Oracle's.
const METADATA_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];

/// AWS.
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

fn of_v4(address: Ipv4Addr) -> Network {
    let [a, b, c, _] = address.octets();
    if METADATA_V4.contains(&address) {
        return Network::Metadata;
    }
    match (a, b, c) {
        (127, ..) => Network::Loopback,
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Network::Private,
        (100, 64..=127, _) => Network::Shared,
        (169, 254, _) => Network::LinkLocal,
        // this network, protocol assignments, 6to4 relays, documentation, benchmarks, multicast,
        // reserved and broadcast
        (0 | 224..=255, ..)
        | (192, 0, 0 | 2)
        | (192, 88, 99)
        | (198, 18..=19, _)
        | (198, 51, 100)
        | (203, 0, 113) => Network::Never,
        _ => Network::Public,
    }
}

fn of_v6(address: Ipv6Addr) -> Network {
    if address == METADATA_V6 {
        return Network::Metadata;
    }
    if address.is_loopback() {
        return Network::Loopback;
    }
    if let Some(inner) = address.to_ipv4_mapped() {
        return of_v4(inner);
    }
    let parts = address.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        of_v4(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        // NAT64 (RFC 6052) and 6to4 (RFC 3056) lead to the IPv4 address within
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
        [0xfc00..=0xfdff, ..] => Network::Private,
        [0xfe80..=0xfebf, ..] => Network::LinkLocal,
        // protocol assignments with Teredo; documentation
        [0x2001, 0..=0x01ff, ..] | [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => {
            Network::Never
        }
        [0x2000..=0x3fff, ..] => Network::Public,
        _ => Network::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_known_in_every_notation() {
        let cases: [(&str, Network); 45] = [
            ("8.8.8.8", Network::Public),
            ("99.255.255.255", Network::Public),
            ("100.128.0.0", Network::Public),
            ("172.15.255.255", Network::Public),
            ("172.32.0.0", Network::Public),
            ("223.255.255.255", Network::Public),
            ("2606:4700:4700::1111", Network::Public),
            ("127.0.0.1", Network::Loopback),
            ("127.255.255.254", Network::Loopback),
            ("::1", Network::Loopback),
            ("::ffff:127.0.0.1", Network::Loopback),
            ("64:ff9b::7f00:1", Network::Loopback),
            ("2002:7f00:1::", Network::Loopback),
            ("10.0.0.1", Network::Private),
            ("172.16.0.1", Network::Private),
            ("172.31.255.255", Network::Private),
            ("192.168.1.1", Network::Private),
            ("fc00::1", Network::Private),
            ("fdff::1", Network::Private),
            ("::ffff:192.168.0.1", Network::Private),
            ("64:ff9b::a00:1", Network::Private),
            ("100.64.0.1", Network::Shared),
            ("100.127.255.255", Network::Shared),
            ("169.254.0.1", Network::LinkLocal),
            ("fe80::1", Network::LinkLocal),
            ("169.254.169.254", Network::Metadata),
            ("::ffff:169.254.169.254", Network::Metadata),
            ("100.100.100.200", Network::Metadata),
            ("168.63.129.16", Network::Metadata),
            ("fd00:ec2::254", Network::Metadata),
            ("0.0.0.0", Network::Never),
            ("0.1.2.3", Network::Never),
            ("192.0.2.1", Network::Never),
            ("198.18.0.1", Network::Never),
            ("198.51.100.1", Network::Never),
            ("203.0.113.1", Network::Never),
            ("224.0.0.1", Network::Never),
            ("240.0.0.1", Network::Never),
            ("255.255.255.255", Network::Never),
            ("::", Network::Never),
            ("::7f00:1", Network::Never),
            ("ff02::1", Network::Never),
            ("2001::1", Network::Never),
            ("2001:db8::1", Network::Never),
            ("fec0::1", Network::Never),
        ];
        for (text, expected) in cases {
            assert_eq!(Network::of(text.parse().unwrap()), expected, "{text}");
        }
    }
}
