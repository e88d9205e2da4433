//! What every adapter of a service outside does when that fails: it says so in
//! time, leaves it alone, and goes on when it is back.

use std::time::Duration;

use friend_lite::base::error::{Kind, Result};
use friend_lite::remote::{Phase, Service};
use tokio::time::{Instant, sleep};

use super::Report;
use crate::harness::faulty::{self, Fault, Proxy};
use crate::harness::services::{KEY, Server};

/// Time one request may take in these tests.
pub(super) const DEADLINE: Duration = Duration::from_secs(12);

/// `ask` asks the service once, by way of `proxy`.
pub(super) async fn suite(
    report: &mut Report,
    server: &mut Server,
    proxy: &Proxy,
    service: &Service,
    ask: impl AsyncFn() -> Result<()>,
) {
    ask().await.unwrap();
    let failed = async |what: &str| {
        let error = ask().await.expect_err(what);
        assert!(error.is_transient(), "{what}: {:?}: {}", error.kind(), error.report());
        assert!(!error.report().contains(KEY), "{}", error.report());
        assert_ne!(service.standing().phase, Phase::Closed, "{what}");
        error
    };
    let recovers = async |what: &str| {
        let until = Instant::now() + Duration::from_secs(60);
        while let Err(error) = ask().await {
            assert!(Instant::now() < until, "{what}: {}", error.report());
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(service.standing().phase, Phase::Closed, "{what}");
    };
    for fault in faulty::ALL {
        proxy.set(fault);
        failed(&format!("{fault:?}")).await;
        proxy.set(Fault::None);
        recovers(&format!("{fault:?}")).await;
        report.passed(format!("{fault:?}: told, left alone, asked again"));
    }

    server.kill();
    failed("killed").await;
    sleep(Duration::from_millis(150)).await;
    assert_eq!(failed("still away").await.kind(), Kind::Away);
    server.restart();
    recovers("started again").await;
    report.passed("killed and started again");

    server.freeze();
    let began = Instant::now();
    let error = failed("frozen").await;
    assert_eq!(error.kind(), Kind::Timeout, "{}", error.report());
    assert!(began.elapsed() < DEADLINE * 2, "{:?}", began.elapsed());
    server.thaw();
    recovers("thawed").await;
    report.passed("frozen until the timeout");
}
