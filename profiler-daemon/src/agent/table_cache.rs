//! Where unwinding tables are kept between runs: the daemon's state directory, or the user's cache.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{debug, warn};

use crate::config::Config;
use crate::unwind::cache::Cache;

/// Their name in either.
const NAME: &str = "unwind";

/// Where a daemon keeps them. Without it they are built anew after a restart.
pub(super) fn of_daemon(config: &Config) -> Option<Arc<Cache>> {
    if config.unwind.cache_bytes == 0 {
        return None;
    }
    match open(&config.state_dir, config.unwind.cache_bytes) {
        Ok(cache) => Some(Arc::new(cache)),
        Err(error) => {
            let directory = config.state_dir.join(NAME);
            warn!(directory = %directory.display(), error, "unwinding tables are not kept across restarts");
            None
        }
    }
}

/// Where `profiler record` keeps them: as told, or in the user's cache. That is not a daemon's
/// directory: how large that may grow is the daemon's business.
pub(super) fn of_record(told: Option<&Path>) -> Option<Arc<Cache>> {
    let root = rustix::process::geteuid().is_root();
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let of_user = || cache_directory(root, variable("XDG_CACHE_HOME"), variable("HOME"));
    let directory = told.map(Path::to_owned).or_else(of_user)?;
    open(&directory, Config::default().unwind.cache_bytes)
        .inspect_err(|error| debug!(directory = %directory.display(), error, "unwinding tables are not kept"))
        .ok()
        .map(Arc::new)
}

/// By the XDG Base Directory Specification, of which relative paths are no part. Root's variables
/// may be those of whoever called sudo: its files lie where the system's do.
fn cache_directory(root: bool, cache_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |path: &PathBuf| path.is_absolute();
    let base = if root {
        PathBuf::from("/var/cache")
    } else {
        let in_home = || home.filter(absolute).map(|home| home.join(".cache"));
        cache_home.filter(absolute).or_else(in_home)?
    };
    Some(base.join("profiler"))
}

/// Opens the cache in a directory, which is made where there is none.
fn open(directory: &Path, limit: u64) -> Result<Cache, String> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(directory)
        .map_err(|error| error.to_string())
        .and_then(|()| Cache::open(&directory.join(NAME), limit).map_err(|error| error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_cache_lies_where_the_user_says_and_roots_where_the_system_does() {
        let path = |text: &str| Some(PathBuf::from(text));
        for (root, cache_home, home, expected) in [
            (true, path("/u/a/.cache"), path("/u/a"), path("/var/cache/profiler")),
            (false, path("/elsewhere"), path("/u/a"), path("/elsewhere/profiler")),
            (false, path("relative"), path("/u/a"), path("/u/a/.cache/profiler")),
            (false, path(""), path("/u/a"), path("/u/a/.cache/profiler")),
            (false, None, path("/u/a"), path("/u/a/.cache/profiler")),
            (false, None, path("relative"), None),
            (false, None, None, None),
        ] {
            assert_eq!(cache_directory(root, cache_home, home), expected);
        }
    }

    #[test]
    fn the_directory_is_made_and_found_again() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/b");
        for _ in 0..2 {
            assert!(open(&directory, 1 << 20).is_ok());
        }
        assert!(directory.join(NAME).is_dir());
    }
}
