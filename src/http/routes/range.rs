//! The `Range` header of one file (RFC 9110, section 14).

/// What a client is to get of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Selection {
    /// All of it: no range was asked for, or one that is not understood.
    All,
    /// Bytes `start` to `end`, both included.
    Part {
        /// First byte.
        start: u64,
        /// Last byte.
        end: u64,
    },
    /// What was asked for lies beyond the end.
    Unsatisfiable,
}

/// What `header` selects of a file of `size` bytes. Several ranges at once get
/// the whole file, as the standard allows.
pub(super) fn select(header: &str, size: u64) -> Selection {
    match parse(header) {
        None => Selection::All,
        Some(Bounds::Suffix(length)) => match size.saturating_sub(length) {
            _ if length == 0 || size == 0 => Selection::Unsatisfiable,
            start => Selection::Part { start, end: size - 1 },
        },
        Some(Bounds::From(start, last)) => {
            if start >= size {
                return Selection::Unsatisfiable;
            }
            Selection::Part { start, end: last.unwrap_or(u64::MAX).min(size - 1) }
        }
    }
}

enum Bounds {
    From(u64, Option<u64>),
    Suffix(u64),
}

fn parse(header: &str) -> Option<Bounds> {
    let (unit, range) = header.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    match (first.trim(), last.trim()) {
        ("", last) => Some(Bounds::Suffix(number(last)?)),
        (first, "") => Some(Bounds::From(number(first)?, None)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Bounds::From(first, Some(last)))
        }
    }
}

/// Digits only; more than fit mean "to the end".
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_select_what_the_standard_says() {
        use Selection::{All, Part, Unsatisfiable};
        for (header, expected) in [
            ("bytes=0-", Part { start: 0, end: 99 }),
            ("bytes=0-0", Part { start: 0, end: 0 }),
            ("bytes=10-19", Part { start: 10, end: 19 }),
            ("bytes=10-1000", Part { start: 10, end: 99 }),
            ("bytes=99-", Part { start: 99, end: 99 }),
            ("bytes=-5", Part { start: 95, end: 99 }),
            ("bytes=-500", Part { start: 0, end: 99 }),
            ("Bytes = 1-2", Part { start: 1, end: 2 }),
            ("bytes=1-99999999999999999999999", Part { start: 1, end: 99 }),
            ("bytes=100-", Unsatisfiable),
            ("bytes=99999999999999999999999-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=5-4", All),
            ("bytes=0-1,5-6", All),
            ("bytes=-", All),
            ("bytes=", All),
            ("bytes=a-b", All),
            ("bytes=+1-2", All),
            ("items=0-1", All),
            ("", All),
        ] {
            assert_eq!(select(header, 100), expected, "{header}");
        }
        assert_eq!(select("bytes=0-", 0), Unsatisfiable);
        assert_eq!(select("bytes=-1", 0), Unsatisfiable);
    }

    proptest! {
        #[test]
        fn garbage_is_answered_too(header in ".*", size: u64) {
            let _ = select(&header, size);
        }

        #[test]
        fn a_part_lies_within_the_file(
            header in "bytes=[0-9]{0,21}-[0-9]{0,21}",
            size: u64,
        ) {
            if let Selection::Part { start, end } = select(&header, size) {
                prop_assert!(start <= end && end < size);
            }
        }
    }
}
