//! The supervision against a program that misbehaves on request; what the real
//! engines do is tested with them.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::wyoming::Event;
use crate::wyoming::event::{Ping, Pong};

const SCRIPT: &str = r#"#!/bin/sh
echo "started with secret '$FRIEND_LITE_SECRET' and $*" >&2
while read -r line; do
  case "$line" in
    *describe*) echo '{"type":"info","data":{"asr":[]}}' ;;
    *crash*) echo 'about to die' >&2; kill -SEGV $$ ;;
    *quit*) exit 3 ;;
    *hang*) exec sleep 1000 ;;
    *nonsense*) echo 'hello there' ;;
    *refuse*) echo '{"type":"error","data":{"text":"no such thing","code":"bad-input"}}' ;;
    *leave*) echo '{"type":"pong","data":{"text":"bye"}}'; exit 0 ;;
    *) echo "{\"type\":\"pong\",\"data\":{\"text\":\"$$\"}}" ;;
  esac
done
"#;

struct Bench {
    engine: Arc<Engine>,
    supervisor: Supervisor,
    _dir: tempfile::TempDir,
}

fn bench(script: &str, idle: Duration) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("engine");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let supervisor = Supervisor::new();
    let name = "test/model".to_owned();
    let spec = Spec {
        name,
        program,
        model: "m".into(),
        args: vec!["--model".into(), "m".into()],
        start_timeout: Duration::from_secs(60),
        idle_timeout: idle,
    };
    Bench { engine: Engine::new(spec, &supervisor), supervisor, _dir: dir }
}

fn usual() -> Bench {
    bench(SCRIPT, Duration::from_secs(600))
}

/// Asks for `text`; the answer is the process id.
async fn ask(engine: &Engine, text: &str, deadline: Duration) -> Result<String> {
    let ask = async |link: &mut Link| {
        link.send(Event::of(&Ping { text: Some(text.to_owned()) })).await?;
        let (pong, _) = link.answer::<Pong>().await?;
        Ok(pong.text.unwrap_or_default())
    };
    engine.call(deadline, ask).await
}

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn one_process_answers_request_after_request() {
    let bench = usual();
    assert_eq!(bench.engine.starts(), 0);
    let first = ask(&bench.engine, "a", LONG).await.unwrap();
    let second = ask(&bench.engine, "b", LONG).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(first, bench.engine.pid().unwrap().to_string());
    assert_eq!((bench.engine.starts(), bench.engine.crashes()), (1, 0));
}

#[tokio::test]
async fn a_refused_request_costs_nobody_the_engine() {
    let bench = usual();
    let error = ask(&bench.engine, "refuse", LONG).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::BadInput, "test/model: no such thing"));
    ask(&bench.engine, "a", LONG).await.unwrap();
    assert_eq!((bench.engine.starts(), bench.engine.crashes()), (1, 0));
}

#[tokio::test]
async fn a_crash_is_named_and_the_next_request_starts_again() {
    let bench = usual();
    for (request, what) in
        [("crash", "SIGSEGV"), ("quit", "exit status: 3"), ("nonsense", "sent nonsense")]
    {
        let error = ask(&bench.engine, request, LONG).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.report().contains(what), "{request}: {}", error.report());
    }
    let error = ask(&bench.engine, "crash", LONG).await.unwrap_err();
    assert!(error.message().contains("about to die"), "{}", error.message());
    assert!(error.message().contains("secret ''"), "{}", error.message());
    ask(&bench.engine, "a", LONG).await.unwrap();
    assert_eq!((bench.engine.starts(), bench.engine.crashes()), (5, 4));
}

#[tokio::test]
async fn a_deadline_holds_and_kills() {
    let bench = usual();
    let pid = ask(&bench.engine, "a", LONG).await.unwrap();
    let error = ask(&bench.engine, "hang", Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert_ne!(ask(&bench.engine, "a", LONG).await.unwrap(), pid);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_does_not_load_in_time_is_ended() {
    let bench = bench("#!/bin/sh\nexec sleep 1000\n", Duration::from_secs(600));
    let began = tokio::time::Instant::now();
    let error = ask(&bench.engine, "a", Duration::from_secs(3600)).await.unwrap_err();
    assert_eq!((error.kind(), began.elapsed().as_secs()), (Kind::Timeout, 60));
    assert!(error.message().contains("was not ready in time"), "{error}");
    assert_eq!((bench.engine.starts(), bench.engine.crashes()), (1, 1));
}

#[tokio::test]
async fn an_answer_of_the_language_model_has_twenty_minutes_and_no_more() {
    let bench = usual();
    ask(&bench.engine, "a", LONG).await.unwrap();
    // From here on time passes as fast as nothing happens.
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let deadline = crate::config::Llm::default().deadline.get();
    let error = ask(&bench.engine, "hang", deadline).await.unwrap_err();
    assert_eq!((error.kind(), began.elapsed().as_secs()), (Kind::Timeout, 1200));
    assert_eq!((bench.engine.starts(), bench.engine.crashes()), (1, 1));
}

#[tokio::test]
async fn a_dropped_request_never_answers_the_next() {
    let bench = usual();
    let pid = ask(&bench.engine, "a", LONG).await.unwrap();
    let slow = ask(&bench.engine, "hang", LONG);
    assert!(tokio::time::timeout(Duration::from_millis(50), slow).await.is_err());
    assert_ne!(ask(&bench.engine, "a", LONG).await.unwrap(), pid);
}

#[tokio::test]
async fn an_engine_that_died_while_idle_is_replaced_unnoticed() {
    let bench = usual();
    ask(&bench.engine, "leave", LONG).await.unwrap();
    while bench.engine.pid().is_some_and(|pid| !zombie(pid)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    ask(&bench.engine, "a", LONG).await.unwrap();
    assert_eq!((bench.engine.starts(), bench.engine.crashes()), (2, 1));
}

fn zombie(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    status.map_or(true, |status| status.contains("State:\tZ"))
}

#[tokio::test]
async fn an_idle_engine_is_ended() {
    let bench = bench(SCRIPT, Duration::from_millis(100));
    let pid = ask(&bench.engine, "a", LONG).await.unwrap();
    while bench.engine.pid().is_some() || std::path::Path::new(&format!("/proc/{pid}")).exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    ask(&bench.engine, "a", LONG).await.unwrap();
    assert_eq!((bench.engine.starts(), bench.engine.crashes()), (2, 0));
}

#[tokio::test]
async fn shutdown_ends_the_engine_and_the_request() {
    let bench = usual();
    let pid = ask(&bench.engine, "a", LONG).await.unwrap();
    let stop = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        bench.supervisor.stop();
    };
    let (answer, ()) = tokio::join!(ask(&bench.engine, "hang", LONG), stop);
    assert_eq!(answer.unwrap_err().kind(), Kind::Unavailable);
    assert!(bench.supervisor.drain(LONG).await);
    // The kill has been sent by now; the kernel takes its moment.
    let dead = async {
        while !zombie(pid.parse().unwrap()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, dead).await.is_ok());
    assert_eq!(ask(&bench.engine, "a", LONG).await.unwrap_err().kind(), Kind::Unavailable);
}

#[tokio::test]
async fn an_engine_that_cannot_start_says_why() {
    let bench = bench("#!/bin/sh\necho 'no such model: m' >&2\nexit 64\n", LONG);
    let error = ask(&bench.engine, "a", LONG).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.message().contains("no such model"), "{}", error.message());
}

#[tokio::test]
async fn an_exclusive_gate_ends_the_other_engine() {
    use crate::domain::job::Lane;
    use crate::engine::gate::Gate;

    let (one, two) = (usual(), usual());
    for exclusive in [false, true] {
        let gate = Gate::new(exclusive);
        gate.admit(&one.engine);
        gate.admit(&two.engine);
        for bench in [&one, &two] {
            let _permit = gate.enter(Lane::Live, &bench.engine).await;
            ask(&bench.engine, "a", LONG).await.unwrap();
        }
        assert_eq!(one.engine.pid().is_some(), !exclusive);
        assert!(two.engine.pid().is_some());
    }
    assert_eq!((one.engine.starts(), one.engine.crashes()), (1, 0));
}
