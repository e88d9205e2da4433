//! The schema, as numbered steps that only go forward.

use rusqlite::{Connection, TransactionBehavior};

use crate::base::error::{Error, Kind, Result};

/// Step n brings a database of version n - 1 to version n. Steps that have
/// shipped are never edited.
const STEPS: &[&str] = &[include_str!("migrations/0001.sql"), include_str!("migrations/0002.sql")];

/// Whether the schema is older than this program. `Conflict` when it is newer.
pub(super) fn pending(connection: &Connection) -> Result<bool> {
    Ok(version(connection)? < STEPS.len())
}

/// Brings the schema up to date, each step in a transaction of its own.
pub(super) fn run(connection: &mut Connection) -> Result<()> {
    loop {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = version(&tx)?;
        let Some(step) = STEPS.get(done) else { return Ok(()) };
        tx.execute_batch(step)?;
        tx.pragma_update(None, "user_version", sql_version(done + 1))?;
        tx.commit()?;
        tracing::debug!(version = done + 1, "database schema brought up to date");
    }
}

fn version(connection: &Connection) -> Result<usize> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match usize::try_from(version) {
        Ok(known) if known <= STEPS.len() => Ok(known),
        _ => Err(Error::new(
            Kind::Conflict,
            format!(
                "the database has schema version {version}, and this friend-lite knows versions \
                 up to {}; install the newer friend-lite that wrote it",
                STEPS.len()
            ),
        )),
    }
}

fn sql_version(version: usize) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_once_and_refuses_a_newer_schema() {
        let mut connection = Connection::open_in_memory().unwrap();
        assert!(pending(&connection).unwrap());
        run(&mut connection).unwrap();
        assert!(!pending(&connection).unwrap());
        run(&mut connection).unwrap();

        connection.pragma_update(None, "user_version", sql_version(STEPS.len() + 1)).unwrap();
        let error = pending(&connection).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(error.message().contains("install the newer"), "{}", error.message());
    }
}
