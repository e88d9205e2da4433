//! SQLite's errors in our kinds.

use rusqlite::ErrorCode;

use crate::base::error::{Error, Kind};

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        let (kind, message) = classify(&error);
        Error::new(kind, message).with_source(error)
    }
}

fn classify(error: &rusqlite::Error) -> (Kind, &'static str) {
    use rusqlite::Error as Sql;
    match error {
        Sql::FromSqlConversionFailure(..)
        | Sql::InvalidColumnType(..)
        | Sql::IntegralValueOutOfRange(..) => {
            (Kind::Storage, "the database holds a value that cannot be read")
        }
        _ => match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => (Kind::NoSpace, "the disk is full"),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                (Kind::Busy, "the database is busy; try again")
            }
            Some(ErrorCode::ConstraintViolation) => {
                (Kind::Conflict, "this does not fit what is stored already")
            }
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::FileLockingProtocolFailed,
            ) => (Kind::Storage, "the database cannot be read or written"),
            _ => (Kind::Internal, "the database refused a step"),
        },
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    fn kind_of(code: i32) -> Kind {
        Error::from(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)).kind()
    }

    #[test]
    fn every_failure_of_the_disk_has_its_kind() {
        assert_eq!(kind_of(ffi::SQLITE_FULL), Kind::NoSpace);
        assert_eq!(kind_of(ffi::SQLITE_IOERR_WRITE), Kind::Storage);
        assert_eq!(kind_of(ffi::SQLITE_CANTOPEN), Kind::Storage);
        assert_eq!(kind_of(ffi::SQLITE_BUSY_SNAPSHOT), Kind::Busy);
        assert_eq!(kind_of(ffi::SQLITE_CONSTRAINT_UNIQUE), Kind::Conflict);
        assert_eq!(kind_of(ffi::SQLITE_MISUSE), Kind::Internal);
    }
}
