//! How many logins may fail, by address and by account.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::base::error::{Error, Kind, Result};

/// Addresses and accounts remembered at once; the oldest goes first.
const CAPACITY: usize = 8192;

/// Counts failed logins in windows of time. An attempt counts as failed until
/// it has succeeded, so that guesses made at the same time count too.
pub struct Throttle {
    attempts: u32,
    window: Duration,
    hasher: RandomState,
    counters: Mutex<HashMap<u64, Counter>>,
}

#[derive(Clone, Copy)]
struct Counter {
    failed: u32,
    since: Duration,
}

/// One attempt, to be told when it has succeeded.
#[derive(Debug)]
pub struct Attempt([u64; 2]);

impl Throttle {
    /// Lets `attempts` fail in each `window` of time.
    pub fn new(attempts: u32, window: Duration) -> Self {
        Self { attempts, window, hasher: RandomState::new(), counters: Mutex::default() }
    }

    /// Begins a login for `account` from `address`, at `now` of the monotonic
    /// clock.
    ///
    /// # Errors
    /// `Busy`, saying when to try again, after too many failures.
    pub fn begin(&self, address: IpAddr, account: &str, now: Duration) -> Result<Attempt> {
        let keys = [
            self.hasher.hash_one(("address", network(address))),
            self.hasher.hash_one(("account", account)),
        ];
        let mut counters = self.lock();
        let used_up = keys
            .iter()
            .filter_map(|key| counters.get(key))
            .filter(|counter| counter.failed >= self.attempts)
            .filter_map(|counter| self.left(counter, now))
            .max();
        if let Some(left) = used_up {
            let minutes = left.as_secs().div_ceil(60).max(1);
            let unit = if minutes == 1 { "minute" } else { "minutes" };
            let message = format!("Too many failed logins; try again in {minutes} {unit}");
            return Err(Error::new(Kind::Busy, message));
        }
        for key in keys {
            if counters.len() >= CAPACITY && !counters.contains_key(&key) {
                self.make_room(&mut counters, now);
            }
            let counter = counters.entry(key).or_insert(Counter { failed: 0, since: now });
            if self.left(counter, now).is_none() {
                *counter = Counter { failed: 0, since: now };
            }
            counter.failed = counter.failed.saturating_add(1);
        }
        Ok(Attempt(keys))
    }

    /// The attempt was a good login: it no longer counts. Earlier failures do,
    /// so that nobody clears them with an account of their own.
    pub fn succeeded(&self, attempt: Attempt) {
        let mut counters = self.lock();
        for key in attempt.0 {
            if let Some(counter) = counters.get_mut(&key) {
                counter.failed = counter.failed.saturating_sub(1);
            }
        }
    }

    /// How long the window of `counter` still lasts.
    fn left(&self, counter: &Counter, now: Duration) -> Option<Duration> {
        (counter.since + self.window).checked_sub(now).filter(|left| !left.is_zero())
    }

    fn make_room(&self, counters: &mut HashMap<u64, Counter>, now: Duration) {
        counters.retain(|_, counter| self.left(counter, now).is_some());
        if counters.len() >= CAPACITY
            && let Some(oldest) = counters.iter().min_by_key(|(_, c)| c.since).map(|(key, _)| *key)
        {
            counters.remove(&oldest);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Counter>> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What counts as one address: a whole /64 of IPv6, which one customer has.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(300);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn an_address_is_stopped_whatever_account_it_tries() {
        let throttle = Throttle::new(3, WINDOW);
        for account in ["a", "b", "c"] {
            throttle.begin(address(1), account, Duration::ZERO).unwrap();
        }
        let error = throttle.begin(address(1), "d", Duration::from_secs(60)).unwrap_err();
        assert_eq!(error.kind(), Kind::Busy);
        assert_eq!(error.message(), "Too many failed logins; try again in 4 minutes");
        assert!(throttle.begin(address(2), "d", Duration::ZERO).is_ok());
        assert!(throttle.begin(address(1), "d", WINDOW).is_ok());
    }

    #[test]
    fn an_account_is_guarded_whatever_address_tries() {
        let throttle = Throttle::new(3, WINDOW);
        for last in 1..=3 {
            throttle.begin(address(last), "ann", Duration::ZERO).unwrap();
        }
        assert!(throttle.begin(address(4), "ann", Duration::ZERO).is_err());
    }

    #[test]
    fn good_logins_never_count_and_never_clear() {
        let throttle = Throttle::new(2, WINDOW);
        throttle.begin(address(1), "victim", Duration::ZERO).unwrap();
        for _ in 0..10 {
            let own = throttle.begin(address(1), "own", Duration::ZERO).unwrap();
            throttle.succeeded(own);
        }
        throttle.begin(address(1), "victim", Duration::ZERO).unwrap();
        assert!(throttle.begin(address(1), "own", Duration::ZERO).is_err());
    }

    #[test]
    fn neighbours_in_ipv6_are_one_address() {
        let v6 = |text: &str| network(text.parse().unwrap());
        assert_eq!(v6("2001:db8:1:2::1"), v6("2001:db8:1:2:ffff::9"));
        assert_ne!(v6("2001:db8:1:2::1"), v6("2001:db8:1:3::1"));
        assert_eq!(v6("::ffff:192.0.2.1"), address(1));
    }

    #[test]
    fn the_table_stays_bounded() {
        let throttle = Throttle::new(3, WINDOW);
        for n in 0..6_000u32 {
            let from = IpAddr::from(n.to_be_bytes());
            let _ = throttle.begin(from, &n.to_string(), Duration::from_millis(n.into())).unwrap();
        }
        assert!(throttle.lock().len() <= CAPACITY);
    }
}
