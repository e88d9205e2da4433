//! A database that is filled beside the one of a state directory, and takes its
//! place once it is whole.

use std::path::{Path, PathBuf};

use super::{Access, SqliteStore, file, recover};
use crate::base::clock::Timestamp;
use crate::base::error::Result;

/// Where it is filled, below the state directory.
const PLACE: &str = "migrating";

/// A database on its way to be that of a state directory.
pub struct Replacement {
    dir: PathBuf,
    store: SqliteStore,
}

impl Replacement {
    /// Begins an empty one for the state directory `dir`, which the caller holds.
    /// What is left of one that was cut short is removed.
    ///
    /// # Errors
    /// `Storage` and `NoSpace` from the disk.
    pub fn begin(dir: &Path) -> Result<Self> {
        let place = dir.join(PLACE);
        clear(&place)?;
        let store = SqliteStore::open(&place, Access::Exclusive)?;
        Ok(Self { dir: dir.to_owned(), store })
    }

    /// The database to be filled.
    pub fn store(&self) -> &SqliteStore {
        &self.store
    }

    /// Puts it in place; the database that was there before is kept under the
    /// dated name that is returned. No clone of its store may be left.
    ///
    /// # Errors
    /// `Storage` from the disk.
    pub fn put_in_place(self, now: Timestamp) -> Result<Option<PathBuf>> {
        let Self { dir, store } = self;
        // Closes it: all of it is in its one file then.
        drop(store);
        let place = dir.join(PLACE);
        let (new, path) = (place.join(file::DATABASE), dir.join(file::DATABASE));
        let before = path.exists();
        let aside = recover::set_aside(&path, "before-migration", now)?;
        // A power cut here leaves both databases under their own names.
        std::fs::rename(&new, &path).map_err(|error| file::failed("put in place", &path, error))?;
        file::sync_directory_of(&path)?;
        clear(&place)?;
        Ok(before.then_some(aside))
    }
}

fn clear(place: &Path) -> Result<()> {
    match std::fs::remove_dir_all(place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(file::failed("remove", place, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Users;
    use crate::store::testing::{at, directory, user};

    #[tokio::test]
    async fn a_database_takes_the_place_of_another_which_is_kept() {
        let dir = directory();
        let old = SqliteStore::open(dir.path(), Access::Exclusive).unwrap();
        old.add_user(&user("anna")).await.unwrap();
        drop(old);
        // One that is cut short is not in the way of the next.
        let cut_short = Replacement::begin(dir.path()).unwrap();
        cut_short.store().add_user(&user("carl")).await.unwrap();
        drop(cut_short);

        let new = Replacement::begin(dir.path()).unwrap();
        new.store().add_user(&user("ben")).await.unwrap();
        let kept = new.put_in_place(at(0)).unwrap().unwrap();
        let names = |users: Vec<crate::domain::user::User>| -> Vec<String> {
            users.into_iter().filter_map(|user| user.display_name).collect()
        };
        let now = SqliteStore::open(dir.path(), Access::Exclusive).unwrap();
        assert_eq!(names(now.users().await.unwrap()), ["ben"]);
        drop(now);
        std::fs::rename(&kept, dir.path().join(file::DATABASE)).unwrap();
        let before = SqliteStore::open(dir.path(), Access::Exclusive).unwrap();
        assert_eq!(names(before.users().await.unwrap()), ["anna"]);
        assert!(!dir.path().join(PLACE).exists());
    }
}
