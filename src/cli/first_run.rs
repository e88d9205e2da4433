//! `friend-lite first-run`: what the owner of a new machine needs to know.

use std::net::SocketAddr;

use super::terminal;
use crate::base::error::{Error, Kind, Result};
use crate::base::system;
use crate::config::Config;
use crate::discovery;
use crate::http::auth::setup;
use crate::http::local;

/// Prints where the daemon is and, until somebody has chosen another one, the
/// administrator's password.
///
/// # Errors
/// `Unavailable` when the daemon has never run.
pub(super) async fn run(config: Config) -> Result<()> {
    let dir = config.state_dir();
    if !crate::app::has_state(&config) {
        let message = format!(
            "there is no state in {} yet: start the daemon first (`systemctl start friend-lite`)",
            dir.display()
        );
        return Err(Error::new(Kind::Unavailable, message));
    }
    match local::ask(&dir).await {
        Ok(status) => {
            for one in status.listening {
                let Ok(address) = one.address.parse() else { continue };
                for text in addresses(&one.what, address) {
                    terminal::print(&format!("{text}\n"))?;
                }
            }
        }
        Err(error) => eprintln!("friend-lite: {}", error.message()),
    }
    let store = crate::app::open_store_beside_daemon(&config).await?;
    match setup::first_login(store.as_ref()).await? {
        Some(login) => {
            terminal::print(&format!(
                "e-mail:   {}\npassword: {}\n\
                 Open the first address in a browser to choose another password.\n",
                login.email, login.password
            ))?;
        }
        None => terminal::print(&format!(
            "The administrator's password has been chosen; `friend-lite user passwd {}` sets another.\n",
            config.auth.admin_email
        ))?,
    }
    Ok(())
}

/// Where to find what listens at `address`, as a person would type it.
pub(super) fn addresses(what: &str, address: SocketAddr) -> Vec<String> {
    let (scheme, note) = match what {
        "http" | "https" => (what, String::new()),
        other => ("tcp", format!(" ({other})")),
    };
    let at = |host: String| format!("{scheme}://{host}:{}{note}", address.port());
    if !address.ip().is_unspecified() {
        return vec![format!("{scheme}://{address}{note}")];
    }
    let mut found = vec![at(format!("{}.local", discovery::host_name()))];
    for ip in system::addresses() {
        match ip {
            std::net::IpAddr::V4(ip) => found.push(at(ip.to_string())),
            std::net::IpAddr::V6(ip) if address.is_ipv6() => found.push(at(format!("[{ip}]"))),
            std::net::IpAddr::V6(_) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_what_one_types() {
        let one = addresses("http", "192.0.2.7:8000".parse().unwrap());
        assert_eq!(one, ["http://192.0.2.7:8000"]);
        let any = addresses("wyoming", "0.0.0.0:10300".parse().unwrap());
        assert_eq!(any[0], format!("tcp://{}.local:10300 (wyoming)", discovery::host_name()));
        assert!(any.iter().all(|text| !text.contains("0.0.0.0")), "{any:?}");
    }
}
