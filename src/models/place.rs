//! Where model files lie.

use std::path::PathBuf;

use crate::config::Config;

/// The directory of the model files: `models.dir` of the configuration; else
/// `models` below `$STATE_DIRECTORY` under systemd; else `models` in the
/// user's cache directory. It need not exist yet.
pub fn models_dir(config: &Config) -> PathBuf {
    let state = std::env::var("STATE_DIRECTORY").unwrap_or_default();
    choose(&config.models.dir, &state, || {
        directories::ProjectDirs::from("", "", "friend-lite").map(|dirs| dirs.cache_dir().into())
    })
}

fn choose(configured: &str, state: &str, cache: impl FnOnce() -> Option<PathBuf>) -> PathBuf {
    // systemd separates several state directories by colons; ours is the first.
    let state = state.split(':').next().unwrap_or_default();
    match (configured, state) {
        ("", "") => cache().unwrap_or_else(|| PathBuf::from(".")).join("models"),
        ("", state) => PathBuf::from(state).join("models"),
        (configured, _) => PathBuf::from(configured),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_wins_over_systemd_over_the_cache() {
        let cache = || Some(PathBuf::from("/home/u/.cache/friend-lite"));
        assert_eq!(choose("/srv/m", "/var/lib/f", cache), PathBuf::from("/srv/m"));
        assert_eq!(choose("", "/var/lib/f:/var/lib/g", cache), PathBuf::from("/var/lib/f/models"));
        assert_eq!(choose("", "", cache), PathBuf::from("/home/u/.cache/friend-lite/models"));
    }
}
