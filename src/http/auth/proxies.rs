//! Where a request comes from, when reverse proxies stand before the daemon.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

use crate::config::network;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The proxies whose word is taken.
pub(super) struct Proxies(Vec<IpNet>);

impl Proxies {
    /// From addresses and networks, which the configuration has checked.
    pub(super) fn new(trusted: &[String]) -> Self {
        Self(trusted.iter().filter_map(|text| network(text)).collect())
    }

    fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The nearest address that is no trusted proxy. Each proxy adds the one it
    /// was asked by at the end, so what stands before the first stranger was
    /// written by the stranger.
    pub(super) fn client_address(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.trusts(peer) {
            return peer;
        }
        let hops: Vec<&str> = headers
            .get_all(FORWARDED_FOR)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .collect();
        let mut nearest = peer;
        for hop in hops.into_iter().rev() {
            let Some(address) = parse(hop.trim()) else { break };
            nearest = address;
            if !self.trusts(address) {
                break;
            }
        }
        nearest
    }
}

/// An address, with or without a port.
fn parse(hop: &str) -> Option<IpAddr> {
    hop.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(trusted: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let trusted: Vec<String> = trusted.iter().map(|text| (*text).to_owned()).collect();
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        Proxies::new(&trusted).client_address(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let forwarded = ["198.51.100.7"];
        assert_eq!(seen(&[], "127.0.0.1", &forwarded), "127.0.0.1");
        assert_eq!(seen(&["127.0.0.1"], "127.0.0.1", &forwarded), "198.51.100.7");
        assert_eq!(seen(&["10.0.0.0/8"], "127.0.0.1", &forwarded), "127.0.0.1");
        assert_eq!(seen(&["127.0.0.1"], "127.0.0.1", &[]), "127.0.0.1");
        assert_eq!(seen(&["127.0.0.0/8"], "::ffff:127.0.0.1", &forwarded), "198.51.100.7");
    }

    #[test]
    fn what_the_client_wrote_itself_does_not_count() {
        let trusted = ["127.0.0.1", "10.0.0.0/8"];
        let chain = ["1.2.3.4, 198.51.100.7", "10.1.2.3"];
        assert_eq!(seen(&trusted, "127.0.0.1", &chain), "198.51.100.7");
        assert_eq!(seen(&trusted, "127.0.0.1", &["1.2.3.4, nonsense"]), "127.0.0.1");
        assert_eq!(seen(&trusted, "127.0.0.1", &["[2001:db8::1]:443"]), "2001:db8::1");
    }
}
