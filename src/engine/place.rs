//! Where the engine programs are, and which build of them suits this processor.
//!
//! A package installs each engine in more than one build, in a directory named
//! after what the build needs: `x86-64` and `x86-64-v3` (levels of the x86-64
//! psABI), or `armv8-a` and `armv8.2-a+dotprod+fp16` (as gcc's `-march`). A
//! build for a newer processor ends in an illegal instruction on an older one,
//! so the choice is made here, at run time, and said in the log.

use std::path::{Path, PathBuf};

use crate::base::error::{Context, Error, Kind, Result};

/// The builds that this processor runs, fastest first.
pub fn builds() -> Vec<&'static str> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let v3 = std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma")
            && std::arch::is_x86_feature_detected!("f16c")
            && std::arch::is_x86_feature_detected!("bmi2");
        if v3 {
            found.push("x86-64-v3");
        }
        found.push("x86-64");
    }
    #[cfg(target_arch = "aarch64")]
    {
        let dot = std::arch::is_aarch64_feature_detected!("dotprod")
            && std::arch::is_aarch64_feature_detected!("fp16");
        if dot {
            found.push("armv8.2-a+dotprod+fp16");
        }
        found.push("armv8-a");
    }
    found
}

/// The engine program called `name` below `dir`: in the directory of the best
/// build that this processor runs, else in `dir` itself. With an empty `dir`, it
/// is looked for beside the running program, one directory up (where test
/// programs find it), and in `../lib/friend-lite` (where a package puts it).
///
/// # Errors
/// `Config` when it is in none of them.
pub fn program(name: &str, dir: &str) -> Result<PathBuf> {
    let places = if dir.is_empty() {
        let own =
            std::env::current_exe().context(Kind::Config, "cannot tell where I am installed")?;
        let mut places: Vec<PathBuf> =
            own.ancestors().skip(1).take(2).map(Path::to_path_buf).collect();
        places.extend(own.ancestors().nth(2).map(|prefix| prefix.join("lib/friend-lite")));
        places
    } else {
        vec![PathBuf::from(dir)]
    };
    find(name, &places, &builds()).ok_or_else(|| {
        let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
        let message = format!(
            "the engine program {name} is not in {}; install it there or set engines.dir",
            places.join(" or ")
        );
        Error::new(Kind::Config, message)
    })
}

fn find(name: &str, places: &[PathBuf], builds: &[&str]) -> Option<PathBuf> {
    let inside = |place: &PathBuf| {
        let of_a_build = builds.iter().map(|build| place.join(build).join(name));
        of_a_build.chain([place.join(name)]).find(|path| path.is_file())
    };
    places.iter().find_map(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_or_named() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().to_str().unwrap();
        let error = program("an-engine", place).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.message().contains("an-engine") && error.message().contains(place));
        std::fs::write(dir.path().join("an-engine"), "").unwrap();
        assert_eq!(program("an-engine", place).unwrap(), dir.path().join("an-engine"));
    }

    #[test]
    fn the_best_build_that_runs_here_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let places = [dir.path().to_owned()];
        for build in ["old", "new"] {
            std::fs::create_dir(dir.path().join(build)).unwrap();
            std::fs::write(dir.path().join(build).join("e"), "").unwrap();
        }
        assert_eq!(find("e", &places, &["new", "old"]), Some(dir.path().join("new/e")));
        assert_eq!(find("e", &places, &["old"]), Some(dir.path().join("old/e")));
        assert_eq!(find("e", &places, &[]), None);
    }

    #[test]
    fn every_processor_runs_the_plain_build_last() {
        let builds = builds();
        if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
            assert!(["x86-64", "armv8-a"].contains(builds.last().unwrap()), "{builds:?}");
        }
    }
}
