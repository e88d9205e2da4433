//! Bolt, as far as a graph of memories needs it.

use std::time::Duration;

use neo4rs::{
    ConfigBuilder, Error as BoltError, Graph as Pool, Neo4jClientErrorKind, Neo4jErrorKind, Query,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::base::error::{Error, Kind, Result};
use crate::config;
use crate::remote::Fault;
use crate::remote::authorities::{Authorities, distrust, is_distrust};

/// Connections at once: one reads memories in, the others answer people.
const CONNECTIONS: usize = 4;
/// One that has not been used for so long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// One database of a server. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    pool: Pool,
    place: String,
    deadline: Duration,
}

#[derive(Deserialize)]
struct Component {
    name: String,
    versions: Vec<String>,
}

impl Client {
    /// The database that `config` names. It is connected to when it is first asked
    /// for something.
    ///
    /// # Errors
    /// `Config` when the address cannot be used.
    pub fn new(config: &config::Neo4j, remote: &config::Remote) -> Result<Self> {
        crate::base::tls::install();
        let uri = config.address();
        let mut settings = ConfigBuilder::new()
            .uri(&uri)
            .user(&config.user)
            .password(config.password.expose())
            .db(config.database.as_str())
            .max_connections(CONNECTIONS)
            .connection_timeout(remote.connect_timeout.get())
            .idle_timeout(IDLE);
        if let Some(authorities) = Authorities::read(remote)? {
            settings = settings.with_client_certificate(authorities.file);
        }
        let pool = settings.build().and_then(Pool::connect).map_err(|error| {
            Error::new(Kind::Config, "neo4j.uri cannot be used").with_source(error)
        })?;
        let place = format!("{uri}/{}", config.database);
        Ok(Self { pool, place, deadline: config.deadline.get() })
    }

    /// Server and database.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Asks the server how it is, and what it says.
    ///
    /// # Errors
    /// A [`Fault`] with a message for people, as with all of these.
    pub async fn check(&self) -> Result<String, Fault> {
        let about = Query::new("CALL dbms.components() YIELD name, versions".into());
        let about: Vec<Component> = self.rows(about).await?;
        Ok(match about.first() {
            Some(one) => format!("{} {} answers", one.name, one.versions.join(", ")),
            None => "answers".into(),
        })
    }

    /// The rows that `query` finds.
    pub(super) async fn rows<T: DeserializeOwned>(&self, query: Query) -> Result<Vec<T>, Fault> {
        self.in_time(async {
            let mut found = self.pool.execute(query).await?;
            let mut rows = Vec::new();
            while let Some(row) = found.next().await? {
                rows.push(row.to()?);
            }
            Ok(rows)
        })
        .await
    }

    /// Makes all of `changes`, in turn, or none.
    pub(super) async fn change(&self, changes: Vec<Query>) -> Result<(), Fault> {
        self.in_time(async {
            let mut transaction = self.pool.start_txn().await?;
            transaction.run_queries(changes).await?;
            transaction.commit().await
        })
        .await
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, BoltError>>,
    ) -> Result<T, Fault> {
        match tokio::time::timeout(self.deadline, work).await {
            Ok(outcome) => outcome.map_err(fault),
            Err(_) => Err(late()),
        }
    }
}

fn late() -> Fault {
    Fault::Passing(Error::new(Kind::Timeout, "neo4j does not answer in time"), None)
}

fn fault(error: BoltError) -> Fault {
    use Neo4jClientErrorKind as Client;
    // What it says of the password is left out: it may be said in it.
    let password = || {
        Fault::Lasting(Error::new(
            Kind::Unavailable,
            "neo4j refuses the password; correct neo4j.user and neo4j.password",
        ))
    };
    let say = |kind, message: &str, error| Error::new(kind, message).with_source(error);
    if is_distrust(&error) {
        return Fault::Lasting(say(Kind::Unavailable, &distrust("neo4j"), error));
    }
    match error {
        BoltError::AuthenticationError(_) => password(),
        BoltError::Neo4j(told) => match told.kind() {
            Neo4jErrorKind::Client(Client::Security(_)) => password(),
            Neo4jErrorKind::Client(Client::FatalDiscovery) => Fault::Lasting(Error::new(
                Kind::Unavailable,
                "neo4j has no such database; correct neo4j.database",
            )),
            Neo4jErrorKind::Client(Client::SessionExpired | Client::TransactionTerminated)
            | Neo4jErrorKind::Transient
            | Neo4jErrorKind::Database
            | Neo4jErrorKind::Unknown => {
                Fault::Passing(say(Kind::Unavailable, "neo4j fails", BoltError::Neo4j(told)), None)
            }
            Neo4jErrorKind::Client(_) => {
                Fault::Refused(say(Kind::BadInput, "neo4j refuses it", BoltError::Neo4j(told)))
            }
        },
        BoltError::ConnectionTimedOut => late(),
        BoltError::UnsupportedVersion(..) => Fault::Lasting(say(
            Kind::Unavailable,
            "neo4j speaks another version of Bolt: use Neo4j 4.4 or later",
            error,
        )),
        error => Fault::Passing(say(Kind::Unavailable, "neo4j cannot be reached", error), None),
    }
}
