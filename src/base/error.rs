//! One error type for the whole daemon.
//!
//! The [`Kind`] decides the HTTP status, whether a job is tried again, and the
//! exit code. The message is for the person who made the request and says what
//! to do; the source stays in the log.

use std::fmt;

/// What went wrong, in the few classes that callers treat differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request or its data is wrong; trying again cannot help.
    BadInput,
    /// No credentials, or wrong ones.
    Unauthorized,
    /// Known, but not allowed.
    Forbidden,
    /// No such thing, or not one the caller may see.
    NotFound,
    /// It exists already, or changed meanwhile.
    Conflict,
    /// Larger than a limit of ours.
    TooLarge,
    /// A limit on how much or how often; try later.
    Busy,
    /// A part that this needs is away or died; try later.
    Unavailable,
    /// A service outside is away, as was known before; the same work is done when
    /// it is back, however long that takes.
    Away,
    /// A deadline passed; try later.
    Timeout,
    /// The disk is full or below its reserve.
    NoSpace,
    /// Reading or writing local storage failed.
    Storage,
    /// The configuration or the command line is wrong.
    Config,
    /// A defect of ours.
    Internal,
}

/// An error with its class, a message for people, and what caused it.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of anything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` that says `message` to the person who asked.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same error with what caused it, for the log.
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The class of the error.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message without its causes.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the same work may succeed later: what a job's retry asks.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            Kind::Busy
                | Kind::Unavailable
                | Kind::Away
                | Kind::Timeout
                | Kind::NoSpace
                | Kind::Storage
        )
    }

    /// The exit code of a command that ends with this error: 64 for usage and
    /// configuration (`EX_USAGE` of sysexits.h), 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        if self.kind == Kind::Config { 64 } else { 1 }
    }

    /// The message with its chain of causes, for logs and the command line.
    pub fn report(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.contains(&more) {
                text.push_str(": ");
                text.push_str(&more);
            }
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Turns a foreign error into ours at the place that knows what was being done.
pub trait Context<T> {
    /// Wraps the error as `kind`, saying `message`.
    fn context(self, kind: Kind, message: impl Into<String>) -> Result<T>;

    /// As [`Context::context`], with a message made only when it is needed.
    fn with_context(self, kind: Kind, message: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E> Context<T> for std::result::Result<T, E>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn context(self, kind: Kind, message: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::new(kind, message).with_source(source))
    }

    fn with_context(self, kind: Kind, message: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::new(kind, message()).with_source(source))
    }
}

/// The class of a failed read or write on local storage.
pub fn io_kind(error: &std::io::Error) -> Kind {
    use std::io::ErrorKind as Io;
    match error.kind() {
        Io::StorageFull | Io::QuotaExceeded => Kind::NoSpace,
        Io::NotFound => Kind::NotFound,
        Io::TimedOut => Kind::Timeout,
        _ => Kind::Storage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_names_every_cause_once() {
        let io = std::io::Error::other("disk on fire");
        let inner = Error::new(Kind::Storage, "cannot write audio").with_source(io);
        let outer =
            Error::new(Kind::Internal, "closing the conversation failed").with_source(inner);
        assert_eq!(
            outer.report(),
            "closing the conversation failed: cannot write audio: disk on fire"
        );
    }

    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        assert_eq!(io_kind(&std::io::ErrorKind::StorageFull.into()), Kind::NoSpace);
        assert_eq!(io_kind(&std::io::ErrorKind::PermissionDenied.into()), Kind::Storage);
    }

    #[test]
    fn usage_and_configuration_exit_with_64() {
        assert_eq!(Error::new(Kind::Config, "x").exit_code(), 64);
        assert_eq!(Error::new(Kind::Internal, "x").exit_code(), 1);
    }
}
