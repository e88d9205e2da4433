//! The connection to the server: its limits, its authorities, and what a commit
//! is.

use std::path::PathBuf;
use std::time::Duration;

use mongodb::Client;
use mongodb::bson::doc;
use mongodb::options::{
    Acknowledgment, ClientOptions, ConnectionString, ReadConcern, Tls, TransactionOptions,
    WriteConcern,
};

use super::tx::step;
use crate::base::error::{Error, Kind, Result};
use crate::config;
use crate::remote::authorities::Authorities;

/// The longest wait for a server that can be asked, and for a connection to it.
const REACHED: Duration = Duration::from_secs(5);
/// The longest that the server goes on with a write that nobody waits for.
const WRITTEN: Duration = Duration::from_secs(10);
/// Connections at once; more would wait in the server.
const CONNECTIONS: u32 = 10;
/// A connection that nobody has needed for so long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// Where systems keep the authorities that they trust, in one file.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A client for the server that `config` names. It is connected to when it is
/// first asked for something.
///
/// # Errors
/// `Config` when the address or the certificates cannot be used. What the address
/// says is not told: it may hold a password.
pub(super) async fn connect(config: &config::Mongodb, remote: &config::Remote) -> Result<Client> {
    crate::base::tls::install();
    let bad = |what: &str| Error::new(Kind::Config, format!("mongodb.uri {what}"));
    let uri = config.uri.expose();
    if uri.starts_with("mongodb+srv:") {
        return Err(bad("has to name the servers: write mongodb://host1,host2/?replicaSet=NAME"));
    }
    // The parser's own words may hold a piece of the password.
    let parsed = ConnectionString::parse(uri)
        .map_err(|_| bad("cannot be used; it has the form mongodb://user:password@host:27017"))?;
    let mut options = ClientOptions::parse(parsed).await.map_err(|_| bad("cannot be used"))?;
    options.app_name = Some("friend-lite".into());
    options.connect_timeout = Some(REACHED);
    options.server_selection_timeout = Some(REACHED);
    options.max_pool_size = Some(CONNECTIONS);
    options.max_idle_time = Some(IDLE);
    options.read_concern = Some(ReadConcern::majority());
    options.write_concern = Some(durable());
    if let Some(Tls::Enabled(tls)) = &mut options.tls
        && tls.ca_file_path.is_none()
    {
        tls.ca_file_path = authorities(remote)?;
    }
    Client::with_options(options).map_err(|error| bad("cannot be used").with_source(error))
}

/// On disk on most members of the set.
fn durable() -> WriteConcern {
    let mut durable = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
    durable.w_timeout = Some(WRITTEN);
    durable
}

/// What a transaction reads, and when it is lasting.
pub(super) fn transaction() -> TransactionOptions {
    TransactionOptions::builder()
        .read_concern(ReadConcern::snapshot())
        .write_concern(durable())
        .max_commit_time(WRITTEN)
        .build()
}

/// The file of the authorities that are trusted: the driver takes one. None, for
/// those that it brings.
fn authorities(remote: &config::Remote) -> Result<Option<PathBuf>> {
    if let Some(authorities) = Authorities::read(remote)? {
        return Ok(Some(authorities.file));
    }
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let known = BUNDLES.iter().map(PathBuf::from);
    Ok(named.into_iter().chain(known).find(|path| path.is_file()))
}

/// Asks the server what it is.
///
/// # Errors
/// `Config` when it has no transactions, `Unavailable` when it has none yet; as of
/// any step when it cannot be reached.
pub(super) async fn check(client: &Client) -> Result<()> {
    let hello = step(client.database("admin").run_command(doc! { "hello": 1 })).await?;
    let in_set = hello.get_str("setName").is_ok();
    let balancer = hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
    if in_set || balancer {
        return Ok(());
    }
    // It is to be one: it has just been started, or for the first time.
    if hello.get_bool("isreplicaset").unwrap_or(false) {
        return Err(Error::new(
            Kind::Unavailable,
            "MongoDB is not in its replica set yet; call rs.initiate() in mongosh once if it never \
             was",
        ));
    }
    Err(Error::new(
        Kind::Config,
        "mongodb.uri: this MongoDB is a single server without a replica set, and has no \
         transactions; start it with --replSet rs0, and call rs.initiate() in mongosh once (a set \
         of one member is enough)",
    ))
}
