//! Announces the daemon on the local network by mDNS (RFC 6762, RFC 6763), so
//! that Home Assistant offers it (`_wyoming._tcp`) and clients find it without
//! an address (`_friend-lite._tcp`).

use std::net::IpAddr;
use std::time::Duration;

use mdns_sd::{IfKind, ServiceDaemon, ServiceEvent, ServiceInfo};

use crate::base::clock::Clock;
use crate::base::error::{Context, Error, Kind, Result};
use crate::config;

/// The daemon's own service; its port is that of the HTTP API.
pub const FRIEND_LITE: &str = "_friend-lite._tcp.local.";
/// Speech to text over the Wyoming protocol, as Home Assistant looks for it.
pub const WYOMING: &str = "_wyoming._tcp.local.";

/// The setting that holds the name that was chosen on the setup page.
pub const NAME_SETTING: &str = "device.name";

/// The longest name, in bytes: a label of DNS (RFC 1035).
const MAX_NAME: usize = 63;

/// What the device is called when nobody has named it.
pub fn default_name() -> String {
    format!("Friend-Lite ({})", host_name())
}

/// Whether the device can be called `name`.
///
/// # Errors
/// `BadInput`, saying what is wrong with it.
pub fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        let message = format!("a name has 1 to {MAX_NAME} bytes and is on one line");
        return Err(Error::new(Kind::BadInput, message));
    }
    Ok(())
}

/// Something that listens and is to be found.
#[derive(Clone, Debug)]
pub struct Service {
    /// [`FRIEND_LITE`] or [`WYOMING`].
    pub kind: &'static str,
    /// Where it listens.
    pub address: std::net::SocketAddr,
}

/// Keeps the announcement up; dropping it says goodbye to the network.
pub struct Announcement {
    daemon: ServiceDaemon,
    names: Vec<String>,
}

/// Announces as `name` those of `services` that can be reached from elsewhere: not those
/// bound to a loopback address, unless the configuration names the interfaces.
/// None when nothing is to be announced.
///
/// # Errors
/// `Unavailable` when the network does not let us.
pub fn announce(
    config: &config::Discovery,
    name: &str,
    services: &[Service],
) -> Result<Option<Announcement>> {
    let reachable: Vec<&Service> =
        services.iter().filter(|service| is_announced(config, service.address.ip())).collect();
    if reachable.is_empty() {
        return Ok(None);
    }
    let cannot = "cannot announce the daemon by mDNS";
    let daemon = ServiceDaemon::new().context(Kind::Unavailable, cannot)?;
    let interfaces: Vec<IfKind> = config.interfaces.iter().cloned().map(IfKind::Name).collect();
    let mut announcement = Announcement { daemon, names: Vec::new() };
    for loopback in [IfKind::LoopbackV4, IfKind::LoopbackV6] {
        if interfaces.is_empty() {
            announcement.daemon.disable_interface(loopback).context(Kind::Unavailable, cannot)?;
        }
    }
    let host = host_name();
    for service in reachable {
        let txt = [("version", env!("CARGO_PKG_VERSION")), ("path", "/")];
        // Home Assistant reads no properties of a Wyoming service.
        let txt = if service.kind == FRIEND_LITE { &txt[..] } else { &txt[..1] };
        let mut info = ServiceInfo::new(
            service.kind,
            name,
            &format!("{host}.local."),
            fixed_address(service.address.ip()).as_slice(),
            service.address.port(),
            txt,
        )
        .context(Kind::Config, "discovery.name cannot be announced")?;
        if service.address.ip().is_unspecified() {
            // Follows the addresses of the machine as they come and go.
            info = info.enable_addr_auto();
        }
        if !interfaces.is_empty() {
            info.set_interfaces(interfaces.clone());
        }
        let full = info.get_fullname().to_owned();
        announcement.daemon.register(info).context(Kind::Unavailable, cannot)?;
        tracing::info!("announced as {full} on port {}", service.address.port());
        announcement.names.push(full);
    }
    Ok(Some(announcement))
}

/// The names of the services of `kind` that are heard within `time`. Blocks for
/// as long.
///
/// # Errors
/// `Unavailable` when the network does not let us.
pub fn browse(kind: &str, time: Duration) -> Result<Vec<String>> {
    let cannot = "cannot listen for mDNS";
    let daemon = ServiceDaemon::new().context(Kind::Unavailable, cannot)?;
    let events = daemon.browse(kind).context(Kind::Unavailable, cannot)?;
    let (clock, mut names) = (Clock::system(), Vec::new());
    let end = clock.monotonic() + time;
    while let Some(left) = end.checked_sub(clock.monotonic()) {
        let Ok(event) = events.recv_timeout(left) else { break };
        if let ServiceEvent::ServiceFound(_, full) = event {
            // "Kitchen._friend-lite._tcp.local."
            let name = full.strip_suffix(kind).map_or(full.as_str(), |n| n.trim_end_matches('.'));
            names.push(name.to_owned());
        }
    }
    if let Ok(done) = daemon.shutdown() {
        let _ = done.recv_timeout(Duration::from_secs(1));
    }
    Ok(names)
}

/// Whether what listens on `ip` is announced.
pub fn is_announced(config: &config::Discovery, ip: IpAddr) -> bool {
    config.enabled && (!config.interfaces.is_empty() || !ip.is_loopback())
}

/// The address to announce, for a service that is bound to a single one.
fn fixed_address(ip: IpAddr) -> Vec<IpAddr> {
    if ip.is_unspecified() { Vec::new() } else { vec![ip] }
}

/// The machine's name without its domain.
pub fn host_name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    match name.split('.').next() {
        Some(label) if !label.is_empty() => label.to_owned(),
        _ => String::from("friend-lite"),
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        for name in &self.names {
            // Sends the goodbye; the queue is worked off before the shutdown.
            let _ = self.daemon.unregister(name);
        }
        if let Ok(done) = self.daemon.shutdown() {
            let _ = done.recv_timeout(Duration::from_secs(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> [Service; 1] {
        [Service { kind: FRIEND_LITE, address: address.parse().unwrap() }]
    }

    #[test]
    fn what_only_this_machine_reaches_is_not_announced() {
        let config = config::Discovery::default();
        assert!(announce(&config, "x", &at("127.0.0.1:8000")).unwrap().is_none());
        assert!(announce(&config, "x", &at("[::1]:8000")).unwrap().is_none());
        assert!(announce(&config, "x", &[]).unwrap().is_none());
        let off = config::Discovery { enabled: false, ..config };
        assert!(announce(&off, "x", &at("0.0.0.0:8000")).unwrap().is_none());
    }

    #[test]
    fn a_host_name_is_one_label() {
        let name = host_name();
        assert!(!name.is_empty() && !name.contains('.'), "{name}");
    }
}
