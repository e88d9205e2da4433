//! How far a fetch is, for whoever watches.

use std::io::Write;
use std::sync::Arc;

/// Told how a fetch goes on. Called often, from any thread: be quick.
pub trait Progress: Send + Sync {
    /// `model` has come to a step of `bytes` bytes; 0 where there is no count.
    fn step(&self, model: &str, what: &str, bytes: u64);
    /// So many bytes of the step are done.
    fn at(&self, bytes: u64);
}

/// Progress that nobody watches.
pub struct Quiet;

impl Progress for Quiet {
    fn step(&self, _: &str, _: &str, _: u64) {}
    fn at(&self, _: u64) {}
}

/// Progress of one model. Cheap to clone.
#[derive(Clone)]
pub(super) struct Report {
    model: Arc<str>,
    to: Arc<dyn Progress>,
}

impl Report {
    pub(super) fn step(&self, what: &str, bytes: u64) {
        self.to.step(&self.model, what, bytes);
    }

    pub(super) fn at(&self, bytes: u64) {
        self.to.at(bytes);
    }

    /// `inner`, reporting what is written to it, counted from `at`.
    pub(super) fn counting<W: Write>(&self, inner: W, at: u64) -> Counting<W> {
        Counting { inner, at, report: self.clone() }
    }

    pub(super) fn new(model: &str, to: &Arc<dyn Progress>) -> Self {
        Self { model: model.into(), to: to.clone() }
    }

    #[cfg(test)]
    pub(super) fn quiet() -> Self {
        Self { model: "m".into(), to: Arc::new(Quiet) }
    }
}

/// A writer that reports how far it is.
pub(super) struct Counting<W> {
    inner: W,
    at: u64,
    report: Report,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(data)?;
        self.at += written as u64;
        self.report.at(self.at);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
