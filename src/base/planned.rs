//! Planned failures: the places where a test lets the process die, or lets an
//! operation fail. Outside tests such a place is an empty function.
//!
//! An operation gets its two places by one line, `planned::around("…", || …)?`,
//! or, where it awaits, by [`before`] and [`after`]. What dies or fails there is
//! decided by the plan of the thread; `planned_tests.rs` walks through them all.

use crate::base::error::Result;

/// The place before `operation`.
///
/// # Errors
/// In a test that planned for it.
#[inline]
pub fn before(operation: &'static str) -> Result<()> {
    reach("before", operation)
}

/// The place after `operation`, which has happened.
///
/// # Errors
/// In a test that planned for it.
#[inline]
pub fn after(operation: &'static str) -> Result<()> {
    reach("after", operation)
}

/// Does `work` between the two places of `operation`.
///
/// # Errors
/// What `work` returns; in a test also what was planned.
#[inline]
pub fn around<T>(operation: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    before(operation)?;
    let done = work()?;
    after(operation)?;
    Ok(done)
}

/// [`around`] for what gives the system's own errors.
///
/// # Errors
/// As [`around`].
#[inline]
pub fn around_io<T>(
    operation: &'static str,
    work: impl FnOnce() -> std::io::Result<T>,
) -> std::io::Result<T> {
    before(operation).map_err(std::io::Error::other)?;
    let done = work()?;
    after(operation).map_err(std::io::Error::other)?;
    Ok(done)
}

#[cfg(not(test))]
#[inline(always)]
fn reach(_side: &str, _operation: &str) -> Result<()> {
    Ok(())
}

#[cfg(test)]
use plan::reach;
#[cfg(test)]
pub(crate) use plan::{Act, Place, Plan};

#[cfg(test)]
mod plan {
    use std::cell::RefCell;
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

    use crate::base::error::{Error, Kind, Result};

    thread_local! {
        static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) };
    }

    /// A side and an operation: `("before", "syncing audio")`.
    pub(crate) type Place = (&'static str, &'static str);

    /// What happens at a place.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Act {
        /// The process dies: from here on none of its operations does anything.
        Die,
        /// The operation fails, this once.
        Fail,
    }

    /// What is to happen in one life of a process. Clones are the same plan.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Plan(Arc<Mutex<State>>);

    #[derive(Debug, Default)]
    struct State {
        passed: Vec<Place>,
        at: Vec<(usize, Act)>,
        first: Option<(Place, Act)>,
        dead: bool,
    }

    impl Plan {
        /// `act` at the place that is passed as number `index`, from 0.
        pub(crate) fn at(self, index: usize, act: Act) -> Self {
            self.state().at.push((index, act));
            self
        }

        /// `act` the first time that `place` is passed.
        pub(crate) fn first(self, place: Place, act: Act) -> Self {
            self.state().first = Some((place, act));
            self
        }

        /// Makes this the plan of the current thread.
        pub(crate) fn enter(&self) {
            PLAN.with(|plan| *plan.borrow_mut() = Some(self.clone()));
        }

        /// The plan of the current thread.
        pub(crate) fn current() -> Option<Self> {
            PLAN.with(|plan| plan.borrow().clone())
        }

        /// Whether the process has died.
        pub(crate) fn is_dead(&self) -> bool {
            self.state().dead
        }

        /// The places passed so far.
        pub(crate) fn passed(&self) -> Vec<Place> {
            self.state().passed.clone()
        }

        fn state(&self) -> MutexGuard<'_, State> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        fn pass(&self, place: Place) -> Result<()> {
            let mut state = self.state();
            if !state.dead {
                let index = state.passed.len();
                state.passed.push(place);
                let planned = state.at.iter().find(|(at, _)| *at == index).map(|(_, act)| *act);
                let planned = planned.or_else(|| {
                    state.first.take_if(|(first, _)| *first == place).map(|(_, act)| act)
                });
                match planned {
                    None => return Ok(()),
                    Some(Act::Fail) => {}
                    Some(Act::Die) => state.dead = true,
                }
            }
            let (side, operation) = place;
            Err(Error::new(Kind::Storage, format!("planned failure {side} {operation}")))
        }
    }

    pub(super) fn reach(side: &'static str, operation: &'static str) -> Result<()> {
        Plan::current().map_or(Ok(()), |plan| plan.pass((side, operation)))
    }
}
