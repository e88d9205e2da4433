//! The walk through the planned failures of backup and restore: each dies or
//! fails once at every place that is marked. What a list names is whole then, a
//! restore is done or not begun, and the next attempt makes it good.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::backup::{self, Options, Summary};
use super::restore::{self, Restored};
use crate::base::clock::Clock;
use crate::base::error::Result;
use crate::base::planned::{Act, Plan};
use crate::planned_tests::places;
use crate::store::Users;
use crate::store::sqlite::testing::{at, directory, user};
use crate::store::sqlite::{Access, SqliteStore};

/// A state directory and a directory of backups.
struct World {
    dir: TempDir,
}

/// What a state directory holds: users and files.
type State = (Vec<String>, BTreeMap<String, Vec<u8>>);

impl World {
    fn new() -> Self {
        let world = Self { dir: directory() };
        world.write("audio/1_c_a.wav", b"first");
        world.write("audio/1_c_b.wav", b"second");
        world.write("uploads/ab", b"nobody asked for it");
        world.add_user("anna");
        world
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn backups(&self) -> PathBuf {
        self.dir.path().join("backups")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.state().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn add_user(&self, name: &str) {
        let store = SqliteStore::open(&self.state(), Access::Exclusive).unwrap();
        block_on(&Plan::default(), async { store.add_user(&user(name)).await.unwrap() });
    }

    /// More, less, and other than before.
    fn change(&self) {
        self.write("audio/1_c_a.wav", b"first, which has grown");
        self.write("audio/2_c_c.wav", b"third");
        std::fs::remove_file(self.state().join("audio/1_c_b.wav")).unwrap();
        self.add_user("ben");
    }

    fn back_up(&self, plan: &Plan) -> Result<Summary> {
        let store = SqliteStore::open(&self.state(), Access::Exclusive).unwrap();
        let (store, options) = (Arc::new(store), Options { keep: 1, verify: false });
        let (state, dir, clock) = (self.state(), self.backups(), Clock::simulated(at(0)));
        block_on(plan, backup::back_up(store, &state, &dir, options, &clock, |_, _| {}))
    }

    fn restore(&self, plan: &Plan, state: &Path) -> Result<Restored> {
        let newest = backup::find(&self.backups(), None)?;
        plan.enter();
        let clock = Clock::simulated(at(0));
        let done = restore::restore(&self.backups(), &newest, state, true, &clock, |_, _| {});
        Plan::default().enter();
        done
    }

    /// Fails unless every backup there is can be restored whole.
    fn backups_are_whole(&self, walk: &str) {
        for found in backup::backups(&self.backups()).unwrap() {
            let to = directory();
            let clock = Clock::simulated(at(0));
            let state = to.path().join("state");
            std::fs::create_dir(&state).unwrap();
            let done = restore::restore(&self.backups(), &found, &state, false, &clock, |_, _| {});
            assert_eq!(done.unwrap().damaged, Vec::<String>::new(), "{walk}");
        }
    }
}

/// Runs `work` under `plan`, on threads that know it.
fn block_on<T>(plan: &Plan, work: impl Future<Output = T>) -> T {
    let threads = plan.clone();
    plan.enter();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .on_thread_start(move || threads.enter())
        .build()
        .unwrap();
    let done = runtime.block_on(work);
    drop(runtime);
    Plan::default().enter();
    done
}

fn contents(state: &Path) -> State {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(state.join("audio")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        files.insert(name, std::fs::read(entry.path()).unwrap());
    }
    let store = SqliteStore::open(state, Access::Exclusive).unwrap();
    let users = block_on(&Plan::default(), async { store.users().await.unwrap() });
    (users.into_iter().map(|user| user.email).collect(), files)
}

fn names(plan: &Plan) -> impl Iterator<Item = String> {
    plan.passed().into_iter().map(|(side, what)| format!("{side} {what}"))
}

#[test]
fn backup_and_restore_are_whole_wherever_they_die_or_fail() {
    let (mut reached, mut walks) = (BTreeSet::new(), 0);
    for act in [Act::Die, Act::Fail] {
        for at in 0.. {
            let world = World::new();
            world.back_up(&Plan::default()).unwrap();
            world.change();
            let plan = Plan::default().at(at, act);
            let done = world.back_up(&plan);
            let walk = format!("backup, {act:?} at {at} {:?}", plan.passed().last());
            reached.extend(names(&plan));
            world.backups_are_whole(&walk);
            assert!(world.back_up(&Plan::default()).is_ok(), "{walk}");
            world.backups_are_whole(&walk);
            let to = world.dir.path().join("again");
            std::fs::create_dir(&to).unwrap();
            world.restore(&Plan::default(), &to).unwrap();
            assert_eq!(contents(&to), contents(&world.state()), "{walk}");
            walks += 1;
            if plan.passed().len() <= at {
                done.unwrap();
                break;
            }
        }
        for at in 0.. {
            let world = World::new();
            world.back_up(&Plan::default()).unwrap();
            let kept = contents(&world.state());
            world.change();
            let changed = contents(&world.state());
            // An earlier attempt was cut short before its copy was whole.
            world.write("restoring/audio/half", b"half");
            let plan = Plan::default().at(at, act);
            let done = world.restore(&plan, &world.state());
            let walk = format!("restore, {act:?} at {at} {:?}", plan.passed().last());
            reached.extend(names(&plan));
            // The daemon starts.
            restore::finish(&world.state()).unwrap();
            let found = contents(&world.state());
            assert!(found == kept || found == changed, "{walk}: {found:?}");
            world.restore(&Plan::default(), &world.state()).unwrap();
            assert_eq!(contents(&world.state()), kept, "{walk}");
            walks += 1;
            if plan.passed().len() <= at {
                done.unwrap();
                assert_eq!(found, kept);
                break;
            }
        }
    }
    println!("{} places, {walks} walks", reached.len());
    let upkeep = |path: &Path| path.components().any(|part| part.as_os_str() == "upkeep");
    let missed: Vec<_> = places(upkeep).difference(&reached).cloned().collect();
    assert!(missed.is_empty(), "places that no walk comes to: {missed:?}");
}

#[test]
fn what_root_restores_belongs_to_the_owner_of_the_directory() {
    use std::os::unix::fs::{MetadataExt, chown};
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED what_root_restores…: it gives files to another user, which takes root");
        return;
    }
    let world = World::new();
    world.back_up(&Plan::default()).unwrap();
    chown(world.state(), Some(65_534), Some(65_534)).unwrap();
    world.restore(&Plan::default(), &world.state()).unwrap();
    for name in ["friend-lite.db", "audio", "audio/1_c_a.wav", "lock"] {
        let metadata = std::fs::metadata(world.state().join(name)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (65_534, 65_534), "{name}");
    }
}
