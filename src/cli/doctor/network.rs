//! The network: ports, names, and what the daemon needs of others.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpStream;

use super::{Finding, Patient};
use crate::app;
use crate::base::system;
use crate::config::Config;
use crate::discovery;
use crate::http::status::Status;
use crate::http::tls::Certificate;
use crate::models::{Catalog, is_present, models_dir};
use crate::supervisor::blocking;

/// Time a service has to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time announcements have to be heard.
const LISTEN: Duration = Duration::from_secs(3);

/// Everything of this file but [`daemon`].
pub(super) async fn check(patient: &Patient) -> Vec<Finding> {
    let mut findings = vec![ports(patient)];
    findings.extend(certificate(&patient.config));
    findings.push(name(patient).await);
    findings.extend(sources(&patient.config).await);
    findings.extend(services(&patient.config).await);
    findings
}

/// Whether the daemon that runs answers where it listens.
pub(super) async fn daemon(status: &Status) -> Finding {
    let running = format!("{} runs as process {}", status.version, status.pid);
    let restart = "look at its log (`journalctl -u friend-lite`), then start it again: \
                   `systemctl restart friend-lite`";
    for one in &status.listening {
        let Ok(address) = one.address.parse::<SocketAddr>() else { continue };
        if let Err(why) = answers(&one.what, reachable(address)).await {
            let says = format!("{running}, and {} on {address} {why}", one.what);
            return Finding::bad("daemon", says, restart);
        }
    }
    match (status.health.as_str(), &status.message) {
        ("healthy", _) => Finding::good("daemon", format!("{running} and answers")),
        (health, message) => {
            let message = message.as_deref().unwrap_or_default();
            let says = format!("{running} and is {health}: {message}");
            match health {
                "critical" => Finding::bad("daemon", says, restart),
                _ => Finding::warning("daemon", says, "`friend-lite status` says more"),
            }
        }
    }
}

/// An address to connect to what listens at `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn answers(what: &str, address: SocketAddr) -> Result<(), String> {
    if what != "http" {
        return connects(&address.to_string()).await;
    }
    crate::base::tls::install();
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build();
    let client = client.map_err(|error| error.to_string())?;
    match client.get(format!("http://{address}/readiness")).send().await {
        Ok(response) if response.status().is_success() => Ok(()),
        Ok(response) => Err(format!("answers {}", response.status())),
        Err(error) if error.is_timeout() => Err("does not answer in time".into()),
        Err(error) => Err(format!("does not answer: {}", error.without_url())),
    }
}

async fn connects(address: &str) -> Result<(), String> {
    match tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("cannot be reached: {error}")),
        Err(_) => Err("does not answer in time".into()),
    }
}

/// What is to listen, by key and address.
fn listeners(config: &Config) -> Vec<(&'static str, &str)> {
    let mut all = vec![("server.listen", config.server.listen.as_str())];
    if !config.wyoming.listen.is_empty() {
        all.push(("wyoming.listen", &config.wyoming.listen));
    }
    if !config.esp32.user.is_empty() {
        all.push(("esp32.listen", &config.esp32.listen));
    }
    all
}

fn ports(patient: &Patient) -> Finding {
    if patient.running.is_some() {
        return Finding::good("ports", "the daemon has them");
    }
    let all = listeners(&patient.config);
    for (key, address) in &all {
        // Let go of at once.
        let Err(error) = std::net::TcpListener::bind(address) else { continue };
        let advice = match error.kind() {
            ErrorKind::AddrInUse => format!(
                "another program has it (`ss -ltnp` shows which): end that, or set {key} to another port"
            ),
            ErrorKind::PermissionDenied => {
                format!("ports below 1024 are for root: set {key} to a higher one")
            }
            _ => format!("set {key} to an address of this machine"),
        };
        return Finding::bad("ports", format!("{address} ({key}): {error}"), advice);
    }
    let free: Vec<&str> = all.iter().map(|(_, address)| *address).collect();
    Finding::good("ports", format!("{} are free", free.join(" and ")))
}

fn certificate(config: &Config) -> Option<Finding> {
    if config.tls.certificate.is_empty() {
        return None;
    }
    Some(match Certificate::open(&config.tls) {
        Ok(_) => Finding::good("certificate", config.tls.certificate.clone()),
        Err(error) => {
            Finding::bad("certificate", error.report(), "correct tls.certificate and tls.key")
        }
    })
}

async fn name(patient: &Patient) -> Finding {
    const CHECK: &str = "name";
    let config = &patient.config;
    let announced = listeners(config).into_iter().any(|(_, address)| {
        let address = address.parse::<SocketAddr>();
        address.is_ok_and(|address| discovery::is_announced(&config.discovery, address.ip()))
    });
    if !announced {
        return Finding::skipped(CHECK, "the configuration announces nothing");
    }
    if system::addresses().is_empty() {
        let says = "this machine has no address that others can reach";
        return Finding::warning(CHECK, says, "connect it to a network");
    }
    let heard = blocking(|| discovery::browse(discovery::FRIEND_LITE, LISTEN)).await;
    let host = discovery::host_name();
    match (heard, &patient.running) {
        (Err(error), _) => Finding::warning(CHECK, error.report(), "clients need the address"),
        (Ok(heard), Some(status)) if heard.contains(&status.name) => {
            Finding::good(CHECK, format!("announced as {} at {host}.local", status.name))
        }
        (Ok(_), Some(status)) => Finding::warning(
            CHECK,
            format!("{} is not heard on the network", status.name),
            "let UDP port 5353 through the firewall; until then clients need the address",
        ),
        (Ok(heard), None) => match heard.as_slice() {
            [] => Finding::good(CHECK, format!("will be found at {host}.local")),
            heard => {
                let says = format!("will be found at {host}.local, beside {}", heard.join(", "));
                Finding::good(CHECK, says)
            }
        },
    }
}

/// Whether the services outside answer that are configured.
async fn services(config: &Config) -> Vec<Finding> {
    let checked = app::check_services(config).await.into_iter();
    let advice = "until it answers, the next engine steps in or its work waits; recording goes on";
    checked
        .map(|(name, outcome)| match outcome {
            Ok(says) => Finding::good(name, says),
            Err(error) => Finding::bad(name, error.report(), advice),
        })
        .collect()
}

/// What the daemon needs of others: where models come from that are missing.
async fn sources(config: &Config) -> Vec<Finding> {
    const CHECK: &str = "sources";
    let Ok(catalog) = Catalog::builtin() else { return Vec::new() };
    let models = models_dir(config);
    let wanted = catalog.defaults(config, system::total_memory());
    let missing: Vec<_> = wanted.into_iter().filter(|e| !is_present(e, &models)).collect();
    if missing.is_empty() {
        return vec![Finding::skipped(CHECK, "nothing is to be fetched")];
    }
    let mut findings = Vec::new();
    for source in &config.models.sources {
        let outcome = match source.as_str() {
            "https" => {
                let mut outcome = Ok(());
                for host in missing.iter().flat_map(|entry| entry.hosts()) {
                    outcome = outcome.and(reach(&host).await);
                }
                outcome.map(|()| "the publishers answer".to_owned())
            }
            dir if dir.contains('/') && !Path::new(dir).is_dir() => {
                Err(format!("{dir} is not there"))
            }
            dir if dir.contains('/') => Ok(format!("{dir} is there")),
            _ => continue,
        };
        findings.push(match outcome {
            Ok(says) => Finding::good(CHECK, says),
            Err(says) => Finding::bad(
                CHECK,
                says,
                "models that are missing cannot be fetched from there: connect it, or copy them \
                 with `friend-lite models fetch --from DIR`",
            ),
        });
    }
    findings
}

async fn reach(host: &str) -> Result<(), String> {
    connects(&format!("{host}:443")).await.map_err(|why| format!("{host} {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_everywhere_is_reached_on_loopback() {
        let at = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(at("0.0.0.0:8000"), "127.0.0.1:8000");
        assert_eq!(at("[::]:8000"), "[::1]:8000");
        assert_eq!(at("192.0.2.1:1"), "192.0.2.1:1");
    }

    #[test]
    fn only_what_is_switched_on_listens() {
        let mut config = Config::default();
        assert_eq!(listeners(&config).len(), 2);
        config.wyoming.listen = String::new();
        config.esp32.user = "a@b".into();
        let keys: Vec<_> = listeners(&config).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["server.listen", "esp32.listen"]);
    }
}
