//! Networks: which addresses count as one client for connections and failed logins, and which
//! proxies `--trusted-proxy` trusts. Also the address at which this host reaches its own listener.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// All addresses of one family that have the same prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    /// The first address; an IPv4 address is stored as ::ffff:a.b.c.d.
    first: u128,
    bits: u32,
}

impl Network {
    /// True if the address belongs to this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        Network::of(address, self.bits) == *self
    }

    /// The network of an address, with a prefix of `bits` or at most the whole address.
    pub fn of(address: IpAddr, bits: u32) -> Network {
        // An IPv4 peer of a dual-stack socket appears as ::ffff:a.b.c.d.
        let (address, bits_max) = match address.to_canonical() {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped(), 32),
            IpAddr::V6(v6) => (v6, 128),
        };
        let bits = bits.min(bits_max);
        let mask = u128::MAX.checked_shl(bits_max - bits).unwrap_or(0);
        Network { first: address.to_bits() & mask, bits }
    }
}

/// Parses an address, or a network such as `172.16.0.0/12`. Refuses host bits, since either number
/// may be the mistake, and `/0`, which includes everybody.
impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Network, ()> {
        let Some((address, bits)) = text.split_once('/') else {
            return Ok(Network::of(text.parse().map_err(drop)?, 128));
        };
        let address = address.parse().map_err(drop)?;
        let network = Network::of(address, bits.parse().map_err(drop)?);
        let whole = network.first == Network::of(address, 128).first;
        let exact = whole && network.bits.to_string() == bits;
        if exact && network.bits > 0 { Ok(network) } else { Err(()) }
    }
}

/// Where this host reaches a listener: 127.0.0.1 if it listens on 0.0.0.0 or [::].
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen.ip().is_unspecified() {
        true => SocketAddr::from((Ipv4Addr::LOCALHOST, listen.port())),
        false => listen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::limits::{LOGIN_NETWORK_BITS, PEER_NETWORK_BITS};

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_ipv4_address_is_a_client_of_its_own() {
        for bits in [PEER_NETWORK_BITS, LOGIN_NETWORK_BITS] {
            let of = |address| Network::of(address, bits);
            assert_ne!(of(address("192.0.2.1")), of(address("192.0.2.2")));
            assert_eq!(of(address("::ffff:192.0.2.1")), of(address("192.0.2.1")));
            assert_ne!(of(address("::ffff:192.0.2.1")), of(address("::ffff:192.0.2.2")));
        }
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_are_one_client() {
        let first = address("2001:db8:1:200::1");
        for (other, peer, login) in [
            ("2001:db8:1:200:ffff:ffff:ffff:ffff", true, true),
            ("2001:db8:1:2ff::1", false, true),
            ("2001:db8:1:300::1", false, false),
        ] {
            for (bits, same) in [(PEER_NETWORK_BITS, peer), (LOGIN_NETWORK_BITS, login)] {
                let of = |address| Network::of(address, bits);
                assert_eq!(of(first) == of(address(other)), same, "{other}");
            }
        }
    }

    #[test]
    fn a_network_holds_the_addresses_that_begin_with_its_bits() {
        for (network, inside, outside) in [
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("192.0.2.1/32", "::ffff:192.0.2.1", "192.0.2.0"),
            ("172.16.0.0/12", "172.31.255.255", "172.32.0.0"),
            ("172.16.0.0/12", "::ffff:172.16.0.0", "::172.16.0.0"),
            ("128.0.0.0/1", "255.255.255.255", "127.255.255.255"),
            ("fd00::/8", "fdff:ffff::1", "fe00::"),
            ("fd00::/8", "fd00::", "253.0.0.1"),
            ("::1", "::1", "127.0.0.1"),
            ("::/64", "::1", "0.0.0.1"),
            ("2001:db8::1/128", "2001:db8::1", "2001:db8::2"),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert!(parsed.contains(address(inside)), "{network} {inside}");
            assert!(!parsed.contains(address(outside)), "{network} {outside}");
        }
    }

    #[test]
    fn a_network_with_host_bits_or_another_length_is_none() {
        for bad in [
            "", "x", "/8", "10.0.0.0/", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/128", "0.0.0.0/0",
            "::/0", "fd00::1/8", "fd00::/129", "10.0.0.0/+8", "10.0.0.0/08", "10.0.0.0/8/8",
            "10/8", "10.0.0.0/-1", "::ffff:10.0.0.0/104", "10.0.0.0 /8", "10.0.0.0:80", "[::1]",
        ] {
            assert_eq!(bad.parse::<Network>(), Err(()), "{bad}");
        }
    }
}
