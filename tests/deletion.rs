//! Deleting on the real daemon while it is killed again and again: what was said
//! to be deleted stays deleted, with its files, and all else stays.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::harness::client::Client;
use crate::harness::daemon::Daemon;
use crate::harness::speech::noise;

/// Conversations to begin with.
const CONVERSATIONS: usize = 30;
/// Times that the daemon is killed.
const KILLS: usize = 10;

async fn ids(client: &Client) -> BTreeSet<String> {
    let all = client.get("/api/conversations?view=list&limit=1000").await;
    let all = all["conversations"].as_array().unwrap().clone();
    all.iter().map(|c| c["conversation_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_is_deleted_stays_deleted_however_often_the_daemon_is_killed() {
    let models = tempfile::tempdir().unwrap();
    let keys = [("JOBS__SWEEP_INTERVAL", "1s"), ("CROPPING__ENABLED", "false")];
    let mut daemon = Daemon::without_models(models.path(), &keys);
    let mut admin = daemon.admin().await;
    for number in 0..CONVERSATIONS {
        let mut socket = admin.socket(&format!("d{number}")).await;
        socket.session(&noise(1.0, 2000.0), 0.0).await;
        socket.close().await;
    }
    let deadline = Instant::now() + Duration::from_secs(120);
    while admin.conversations().await.iter().any(|c| c["is_open"] == true)
        || ids(&admin).await.len() < CONVERSATIONS
    {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let all = ids(&admin).await;
    let (mut deleted, mut unsure) = (BTreeSet::new(), BTreeSet::new());
    for kill in 0..KILLS {
        // Two requests at once, and a kill somewhere in their middle.
        let targets: Vec<String> =
            all.difference(&deleted).filter(|id| !unsure.contains(*id)).take(2).cloned().collect();
        let requests = targets.into_iter().map(|id| {
            let request = admin.request("DELETE", &format!("/api/conversations/{id}"));
            tokio::spawn(async move {
                let answer = request.send().await;
                (id, answer.is_ok_and(|answer| answer.status() == 200))
            })
        });
        let requests: Vec<_> = requests.collect();
        tokio::time::sleep(Duration::from_millis(3 * kill as u64)).await;
        daemon.kill();
        for request in requests {
            let (id, done) = request.await.unwrap();
            if done {
                deleted.insert(id)
            } else {
                unsure.insert(id)
            };
        }
        daemon.restart();
        admin = daemon.admin().await;
        let left = ids(&admin).await;
        let back: Vec<_> = deleted.intersection(&left).collect();
        assert!(back.is_empty(), "came back after kill {kill}: {back:?}");
        let lost: Vec<_> =
            all.iter().filter(|id| !left.contains(*id) && !deleted.contains(*id)).collect();
        assert!(lost.iter().all(|id| unsure.contains(*id)), "nobody deleted {lost:?}");
        assert!(left.is_subset(&all), "made up: {left:?}");
    }
    assert!(!deleted.is_empty(), "it was always killed first");
    let left = ids(&admin).await;
    // The sweep has time to finish what was cut short.
    tokio::time::sleep(Duration::from_secs(3)).await;
    daemon.stop_clean();
    let files: Vec<String> = std::fs::read_dir(daemon.state_dir().join("audio"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for name in &files {
        assert!(left.iter().any(|id| name.contains(id.as_str())), "{name} is left of nothing");
    }
    assert!(files.len() >= left.len());
}
