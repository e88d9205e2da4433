//! Counters of this process, and the text that Prometheus reads.
//!
//! A counter is a static, so that any layer adds to it with nothing handed
//! down. Counts are of this run of the daemon; what lasts is in the store.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

/// Devices that connected.
pub static STREAMS_OPENED: Counter =
    Counter::new("friend_lite_streams_opened_total", "Devices that connected.", &[]);
/// Audio taken into recordings, in seconds.
pub static AUDIO_ACCEPTED: Counter = Counter::new(
    "friend_lite_audio_accepted_seconds_total",
    "Audio taken into recordings, in seconds.",
    &[],
);
/// Audio that has been synced to disk, in seconds.
pub static AUDIO_SYNCED: Counter = Counter::new(
    "friend_lite_audio_synced_seconds_total",
    "Audio that has been synced to disk, in seconds.",
    &[],
);
/// Bytes of recordings that have been copied to the bucket.
pub static AUDIO_STORED: Counter = Counter::new(
    "friend_lite_audio_stored_bytes_total",
    "Bytes of recordings that have been copied to the bucket.",
    &[],
);
/// Audio that has been transcribed, in seconds.
pub static AUDIO_TRANSCRIBED: Counter = Counter::new(
    "friend_lite_audio_transcribed_seconds_total",
    "Audio that has been transcribed, in seconds.",
    &[],
);
/// Engines that were started.
pub static ENGINE_STARTS: Counter =
    Counter::new("friend_lite_engine_starts_total", "Engines that were started.", &["engine"]);
/// Engines that died, or were ended for not answering.
pub static ENGINE_CRASHES: Counter = Counter::new(
    "friend_lite_engine_crashes_total",
    "Engines that died, or were ended for not answering.",
    &["engine"],
);
/// Logins that were refused.
pub static LOGIN_FAILURES: Counter =
    Counter::new("friend_lite_login_failures_total", "Logins that were refused.", &["reason"]);
/// Requests that were answered.
pub static HTTP_REQUESTS: Counter = Counter::new(
    "friend_lite_http_requests_total",
    "Requests that were answered.",
    &["method", "route", "status"],
);
/// Time from the head of a request to that of its answer, in seconds.
pub static HTTP_SECONDS: Counter = Counter::new(
    "friend_lite_http_request_seconds_total",
    "Time from the head of a request to that of its answer, in seconds.",
    &["method", "route"],
);

/// Requests to services outside.
pub static SERVICE_REQUESTS: Counter = Counter::new(
    "friend_lite_service_requests_total",
    "Requests to services outside.",
    &["service", "outcome"],
);
/// Time that services outside took to answer, in seconds.
pub static SERVICE_SECONDS: Counter = Counter::new(
    "friend_lite_service_seconds_total",
    "Time that services outside took to answer, in seconds.",
    &["service"],
);

const ALL: [&Counter; 12] = [
    &STREAMS_OPENED,
    &AUDIO_ACCEPTED,
    &AUDIO_SYNCED,
    &AUDIO_STORED,
    &AUDIO_TRANSCRIBED,
    &ENGINE_STARTS,
    &ENGINE_CRASHES,
    &LOGIN_FAILURES,
    &HTTP_REQUESTS,
    &HTTP_SECONDS,
    &SERVICE_REQUESTS,
    &SERVICE_SECONDS,
];

/// A figure that only grows, with a value for each set of labels.
pub struct Counter {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    values: Mutex<BTreeMap<Vec<String>, f64>>,
}

impl Counter {
    const fn new(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, help, labels, values: Mutex::new(BTreeMap::new()) }
    }

    /// Adds to the value for `labels`, which are few and not of a client's choosing.
    pub fn add(&self, labels: &[&str], by: f64) {
        debug_assert_eq!(labels.len(), self.labels.len(), "{}", self.name);
        let key = labels.iter().map(|label| (*label).to_owned()).collect();
        *self.values.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += by;
    }

    /// The sum over all labels.
    pub fn total(&self) -> f64 {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    fn write(&self, text: &mut Text) {
        text.family(self.name, self.help, "counter");
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        if values.is_empty() && self.labels.is_empty() {
            text.sample(self.name, &[], 0.0);
        }
        for (key, value) in &*values {
            let labels: Vec<(&str, &str)> =
                self.labels.iter().copied().zip(key.iter().map(String::as_str)).collect();
            text.sample(self.name, &labels, *value);
        }
    }
}

/// Text in the exposition format of Prometheus, version 0.0.4.
pub struct Text(String);

impl Text {
    /// With every counter of this process.
    pub fn of_counters() -> Self {
        let mut text = Self(String::new());
        ALL.iter().for_each(|counter| counter.write(&mut text));
        text
    }

    /// Begins a family; its samples follow.
    pub fn family(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One value of the family.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (n, (label, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let open = if n == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{open}{label}=\"{value}\"");
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
    }

    /// A family of one value that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, help, "gauge");
        self.sample(name, &[], value);
    }

    /// All of it.
    pub fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up_by_label_and_are_written_as_prometheus_reads_them() {
        let counter = Counter::new("things_total", "Things.", &["kind"]);
        counter.add(&["a\"b\\\n"], 1.5);
        counter.add(&["a\"b\\\n"], 2.0);
        counter.add(&["c"], 1.0);
        assert!((counter.total() - 4.5).abs() < 1e-9);
        let mut text = Text(String::new());
        counter.write(&mut text);
        text.gauge("warmth", "How warm.", 20.5);
        assert_eq!(
            text.finish(),
            "# HELP things_total Things.\n# TYPE things_total counter\n\
             things_total{kind=\"a\\\"b\\\\\\n\"} 3.5\nthings_total{kind=\"c\"} 1\n\
             # HELP warmth How warm.\n# TYPE warmth gauge\nwarmth 20.5\n"
        );
    }

    #[test]
    fn a_counter_without_labels_begins_at_zero() {
        let counter = Counter::new("things_total", "Things.", &[]);
        let mut text = Text(String::new());
        counter.write(&mut text);
        assert!(text.finish().ends_with("things_total 0\n"));
    }
}
