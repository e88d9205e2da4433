//! The composition root: turns a [`Config`] into a running daemon. The only
//! place that names concrete adapters.

mod engines;
mod graph;
mod index;
mod migrate;
mod original;
mod services;
mod store;
mod waiting;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::base::clock::Clock;
use crate::base::error::{Context, Kind, Result};
use crate::base::system;
use crate::config::{Config, Wyoming};
use crate::discovery::{self, Service};
use crate::http;
use crate::http::api::Api;
use crate::http::auth::{self, Auth, Bootstrap, setup};
use crate::http::health::Health;
use crate::http::local;
use crate::http::tls::Certificate;
use crate::ingest::{Ingest, esp32, wyoming};
use crate::jobs::Wake;
use crate::jobs::load::Load;
use crate::jobs::worker::{Handler, Retry, Worker};
pub use crate::llm::ollama::Pulled;
use crate::models::{Catalog, Supply};
use crate::pipeline::archive::Archive;
use crate::pipeline::chat::Assistant;
use crate::pipeline::crop::Crop;
use crate::pipeline::deletion::Deletion;
use crate::pipeline::disk::DiskKeeper;
use crate::pipeline::finish::Finish;
use crate::pipeline::import::Import;
use crate::pipeline::learn::Learner;
use crate::pipeline::recall::Recall;
use crate::pipeline::reconcile::{Start, Sweep};
use crate::pipeline::relate::Relate;
use crate::pipeline::remember::Remember;
use crate::pipeline::retention::Retention;
use crate::pipeline::schedule::Schedule;
use crate::pipeline::timekeeper::Timekeeper;
use crate::pipeline::transcribe::Transcribe;
use crate::pipeline::upload::Uploader;
use crate::recording::Recordings;
use crate::store::Store;
use crate::supervisor::{Supervisor, blocking};
use crate::systemd;
use crate::upkeep::restore;
use engines::{Engines, watch_models};
pub use engines::{embedder, speech_engine};
pub use index::index_outside;
pub use migrate::{Migrated, migrate};
pub use original::original;
pub use services::{bucket, check_services, pull_models};
use store::Database;
pub use store::{
    database_damage, has_state, hold_state, open_store_alone, open_store_beside_daemon,
    open_store_to_look,
};

/// A daemon that accepts audio and requests.
pub struct App {
    /// Where it listens, with the port in force.
    pub address: SocketAddr,
    /// Where else it listens: `wyoming`, `esp32`.
    pub sources: Vec<(&'static str, SocketAddr)>,
    /// What listens at `address`: `http` or `https`.
    pub scheme: &'static str,
    /// The first administrator, when this start made one.
    pub first_admin: Option<Bootstrap>,
    /// Nobody has chosen the administrator's password yet.
    pub to_set_up: bool,
    /// Where its state lives.
    pub state_dir: PathBuf,
    supervisor: Supervisor,
    store: Arc<dyn Store>,
    /// Kept open for as long as this runs.
    _database: Database,
    clock: Clock,
    drain_timeout: Duration,
}

/// The workers that have windows transcribed.
const TRANSCRIBERS: [&str; 8] = [
    "transcribe",
    "transcribe-2",
    "transcribe-3",
    "transcribe-4",
    "transcribe-5",
    "transcribe-6",
    "transcribe-7",
    "transcribe-8",
];

/// How often it is noticed that a model has been fetched or has gone.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

impl App {
    /// Opens the state, starts the workers, and listens. A database outside that is
    /// away is waited for.
    ///
    /// # Errors
    /// `Config` when something configured cannot be used; `Conflict` when
    /// another daemon has the state directory; `Storage` when it cannot be
    /// opened.
    pub async fn start(config: Config) -> Result<Self> {
        let clock = Clock::system();
        let supervisor = Supervisor::new();
        let start = Start::new(clock.clone());
        systemd::report(&supervisor, &start);
        let config = Arc::new(config);
        let state_dir = config.state_dir();

        // A restore that was cut short is taken to its end before anything is read.
        {
            let _held = store::hold(&state_dir)?;
            restore::finish(&state_dir)?;
        }
        let certificate = Certificate::open(&config.tls)?;
        // Bound before anything is started: a taken port must leave no trace.
        let (listener, address) = listen("server.listen", &config.server.listen).await?;
        let (database, listener) =
            waiting::open(&config, &clock, listener, certificate.as_ref(), &start).await?;
        let store = database.store();
        let recordings =
            Recordings::open(&state_dir, config.recording.sync_interval.get(), clock.clone())?
                .with_reserve(config.disk.upload_reserve())
                .with_bucket(services::bucket(&config, &clock)?);
        let wyoming = match &*config.wyoming.listen {
            "" => None,
            at => listen_or_not("wyoming.listen", at, &Wyoming::default().listen).await?,
        };
        let esp32 = match &*config.esp32.user {
            "" => None,
            _ => Some(listen("esp32.listen", &config.esp32.listen).await?),
        };

        let wake = Wake::default();
        let timekeeper = Timekeeper::begin(store.clone(), clock.clone(), wake.clone()).await?;
        // No earlier process holds anything any more.
        sweep_spool(store.as_ref(), &recordings).await?;
        store.void_leases(false, clock.now()).await?;
        // Before an administrator is made: one may be among those who come.
        original::take_over(&config, &database, &recordings, &start.progress, &clock).await?;
        let first_admin = auth::bootstrap_admin(store.as_ref(), &config, &clock).await?;
        let to_set_up = setup::first_login(store.as_ref()).await?.is_some();

        let engines = Engines::new(&config, &recordings, &supervisor, &clock)?;
        let ingest = Ingest::new(
            store.clone(),
            recordings.clone(),
            wake.clone(),
            clock.clone(),
            config.clone(),
            supervisor.clone(),
            engines.listener.clone(),
        );
        let (index, index_service) =
            index::open(&config, &database, engines.embedder.name(), &clock).await?;
        database.keep_alive(&config, &ingest, &wake, &clock, &supervisor);
        let sweep = Sweep::new(
            store.clone(),
            recordings.clone(),
            ingest.clone(),
            &config,
            wake.clone(),
            clock.clone(),
        );
        let sweep = Arc::new(sweep.with_start(start.clone()));
        let every = config.jobs.sweep_interval.get();
        supervisor.service("sweep", move |stop| {
            let sweep = sweep.clone();
            async move { sweep.run(every, stop).await }
        });
        supervisor.once(timekeeper.run(every, supervisor.stop_token()));
        supervisor.service("memory", system::keep_memory_small);
        keep_disk(&config, &supervisor, &store, &recordings, &ingest, &clock);
        keep_bucket(&config, &supervisor, &store, &recordings, &clock);
        let learner = Learner::new(
            store.clone(),
            index.clone(),
            engines.embedder.clone(),
            engines.llm.clone(),
            config.memory.deadline.get(),
            clock.clone(),
        );
        start_workers(
            &config,
            &supervisor,
            &store,
            &engines,
            learner.clone(),
            recordings.clone(),
            Schedule::new(config.transcribe.when, ingest.clone(), clock.clone()),
            ingest.load().clone(),
            &wake,
            &clock,
        );

        let (graph, graph_service) = graph::open(&config, &database, &clock).await?;
        if config.graph.enabled {
            let relate =
                Relate::new(graph.clone(), engines.llm.clone(), config.jobs.retry_pause.get());
            graph::keep(relate, &wake, &supervisor);
        }
        if index_service.is_some() {
            index::keep(&index, &wake, &supervisor);
        }
        let bucket_service = recordings.bucket().map(|bucket| bucket.service().clone());
        let outside = [index_service, graph_service, database.service(), bucket_service];
        let outside = engines.services.iter().cloned().chain(outside.into_iter().flatten());
        let health = Health::new(outside.collect());
        watch_models(&engines, &health);
        {
            let (engines, health) = (engines.clone(), health.clone());
            let (store, load) = (store.clone(), ingest.load().clone());
            let wake = wake.clone();
            supervisor.service("health", move |stop| {
                let (engines, health) = (engines.clone(), health.clone());
                let (store, load, wake) = (store.clone(), load.clone(), wake.clone());
                async move {
                    while !stop.is_cancelled() {
                        if watch_models(&engines, &health) {
                            // What waited for it is done now.
                            wake.wake();
                        }
                        load.note(store.backlog().await?);
                        tokio::select! {
                            () = stop.cancelled() => {}
                            () = tokio::time::sleep(HEALTH_INTERVAL) => {}
                        }
                    }
                    Ok(())
                }
            });
        }

        let supply = Supply::new(Catalog::builtin()?, &config, clock.clone())?;
        if config.models.fetch {
            fetch_models(&supply, &supervisor, &engines, &health, &wake);
        }

        let mut sources = Vec::new();
        if let Some((listener, address)) = wyoming {
            sources.push(("wyoming", address));
            let (listener, ingest) = (Arc::new(listener), ingest.clone());
            let stt = engines.stt.clone();
            supervisor.service("wyoming", move |_| {
                let (listener, ingest, stt) = (listener.clone(), ingest.clone(), stt.clone());
                async move { wyoming::serve(&listener, ingest, stt).await }
            });
        }
        if let Some((listener, address)) = esp32 {
            sources.push(("esp32", address));
            let (listener, ingest) = (Arc::new(listener), ingest.clone());
            supervisor.service("esp32", move |_| {
                let (listener, ingest) = (listener.clone(), ingest.clone());
                async move { esp32::serve(&listener, ingest).await }
            });
        }

        let scheme = if certificate.is_some() { "https" } else { "http" };
        let listening = [(scheme, address)].into_iter().chain(sources.iter().copied()).collect();
        let name = watch::Sender::new(device_name(&config, store.as_ref()).await?);
        announce(&config, &supervisor, &name, address, &sources);
        let mut recall = Recall::new(store.clone(), index, engines.embedder.clone());
        if config.graph.enabled {
            recall = recall.with_graph(graph.clone(), config.graph.widen);
        }
        let api = Arc::new(Api {
            speech: engines.stt.clone(),
            assistant: Assistant::new(
                store.clone(),
                recall.clone(),
                learner,
                engines.llm.clone(),
                clock.clone(),
            ),
            recall,
            graph,
            auth: Auth::new(store.clone(), clock.clone(), &config).await?,
            deletion: Deletion::new(
                store.clone(),
                recordings.clone(),
                ingest.clone(),
                clock.clone(),
            ),
            store: store.clone(),
            ingest,
            recordings,
            wake,
            health,
            supply,
            name,
            engines: engines.processes.clone(),
            started: clock.monotonic(),
            listening,
            clock: clock.clone(),
            config: config.clone(),
            supervisor: supervisor.clone(),
        });
        answer_locally(&state_dir, &supervisor, &api);
        let tls = match &certificate {
            Some(certificate) => {
                certificate.watch(&supervisor);
                Some(certificate.acceptor())
            }
            None => None,
        };
        let (server, serve_config, serve_clock) =
            (supervisor.clone(), config.clone(), clock.clone());
        supervisor.once(async move {
            let router = http::router(api);
            let served =
                http::server::serve(listener, tls, router, &serve_config, &serve_clock, &server);
            if let Err(error) = served.await {
                tracing::error!("the HTTP server ended: {}", error.report());
                server.stop();
            }
        });
        systemd::watch_writer(&supervisor, store.clone());
        let drain_timeout = config.server.drain_timeout.get();
        Ok(Self {
            address,
            sources,
            scheme,
            first_admin,
            to_set_up,
            state_dir,
            supervisor,
            store,
            _database: database,
            clock,
            drain_timeout,
        })
    }

    /// Cancelled when the daemon stops by itself.
    pub fn stopped(&self) -> tokio_util::sync::CancellationToken {
        self.supervisor.stop_token()
    }

    /// Stops in order: streams are closed and their recordings synced, jobs put
    /// back without counting the attempt.
    pub async fn stop(self) {
        let limit = self.drain_timeout + Duration::from_secs(5);
        systemd::stopping(limit + Duration::from_secs(5));
        self.supervisor.stop();
        if !self.supervisor.drain(limit).await {
            tracing::warn!(
                "some tasks did not end in time; the next start picks up what they left"
            );
        }
        if let Err(error) = self.store.void_leases(true, self.clock.now()).await {
            tracing::warn!(
                "jobs could not be put back now; the next start does it: {}",
                error.report()
            );
        }
    }
}

/// Takes the address that the configuration has under `key`; its port in force.
async fn listen(key: &str, at: &str) -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(at).await.with_context(Kind::Config, || {
        format!("cannot listen on {at} ({key}); does another program have it?")
    })?;
    let address = listener.local_addr().context(Kind::Internal, "the listener has no address")?;
    Ok((listener, address))
}

/// As [`listen`], for an edge that the daemon does without where nobody chose its
/// address: when another program has `usual`, it says so and goes on.
async fn listen_or_not(
    key: &str,
    at: &str,
    usual: &str,
) -> Result<Option<(TcpListener, SocketAddr)>> {
    match listen(key, at).await {
        Err(error) if at == usual => {
            tracing::warn!("goes on without: {}; choose another with {key}", error.report());
            Ok(None)
        }
        bound => bound.map(Some),
    }
}

/// Has the room on the disk looked after, and what is old deleted.
fn keep_disk(
    config: &Config,
    supervisor: &Supervisor,
    store: &Arc<dyn Store>,
    recordings: &Recordings,
    ingest: &Arc<Ingest>,
    clock: &Clock,
) {
    let deletion = Deletion::new(store.clone(), recordings.clone(), ingest.clone(), clock.clone());
    let (store, recordings, clock) = (store.clone(), recordings.clone(), clock.clone());
    let retention = Retention::new(
        store.clone(),
        recordings.clone(),
        deletion.clone(),
        config.retention.clone(),
        clock.clone(),
    );
    supervisor.once(retention.run(supervisor.stop_token()));
    let config = config.disk.clone();
    supervisor.service("disk", move |stop| {
        let (store, recordings) = (store.clone(), recordings.clone());
        let keeper = DiskKeeper::new(store, recordings, deletion.clone(), &config, clock.clone());
        keeper.run(config.check_interval.get(), stop)
    });
}

/// Has the bucket kept in step with the recordings, if there is one.
fn keep_bucket(
    config: &Config,
    supervisor: &Supervisor,
    store: &Arc<dyn Store>,
    recordings: &Recordings,
    clock: &Clock,
) {
    let Some(bucket) = recordings.bucket().cloned() else { return };
    let (store, recordings, clock) = (store.clone(), recordings.clone(), clock.clone());
    let (rules, every) = (config.recording.clone(), config.s3.interval.get());
    supervisor.service("bucket", move |stop| {
        let (store, recordings) = (store.clone(), recordings.clone());
        let uploader = Uploader::new(store, recordings, bucket.clone(), &rules, clock.clone());
        uploader.run(every, stop)
    });
}

#[allow(clippy::too_many_arguments)]
fn start_workers(
    config: &Arc<Config>,
    supervisor: &Supervisor,
    store: &Arc<dyn Store>,
    engines: &Engines,
    learner: Learner,
    recordings: Recordings,
    schedule: Schedule,
    load: Load,
    wake: &Wake,
    clock: &Clock,
) {
    let crop = Crop::new(
        store.clone(),
        recordings.clone(),
        config.transcribe.vad_mode,
        &config.cropping,
        clock.clone(),
    );
    let kbps = config.recording.archive_kbps;
    let archive = Archive::new(store.clone(), recordings.clone(), kbps, clock.clone());
    let import =
        Import::new(store.clone(), recordings.clone(), config.clone(), wake.clone(), clock.clone());
    let transcribe = Transcribe::new(
        store.clone(),
        recordings,
        engines.stt.clone(),
        schedule,
        load,
        clock.clone(),
    );
    let finish =
        Finish::new(store.clone(), config.memory.clone(), config.cropping.enabled, clock.clone());
    let remember = Remember::new(store.clone(), learner, clock.clone());
    let retry =
        Retry { max_attempts: config.jobs.max_attempts, pause: config.jobs.retry_pause.get() };
    let mut handlers: Vec<(&'static str, Arc<dyn Handler>)> = vec![
        ("import", Arc::new(import)),
        ("finish", Arc::new(finish)),
        ("remember", Arc::new(remember)),
        ("crop", Arc::new(crop)),
        ("archive", Arc::new(archive)),
    ];
    let transcribe: Arc<dyn Handler> = Arc::new(transcribe);
    let parallel = match config.speech_engines().first() {
        // It takes one after the other.
        Some(&"whisper") | None => 1,
        Some(_) => config.stt.parallel,
    };
    handlers.extend(TRANSCRIBERS.iter().take(parallel).map(|name| (*name, transcribe.clone())));
    for (name, handler) in handlers {
        let worker = Worker::new(name, store.clone(), handler, wake.clone(), clock.clone(), retry);
        let worker = Arc::new(worker.with_pulse(supervisor.heart().part(name)));
        supervisor.service(name, move |stop| {
            let worker = worker.clone();
            async move { worker.run(stop).await }
        });
    }
}

/// Has the models that are missing fetched; what waits for one is done once it
/// is here.
fn fetch_models(
    supply: &Supply,
    supervisor: &Supervisor,
    engines: &Engines,
    health: &Health,
    wake: &Wake,
) {
    let (supply, engines) = (supply.clone(), engines.clone());
    let (health, wake) = (health.clone(), wake.clone());
    supervisor.service("models", move |stop| {
        let (supply, engines) = (supply.clone(), engines.clone());
        let (health, wake) = (health.clone(), wake.clone());
        let arrived = move || {
            watch_models(&engines, &health);
            wake.wake();
        };
        async move { supply.run(arrived, stop).await }
    });
}

/// Removes what uploads that never arrived whole have left.
async fn sweep_spool(store: &dyn Store, recordings: &Recordings) -> Result<()> {
    let needed = store.spooled_uploads().await?.into_iter().collect();
    let swept = recordings.spool().sweep(needed).await?;
    if swept > 0 {
        tracing::info!(swept, "removed unfinished uploads");
    }
    Ok(())
}

/// What the device is called: as configured, else as chosen on the setup page.
async fn device_name(config: &Config, store: &dyn Store) -> Result<String> {
    if !config.discovery.name.is_empty() {
        return Ok(config.discovery.name.clone());
    }
    let chosen = store.setting(discovery::NAME_SETTING).await?;
    Ok(chosen.unwrap_or_else(discovery::default_name))
}

/// Makes the daemon known on the local network, again whenever it gets another
/// name. Without that it does its work all the same.
fn announce(
    config: &Arc<Config>,
    supervisor: &Supervisor,
    name: &watch::Sender<String>,
    address: SocketAddr,
    sources: &[(&'static str, SocketAddr)],
) {
    let mut services = vec![Service { kind: discovery::FRIEND_LITE, address }];
    let wyoming = sources.iter().filter(|(name, _)| *name == "wyoming");
    services.extend(
        wyoming.map(|(_, address)| Service { kind: discovery::WYOMING, address: *address }),
    );
    let (config, names) = (config.clone(), name.subscribe());
    supervisor.service("discovery", move |stop| {
        let (config, services, mut names) = (config.clone(), services.clone(), names.clone());
        async move {
            while !stop.is_cancelled() {
                let name = names.borrow_and_update().clone();
                let announced = discovery::announce(&config.discovery, &name, &services);
                let announcement = announced.unwrap_or_else(|error| {
                    tracing::warn!("clients need the address by hand: {}", error.report());
                    None
                });
                tokio::select! {
                    () = stop.cancelled() => {}
                    Ok(()) = names.changed() => {}
                }
                // Says goodbye, which takes a moment of its own.
                blocking(move || {
                    drop(announcement);
                    Ok(())
                })
                .await?;
            }
            Ok(())
        }
    });
}

/// Has whoever owns the state told how the daemon is. Without that it does its
/// work all the same.
fn answer_locally(state_dir: &Path, supervisor: &Supervisor, api: &Arc<Api>) {
    let listener = match local::listen(state_dir) {
        Ok(listener) => Arc::new(listener),
        Err(error) => {
            tracing::warn!("`friend-lite status` will not work: {}", error.report());
            return;
        }
    };
    let api = api.clone();
    supervisor.service("status", move |stop| {
        let (listener, api) = (listener.clone(), api.clone());
        async move { local::serve(&listener, &api, stop).await }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_stops_the_daemon_only_where_somebody_chose_it() {
        let (_holder, taken) = listen("a.listen", "127.0.0.1:0").await.unwrap();
        let taken = taken.to_string();
        let error = listen_or_not("a.listen", &taken, "127.0.0.1:1").await.unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (Kind::Config, 64));
        assert!(error.message().contains("(a.listen)"), "{error}");
        assert!(listen_or_not("a.listen", &taken, &taken).await.unwrap().is_none());
        assert!(listen_or_not("a.listen", "127.0.0.1:0", "127.0.0.1:0").await.unwrap().is_some());
    }
}
