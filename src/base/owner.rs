//! A command of root's that works on a service's files must not leave files
//! that the service may not change.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Gid, Uid};
use rustix::process::geteuid;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::error::{Context, Kind, Result};

/// Whether both directories are there and belong to the same user.
pub fn have_one_owner(one: &Path, other: &Path) -> bool {
    let owner = |dir| std::fs::metadata(dir).ok().map(|metadata| metadata.uid());
    owner(one).is_some() && owner(one) == owner(other)
}

/// Goes on as the owner of `dir`, for good, when this is root and the directory
/// is somebody else's. To be called before any thread is started: those that are
/// there already stay what they are.
///
/// # Errors
/// `Internal` when the system does not let us.
pub fn become_owner_of(dir: &Path) -> Result<()> {
    let Ok(metadata) = std::fs::metadata(dir) else { return Ok(()) };
    if !geteuid().is_root() || metadata.uid() == 0 {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
    set_thread_groups(&[])
        .and_then(|()| set_thread_res_gid(group, group, group))
        .and_then(|()| set_thread_res_uid(user, user, user))
        .with_context(Kind::Internal, || format!("cannot go on as the owner of {}", dir.display()))
}
