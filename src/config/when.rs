//! When transcription may run: `always`, `idle`, or between two times of the
//! day, as in `22:00-06:00`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const DAY: u16 = 24 * 60;

/// A rule on when work may be done that nobody is waiting for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// At any time.
    #[default]
    Always,
    /// While nothing is being recorded.
    Idle,
    /// From one minute of the local day to another, over midnight if need be.
    Between {
        /// The first minute, counted from midnight.
        from: u16,
        /// One past the last minute.
        to: u16,
    },
}

impl When {
    /// Whether work may be done at `minute` of the local day. `idle`: nothing is
    /// being recorded.
    pub fn allows(self, minute: u16, idle: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Idle => idle,
            Self::Between { from, to } if from < to => (from..to).contains(&minute),
            Self::Between { from, to } => !(to..from).contains(&minute),
        }
    }
}

/// Minutes after midnight of `22:00`.
fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let minute = hours.checked_mul(60)?.checked_add(minutes)?;
    (minutes < 60 && minute < DAY).then_some(minute)
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let between = || {
            let (from, to) = text.split_once('-')?;
            let (from, to) = (minute(from)?, minute(to)?);
            (from != to).then_some(Self::Between { from, to })
        };
        match text.trim() {
            "always" => Ok(Self::Always),
            "idle" => Ok(Self::Idle),
            _ => between().ok_or_else(|| {
                format!(
                    "`{text}` is not a time to work; write \"always\", \"idle\", or two \
                     different times of the day such as \"22:00-06:00\""
                )
            }),
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("always"),
            Self::Idle => f.write_str("idle"),
            Self::Between { from, to } => {
                write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
            }
        }
    }
}

impl Serialize for When {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_night_goes_over_midnight() {
        let night: When = "22:00-06:00".parse().unwrap();
        for (hour, allowed) in [(21, false), (22, true), (0, true), (5, true), (6, false)] {
            assert_eq!(night.allows(hour * 60, false), allowed, "{hour}");
        }
        let noon: When = "12:00 - 12:30".parse().unwrap();
        assert!(noon.allows(12 * 60 + 29, false) && !noon.allows(12 * 60 + 30, true));
    }

    #[test]
    fn reads_what_it_prints_and_nothing_else() {
        for text in ["always", "idle", "22:00-06:00", "00:05-23:59"] {
            assert_eq!(text.parse::<When>().unwrap().to_string(), text);
        }
        for text in
            ["", "never", "22-6", "24:00-06:00", "10:60-11:00", "06:00-06:00", "99999:0-1:0"]
        {
            assert!(text.parse::<When>().is_err_and(|e| e.contains("22:00-06:00")), "{text}");
        }
    }
}
