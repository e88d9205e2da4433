//! A length of time in the configuration: `"90s"`, `"1m 30s"`, `"250ms"`, or a
//! number of seconds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time that reads and prints the way people write it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(Duration);

impl Interval {
    /// So many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// So many thousandths of a second.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// As the standard library's type.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<Duration> for Interval {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let hint =
            || format!("`{text}` is not a length of time; write it like \"90s\" or \"1m 30s\"");
        if let Ok(seconds) = text.parse::<f64>() {
            return Duration::try_from_secs_f64(seconds).map(Self).map_err(|_| hint());
        }
        let signed: jiff::SignedDuration = text.parse().map_err(|_| hint())?;
        Duration::try_from(signed).map(Self).map_err(|_| hint())
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::SignedDuration::try_from(self.0) {
            Ok(signed) => write!(f, "{signed:#}"),
            Err(_) => write!(f, "{}s", self.0.as_secs()),
        }
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(f64),
            Text(String),
        }
        let text = match Form::deserialize(deserializer)? {
            Form::Number(seconds) => seconds.to_string(),
            Form::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let millis = |text: &str| text.parse::<Interval>().map(|i| i.get().as_millis());
        assert_eq!(millis("90s"), Ok(90_000));
        assert_eq!(millis("1m 30s"), Ok(90_000));
        assert_eq!(millis("250ms"), Ok(250));
        assert_eq!(millis("1.5"), Ok(1_500));
        assert_eq!(millis("0"), Ok(0));
        assert!(millis("-3s").is_err());
        assert!(millis("soon").is_err_and(|e| e.contains("90s")));
    }

    #[test]
    fn prints_what_it_reads() {
        for text in ["0s", "250ms", "1m 30s", "1h", "20m"] {
            let interval: Interval = text.parse().expect("valid");
            assert_eq!(interval.to_string().parse::<Interval>(), Ok(interval));
        }
    }
}
