//! MongoDB's errors in our kinds.

use mongodb::error::{Error as Driver, ErrorKind, WriteFailure};

use crate::base::error::{Error, Kind};
use crate::remote::authorities::{distrust, is_distrust};

/// The codes of the server that say more than that a command failed.
const DUPLICATE_KEY: i32 = 11_000;
const TIME_LIMIT: i32 = 50;
const WRITE_CONFLICT: i32 = 112;
const DISK_FULL: i32 = 14_031;
const REFUSALS: [i32; 2] = [13, 18];
/// The server that was asked is not, or not any more, the one that writes.
const NOT_PRIMARY: [i32; 7] = [10_107, 13_435, 13_436, 11_600, 11_602, 189, 91];

/// What the driver marks errors with of which nothing is left in the database:
/// the transaction can be made again.
const TRANSIENT: &str = "TransientTransactionError";
/// Nobody knows whether the transaction was committed; asking again does no harm.
const UNKNOWN: &str = "UnknownTransactionCommitResult";

impl From<Driver> for Error {
    fn from(error: Driver) -> Self {
        // The topology, which is all that the driver tells of a failed connection, has
        // the cause in its words.
        if is_distrust(&error) {
            return Error::new(Kind::Unavailable, distrust("MongoDB")).with_source(error);
        }
        let (kind, message) = classify(&error);
        Error::new(kind, message).with_source(error)
    }
}

fn classify(error: &Driver) -> (Kind, &'static str) {
    match &*error.kind {
        ErrorKind::BsonDeserialization(_) | ErrorKind::InvalidResponse { .. } => {
            (Kind::Storage, "MongoDB holds a value that cannot be read")
        }
        ErrorKind::ServerSelection { .. } => (Kind::Timeout, "MongoDB cannot be reached"),
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } => {
            (Kind::Unavailable, "MongoDB broke off its answer")
        }
        ErrorKind::DnsResolve { .. } => (Kind::Unavailable, "MongoDB's host has no address"),
        ErrorKind::Authentication { .. } => {
            (Kind::Unavailable, "MongoDB refuses the login; correct mongodb.uri")
        }
        ErrorKind::Command(command) => of_code(command.code),
        ErrorKind::Write(WriteFailure::WriteError(write)) => of_code(write.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => of_code(concern.code),
        ErrorKind::InsertMany(many) => {
            let mut codes = many.write_errors.iter().flatten().map(|write| write.code);
            of_code(codes.next_back().unwrap_or_default())
        }
        _ => (Kind::Internal, "MongoDB refused a step"),
    }
}

fn of_code(code: i32) -> (Kind, &'static str) {
    match code {
        DUPLICATE_KEY => (Kind::Conflict, "this does not fit what is stored already"),
        WRITE_CONFLICT => (Kind::Busy, "the database is busy; try again"),
        TIME_LIMIT => (Kind::Timeout, "MongoDB does not answer in time"),
        DISK_FULL => (Kind::NoSpace, "the disk of MongoDB is full"),
        code if REFUSALS.contains(&code) => {
            (Kind::Unavailable, "MongoDB does not let this user do it; correct mongodb.uri")
        }
        code if NOT_PRIMARY.contains(&code) => {
            (Kind::Unavailable, "MongoDB has no server that writes at the moment")
        }
        _ => (Kind::Internal, "MongoDB refused a step"),
    }
}

/// Nothing came in the time that one step may take.
pub(super) fn silence() -> Error {
    Error::new(Kind::Timeout, "MongoDB does not answer in time")
}

/// Whether a transaction that ended so left nothing, and may be made again.
pub(super) fn is_transient(error: &Error) -> bool {
    has_label(error, TRANSIENT)
}

/// Whether a commit that ended so may have happened, and may be asked for again.
pub(super) fn is_unknown(error: &Error) -> bool {
    has_label(error, UNKNOWN)
}

fn has_label(error: &Error, label: &str) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<Driver>())
        .is_some_and(|driver| driver.contains_label(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_or_a_retry_must_tell_apart_has_its_kind() {
        assert_eq!(of_code(DUPLICATE_KEY).0, Kind::Conflict);
        assert_eq!(of_code(WRITE_CONFLICT).0, Kind::Busy);
        assert_eq!(of_code(DISK_FULL).0, Kind::NoSpace);
        assert_eq!(of_code(18).0, Kind::Unavailable);
        assert_eq!(of_code(10_107).0, Kind::Unavailable);
        assert_eq!(of_code(1).0, Kind::Internal);
    }
}
