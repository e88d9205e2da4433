//! How hot the machine is and whether that slows it down, as far as it tells.

use std::path::Path;

/// Where Linux shows temperatures.
const ZONES: &str = "/sys/class/thermal";
/// Where a Raspberry Pi shows what slows it down.
const THROTTLED: &str = "/sys/devices/platform/soc/soc:firmware/get_throttled";

/// The hottest part, in degrees Celsius; none where the machine does not tell.
pub fn temperature() -> Option<f64> {
    hottest(Path::new(ZONES))
}

fn hottest(zones: &Path) -> Option<f64> {
    let zone = |entry: std::fs::DirEntry| {
        let text = std::fs::read_to_string(entry.path().join("temp")).ok()?;
        let thousandths: f64 = text.trim().parse().ok()?;
        // Sensors that are not connected show absurd values.
        Some(thousandths / 1000.0).filter(|degrees| (-40.0..150.0).contains(degrees))
    };
    std::fs::read_dir(zones).ok()?.flatten().filter_map(zone).reduce(f64::max)
}

/// What slows the machine down now; empty when nothing does, none where it does
/// not tell.
pub fn throttling() -> Option<Vec<String>> {
    std::fs::read_to_string(THROTTLED).ok().and_then(|text| reasons(&text))
}

/// The reasons in the bits that a Raspberry Pi's firmware shows, in hexadecimal.
fn reasons(text: &str) -> Option<Vec<String>> {
    const BITS: [&str; 4] = ["under-voltage", "frequency capped", "throttled", "too hot"];
    let bits = u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()?;
    let set = BITS.iter().enumerate().filter(|(bit, _)| bits & (1 << bit) != 0);
    Some(set.map(|(_, reason)| (*reason).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hottest_sensible_zone_counts() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(hottest(dir.path()), None);
        for (zone, text) in [("a", "48312\n"), ("b", "55000\n"), ("c", "-273000\n"), ("d", "x")] {
            std::fs::create_dir(dir.path().join(zone)).unwrap();
            std::fs::write(dir.path().join(zone).join("temp"), text).unwrap();
        }
        assert_eq!(hottest(dir.path()), Some(55.0));
    }

    #[test]
    fn a_pi_says_what_slows_it_down() {
        assert_eq!(reasons("0\n"), Some(Vec::new()));
        assert_eq!(reasons("50005\n").unwrap(), ["under-voltage", "throttled"]);
        assert_eq!(reasons("0x8").unwrap(), ["too hot"]);
        // It was so once, and is over.
        assert_eq!(reasons("50000"), Some(Vec::new()));
        assert_eq!(reasons("?"), None);
    }
}
