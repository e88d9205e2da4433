//! Moving everything but the audio from one database to the other.

use crate::base::clock::Clock;
use crate::base::error::{Error, Kind, Result};
use crate::config::Config;
use crate::store::mongodb::MongoStore;
use crate::store::sqlite::{Access, Replacement, SqliteStore};
use crate::store::transfer::{RowKind, Transfer, transfer};

use super::store::{hold, mongodb_service, open_mongodb};

/// What has been moved.
pub struct Migrated {
    /// How many rows of each kind.
    pub rows: Vec<(RowKind, u64)>,
    /// Where that is kept which was there before, if anything was.
    pub aside: Option<String>,
    /// How many recordings are on the disks of other nodes and nowhere else, by
    /// node.
    pub elsewhere: Vec<(String, u64)>,
}

/// Copies all that the other database holds to MongoDB, or else to SQLite, and
/// compares it after. Nothing is changed in the one that it comes from, and what
/// was in the other is kept, which takes `force`. `tell` hears how many steps there
/// are, and how many of them each batch was.
///
/// # Errors
/// `Conflict` while a daemon runs, without `force` when there is something already,
/// and when the other database is not whole; `Config` without the address of a
/// MongoDB; `NotFound` without a database to begin with; as of the stores.
pub async fn migrate(
    config: &Config,
    to_mongodb: bool,
    force: bool,
    tell: impl Fn(u64, RowKind, u64),
) -> Result<Migrated> {
    let (dir, now) = (config.state_dir(), Clock::system().now());
    if to_mongodb {
        let from = match SqliteStore::exists(&dir) {
            true => SqliteStore::open(&dir, Access::Exclusive)?,
            false => {
                let message = format!("there is no SQLite database in {}", dir.display());
                return Err(Error::new(Kind::NotFound, message));
            }
        };
        let to = mongodb(config).await?;
        let aside = to.begin_replacement(force, now).await?;
        let aside = aside.map(|names| format!("the collections {names}*"));
        let rows = counted(&from, &to, tell).await?;
        to.end_replacement().await?;
        return Ok(Migrated { rows, aside, elsewhere: Vec::new() });
    }
    let _held = hold(&dir)?;
    if SqliteStore::exists(&dir) && !force {
        let message = format!(
            "{} holds a SQLite database already; --force puts it aside under a dated name",
            dir.display()
        );
        return Err(Error::new(Kind::Conflict, message));
    }
    let from = mongodb(config).await?;
    from.check_whole().await?;
    let to = Replacement::begin(&dir)?;
    let rows = counted(&from, to.store(), tell).await?;
    let elsewhere = from.recordings_of_others().await?;
    let aside = to.put_in_place(now)?.map(|path| path.display().to_string());
    Ok(Migrated { rows, aside, elsewhere })
}

/// The MongoDB of `config`, with no other daemon at work on it.
async fn mongodb(config: &Config) -> Result<MongoStore> {
    if config.mongodb.uri.is_empty() {
        let message = "mongodb.uri is needed: set it, or MONGODB_URI, to where the server is";
        return Err(Error::new(Kind::Config, message));
    }
    let service = mongodb_service(config, &Clock::system());
    let store = open_mongodb(config, service).await?;
    store.check_alone().await?;
    Ok(store)
}

async fn counted(
    from: &dyn Transfer,
    to: &dyn Transfer,
    tell: impl Fn(u64, RowKind, u64),
) -> Result<Vec<(RowKind, u64)>> {
    let mut rows = 0;
    for of in RowKind::ALL {
        rows += from.count_rows(of).await?;
    }
    // Each is copied, and compared.
    transfer(from, to, |of, some| tell(2 * rows, of, some)).await
}
