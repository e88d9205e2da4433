//! Whether a request came from a page of this server.
//!
//! A browser adds cookies to requests that other sites make, so a cookie alone
//! proves nothing where state changes or a stream is opened.

use axum::http::{HeaderMap, Uri, header};

/// Whether the browser says that the request comes from a page served by this
/// host, or by one of `allowed`. Without a word from the browser the answer is
/// no.
pub(super) fn is_trusted(headers: &HeaderMap, allowed: &[String]) -> bool {
    let origin = headers.get(header::ORIGIN).and_then(|value| value.to_str().ok());
    is_same_origin(headers)
        || origin.is_some_and(|origin| allowed.iter().any(|a| a.eq_ignore_ascii_case(origin)))
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
        let allowed = ["https://dash.example.com".to_owned()];
        let from = |origin| {
            headers(&[("sec-fetch-site", "cross-site"), ("origin", origin), ("host", "pi.local")])
        };
        assert!(is_trusted(&from("https://dash.example.com"), &allowed));
        assert!(is_trusted(&from("https://Dash.example.com"), &allowed));
        assert!(!is_trusted(&from("http://dash.example.com"), &allowed));
        assert!(!is_trusted(&from("https://dash.example.com.evil.example"), &allowed));
        assert!(!is_trusted(&from("null"), &allowed));
    }

    #[test]
    fn silence_is_no_proof() {
        assert!(!is_same_origin(&headers(&[("host", "pi.local")])));
        assert!(!is_same_origin(&HeaderMap::new()));
    }
}
