//! What counts as one address when connections or failed logins are counted.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// An IPv4 address, or the /64 of an IPv6 address: the smallest block that a provider hands to
/// one customer (RFC 6177), who can take a new address in it for every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(IpAddr);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Network {
        // An IPv4 peer of a dual-stack socket appears as ::ffff:a.b.c.d.
        Network(match address.to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & PREFIX_64).into(),
            v4 => v4,
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(v4) => v4.fmt(f),
            IpAddr::V6(v6) => write!(f, "{v6}/64"),
        }
    }
}

const PREFIX_64: u128 = u128::MAX << 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str) -> Network {
        address.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn every_ipv4_address_is_its_own_network() {
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("192.0.2.1").to_string(), "192.0.2.1");
    }

    #[test]
    fn an_ipv4_address_in_ipv6_form_is_the_ipv4_address() {
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("::ffff:192.0.2.1"), network("::ffff:192.0.2.2"));
    }

    #[test]
    fn the_addresses_of_an_ipv6_subnet_are_one_network() {
        let first = network("2001:db8:1:2::1");
        assert_eq!(first, network("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(first, network("2001:db8:1:3::1"));
        assert_eq!(first.to_string(), "2001:db8:1:2::/64");
    }
}
