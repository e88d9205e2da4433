//! Where model files lie.

use std::path::PathBuf;

use crate::config::{Config, service_dir};

/// The directory of the model files: `models.dir` of the configuration; else
/// `models` below the state directory of the service; else `models` in the user's
/// cache directory. It need not exist yet.
pub fn models_dir(config: &Config) -> PathBuf {
    choose(&config.models.dir, service_dir(0), || {
        directories::ProjectDirs::from("", "", "friend-lite").map(|dirs| dirs.cache_dir().into())
    })
}

fn choose(
    configured: &str,
    state: Option<PathBuf>,
    cache: impl FnOnce() -> Option<PathBuf>,
) -> PathBuf {
    match (configured, state) {
        ("", None) => cache().unwrap_or_else(|| PathBuf::from(".")).join("models"),
        ("", Some(state)) => state.join("models"),
        (configured, _) => PathBuf::from(configured),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_wins_over_systemd_over_the_cache() {
        let cache = || Some(PathBuf::from("/home/u/.cache/friend-lite"));
        let state = || Some(PathBuf::from("/var/lib/f"));
        assert_eq!(choose("/srv/m", state(), cache), PathBuf::from("/srv/m"));
        assert_eq!(choose("", state(), cache), PathBuf::from("/var/lib/f/models"));
        assert_eq!(choose("", None, cache), PathBuf::from("/home/u/.cache/friend-lite/models"));
    }
}
