//! Whether a request came from a page of this server.
//!
//! A browser adds cookies to requests that other sites make, so a cookie alone
//! proves nothing where state changes or a stream is opened.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, Uri, header};
use ipnet::IpNet;

use crate::config;

/// Other servers whose pages may use the API. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Origins(Arc<[Allowed]>);

#[derive(Clone, Debug)]
enum Allowed {
    /// One server: `https://dash.example.com`.
    Origin(String),
    /// Every server with an address in it, by that address.
    Network(IpNet),
}

impl Origins {
    /// Those of `server.cors_origins`.
    pub(super) fn new(configured: &[String]) -> Self {
        let allowed = |text: &String| match config::network(text) {
            Some(network) => Allowed::Network(network),
            None => Allowed::Origin(text.clone()),
        };
        Self(configured.iter().map(allowed).collect())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether pages of `origin`, as a browser names it, may use the API.
    pub fn allow(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        self.0.iter().any(|allowed| match allowed {
            Allowed::Origin(allowed) => allowed.eq_ignore_ascii_case(origin),
            Allowed::Network(network) => {
                address(origin).is_some_and(|address| network.contains(&address))
            }
        })
    }

    /// Whether the browser says that the request comes from a page served by this
    /// host, or by one of these. Without a word from the browser the answer is no.
    pub(super) fn trust(&self, headers: &HeaderMap) -> bool {
        is_same_origin(headers)
            || headers.get(header::ORIGIN).is_some_and(|origin| self.allow(origin))
    }
}

/// The address of an origin that is named by it.
fn address(origin: &str) -> Option<IpAddr> {
    let origin: Uri = origin.parse().ok()?;
    matches!(origin.scheme_str(), Some("http" | "https")).then_some(())?;
    let authority = origin.authority()?;
    // What comes before an `@` is not where the page is from.
    (!authority.as_str().contains('@')).then_some(())?;
    authority.host().trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn is_same_origin(headers: &HeaderMap) -> bool {
    // Sent on HTTPS and loopback, and right even where a proxy rewrites Host.
    if let Some(site) = headers.get("sec-fetch-site") {
        return site.as_bytes() == b"same-origin";
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(origin), Some(host)) = (text(header::ORIGIN), text(header::HOST)) else {
        return false;
    };
    let Ok(origin) = origin.parse::<Uri>() else { return false };
    let default_port = match origin.scheme_str() {
        Some("http") => ":80",
        Some("https") => ":443",
        _ => return false,
    };
    let Some(authority) = origin.authority().map(|authority| authority.as_str()) else {
        return false;
    };
    let bare = |name: &str| name.strip_suffix(default_port).unwrap_or(name).to_ascii_lowercase();
    bare(authority) == bare(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_origin_must_name_this_host() {
        let same = |origin, host| is_same_origin(&headers(&[("origin", origin), ("host", host)]));
        assert!(same("http://pi.local:8000", "pi.local:8000"));
        assert!(same("https://Pi.local", "pi.local:443"));
        assert!(same("http://[fd00::1]:8000", "[fd00::1]:8000"));
        for origin in [
            "http://evil.example",
            "http://pi.local:9000",
            "http://pi.local.evil.example:8000",
            "http://pi.local:8000@evil.example",
            "https://pi.local",
            "null",
            "",
        ] {
            assert!(!same(origin, "pi.local:8000"), "{origin}");
        }
    }

    #[test]
    fn what_the_browser_says_of_the_site_decides() {
        let site = |site| {
            is_same_origin(&headers(&[
                ("sec-fetch-site", site),
                ("origin", "http://pi.local"),
                ("host", "pi.local"),
            ]))
        };
        assert!(site("same-origin"));
        assert!(!site("cross-site"));
        assert!(!site("same-site"));
        assert!(!site("none"));
    }

    #[test]
    fn configured_origins_are_trusted_and_no_others() {
        let allowed = Origins::new(&["https://dash.example.com".to_owned()]);
        let from = |origin| {
            headers(&[("sec-fetch-site", "cross-site"), ("origin", origin), ("host", "pi.local")])
        };
        assert!(allowed.trust(&from("https://dash.example.com")));
        assert!(allowed.trust(&from("https://Dash.example.com")));
        assert!(!allowed.trust(&from("http://dash.example.com")));
        assert!(!allowed.trust(&from("https://dash.example.com.evil.example")));
        assert!(!allowed.trust(&from("null")));
    }

    #[test]
    fn pages_of_a_network_are_told_by_their_address() {
        let tailscale = ["100.64.0.0/10".to_owned(), "fd7a:115c:a1e0::/48".to_owned()];
        let allowed = Origins::new(&tailscale);
        let allow = |origin: &str| allowed.allow(&HeaderValue::from_str(origin).unwrap());
        for origin in [
            "http://100.64.0.1",
            "http://100.101.102.103:5173",
            "https://100.127.255.254:3000",
            "http://[fd7a:115c:a1e0::1]:5173",
        ] {
            assert!(allow(origin), "{origin}");
        }
        for origin in [
            "http://100.63.255.255",
            "http://100.128.0.1:5173",
            "http://100.64.0.1.evil.example",
            "http://100.64.0.1@evil.example",
            "http://evil.example@100.64.0.1",
            "ftp://100.64.0.1",
            "100.64.0.1",
            "http://[fd7a:115c:a1e1::1]",
            "null",
            "",
        ] {
            assert!(!allow(origin), "{origin}");
        }
    }

    #[test]
    fn silence_is_no_proof() {
        assert!(!is_same_origin(&headers(&[("host", "pi.local")])));
        assert!(!is_same_origin(&HeaderMap::new()));
    }
}
