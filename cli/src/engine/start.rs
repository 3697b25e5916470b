//! Putting the engine together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use sovereign_agents::programs::{Environment, Program, Programs};
use sovereign_agents::{Runner, RunnerOptions, SystemClock};
use sovereign_console::{
    Console, ConsoleOptions, HealthSource as _, Services, Token, TokenBook, metrics_recorder,
};
use sovereign_event_store::rights::{self, Granted, Part};
use sovereign_event_store::{
    Artifacts, Checkpoints, Gate, JobQueueStore, KeyStore, Ledger, LedgerOptions, LedgerReader,
};
use sovereign_guard::access::CredentialKey;
use sovereign_guard::seal::MasterKey;
use sovereign_jobs::{Feeder, Scheduler};
use sovereign_kafka::{
    Commands, CommandsOptions, KafkaOptions, RegistryOptions, Relay, RelayOptions, SchemaIds,
    TopicSettings, Turn, WorkGroup, WorkOptions, ensure_topics,
};
use sovereign_projections::{Projector, ViewsOptions, ViewsReader, ViewsStore};
use sovereign_schemas::{Departments, ErrorCode, Problem, Timestamp};
use sovereign_servers::{DataFolder, Options, Servers, Wanted};
use tokio::sync::watch;

use super::acting::Acting;
use super::api::{Events, TokenFile, Views};
use super::approvals::Approvals;
use super::gateway::Door;
use super::health::PROGRAMS;
use super::jobs::Jobs;
use super::lanes::{self, Lanes};
use super::letters::Letters;
use super::market::SharedMarket;
use super::parts::{Engine, Parts, RelayStart};
use super::registry::Registry;
use super::services::{AgentCheckpoints, Probe};
use super::{Reporter, programs, servers, work};
use crate::args::UpArgs;
use crate::config;
use crate::describe::Describer;
use crate::failure::{Failure, Result, internal};
use crate::location::{EngineState, Location, write_private};
use crate::reveal::{self, Revealer};

/// Connections with which the API reads events.
const API_READERS_MAX: u32 = 6;
/// How long a started engine may take until every part is healthy.
const HEALTHY_LIMIT: Duration = Duration::from_secs(60);

pub(super) async fn start(
    location: &Location,
    reporter: &Reporter,
    args: UpArgs,
    stop: watch::Sender<bool>,
) -> Result<Engine> {
    let folder = DataFolder::open(&location.folder).map_err(|e| servers::problem(&e))?;
    let config_path = args
        .config
        .clone()
        .or_else(|| Some(location.path("sovereign.toml")).filter(|path| path.exists()));
    let config::Config {
        departments,
        programs,
        // a worker reads them itself
        processes: _,
    } = config::load(config_path.as_deref())?;
    let kafka_properties = properties(args.kafka_properties.as_deref())?;
    let metrics = metrics_recorder().map_err(internal)?;
    let local = local_servers(&folder, reporter, &args).await?;
    let addresses = Addresses::new(&args, local.as_deref())?;
    let started = assemble(
        location,
        reporter,
        &args,
        Assembly {
            folder,
            config_path,
            departments,
            programs,
            kafka_properties,
            metrics,
            addresses,
            stop,
        },
        local.clone(),
    )
    .await;
    if started.is_err()
        && let Some(servers) = local
    {
        servers.stop().await;
    }
    started
}

struct Assembly {
    folder: DataFolder,
    config_path: Option<std::path::PathBuf>,
    departments: Departments,
    programs: Vec<Program>,
    kafka_properties: BTreeMap<String, String>,
    metrics: sovereign_console::MetricsHandle,
    addresses: Addresses,
    stop: watch::Sender<bool>,
}

/// Where the servers are, ours or others'.
struct Addresses {
    database: String,
    keys_database: String,
    /// Of the ledger, as the API.
    api_database: String,
    /// Of the ledger, as a worker.
    worker_database: String,
    worker_keys_database: String,
    brokers: String,
}

impl Addresses {
    fn new(args: &UpArgs, local: Option<&Servers>) -> Result<Self> {
        let own = |url: Option<&sovereign_servers::SecretUrl>| url.map(|u| u.expose().to_owned());
        let missing = || internal("a local server has no address");
        let database = args.database.clone();
        let database = database
            .or_else(|| own(local?.database_url()))
            .ok_or_else(missing)?;
        let keys_database = args
            .keys_database
            .clone()
            .or_else(|| args.database.clone())
            .or_else(|| own(local?.keys_database_url()))
            .ok_or_else(missing)?;
        let api_database = args
            .api_database
            .clone()
            .or_else(|| args.database.clone())
            .or_else(|| own(local?.api_database_url()))
            .ok_or_else(missing)?;
        // workers elsewhere than on servers of ours use the engine's own role
        let both = args.database.is_none() && args.keys_database.is_none();
        let servers = local.filter(|_| both);
        let worker_database = own(servers.and_then(Servers::worker_database_url));
        let worker_keys = own(servers.and_then(Servers::worker_keys_database_url));
        let brokers = args.brokers.clone();
        let brokers = brokers
            .or_else(|| local?.brokers().map(str::to_owned))
            .ok_or_else(missing)?;
        Ok(Self {
            worker_database: worker_database.unwrap_or_else(|| database.clone()),
            worker_keys_database: worker_keys.unwrap_or_else(|| keys_database.clone()),
            database,
            keys_database,
            api_database,
            brokers,
        })
    }
}

async fn local_servers(
    folder: &DataFolder,
    reporter: &Reporter,
    args: &UpArgs,
) -> Result<Option<Arc<Servers>>> {
    let wanted = Wanted {
        postgres: args.database.is_none(),
        kafka: args.brokers.is_none(),
    };
    if !wanted.postgres && !wanted.kafka {
        return Ok(None);
    }
    reporter.step("starting local servers");
    let to = reporter.clone();
    let options = Options {
        wanted,
        progress: Arc::new(move |step: &str| to.step(step)),
        ..Options::default()
    };
    let servers = Servers::start(folder, options)
        .await
        .map_err(|e| servers::problem(&e))?;
    Ok(Some(Arc::new(servers)))
}

async fn assemble(
    location: &Location,
    reporter: &Reporter,
    args: &UpArgs,
    assembly: Assembly,
    local: Option<Arc<Servers>>,
) -> Result<Engine> {
    let Assembly {
        folder,
        config_path,
        departments,
        programs,
        kafka_properties,
        metrics,
        addresses,
        stop,
    } = assembly;
    reporter.step("opening the ledger");
    let options = LedgerOptions::new(&addresses.database, departments.clone());
    let ledger = Ledger::open(options).await.map_err(|e| e.problem())?;
    let elsewhere = args.master_key.as_deref().map(std::path::absolute);
    let master_path = elsewhere.transpose().map_err(internal)?;
    let master = master_key(location, master_path.as_deref())?;
    if addresses.keys_database == addresses.database {
        tracing::warn!("subject keys share a database with the ledger; see --keys-database");
    }
    let keys = KeyStore::open(&addresses.keys_database, master)
        .await
        .map_err(|e| e.problem())?;
    let sealed = Describer {
        departments: departments.clone(),
        revealer: None,
    };
    let describer = Describer {
        departments: departments.clone(),
        revealer: Some(Revealer::with(keys.clone())),
    };
    let door = Door::new(Gate::new(departments.clone(), keys), ledger.clone());
    let queue = JobQueueStore::connect(&addresses.database).map_err(|e| e.problem())?;
    let views = ViewsStore::new(&addresses.database).map_err(|e| e.problem())?;
    views.migrate().await.map_err(|error| {
        let mut problem = error.problem();
        let address = sovereign_event_store::address_of(&addresses.database);
        problem.message = format!("{address}: {}", problem.message);
        problem
    })?;
    let api = rights::grant(&addresses.database, &addresses.api_database, Part::Api).await;
    if api.map_err(|e| e.problem())? == Granted::OwnRole {
        tracing::warn!("the API reads under the engine's own role; see --api-database");
    }
    let Addresses {
        database,
        worker_database,
        ..
    } = &addresses;
    let worker = rights::grant(database, worker_database, Part::Worker).await;
    worker.map_err(|e| e.problem())?;
    let worker = rights::grant_keys(&addresses.keys_database, &addresses.worker_keys_database);
    worker.await.map_err(|e| e.problem())?;
    views
        .grant_reading(&addresses.api_database)
        .await
        .map_err(|e| e.problem())?;
    let tails = ledger.clone();
    let views = Projector::start(ViewsOptions::new(&addresses.database), move || {
        Box::new(tails.tail())
    })
    .map_err(|e| e.problem())?;
    // until the group says which are ours
    views.assign(&BTreeSet::new());
    let artifacts = Artifacts::connect(&addresses.database).map_err(|e| e.problem())?;
    let market = Arc::new(SharedMarket::new(location.path("market"), artifacts));
    let view_rows = ViewsReader::new(&addresses.api_database).map_err(|e| e.problem())?;
    let parts = Arc::new(Parts {
        view_rows: view_rows.clone(),
        ledger: ledger.clone(),
        servers: local,
        views,
        relay: RwLock::new(None),
        agents: OnceLock::new(),
        lanes: OnceLock::new(),
        programs: OnceLock::new(),
        letters: OnceLock::new(),
        commands: OnceLock::new(),
        jobs: OnceLock::new(),
        schedules: OnceLock::new(),
        market: market.clone(),
        work: OnceLock::new(),
        state: OnceLock::new(),
        stop: stop.clone(),
    });

    reporter.step("opening the API");
    let api_reader =
        LedgerReader::connect(&addresses.api_database, API_READERS_MAX).map_err(|e| e.problem())?;
    let events = Arc::new(Events {
        reader: api_reader.clone(),
        ledger: ledger.clone(),
        describer,
    });
    let rows = Arc::new(Views(view_rows));
    let services = Services {
        health: parts.clone(),
        metrics,
        commands: door.clone(),
        status: parts.clone(),
        tasks: parts.clone(),
        digest: parts.clone(),
        views: parts.clone(),
        approvals: Arc::new(Approvals {
            events: events.clone(),
            views: rows.clone(),
        }),
        agents: Arc::new(Acting::new(door.clone(), api_reader)),
        jobs: Arc::new(Jobs::new(door.clone(), queue.clone(), departments.clone())),
        events,
        rows,
        tokens: Arc::new(tokens(location).await?),
        shutdown: parts.clone(),
        schemas: Arc::new(Registry::connect(&addresses.api_database)?),
    };
    let console = bind(location, args, services).await?;
    let url = format!("http://{}", console.local_addr());
    let page = format!("{}/approvals", console.origin());
    let mut stopped = stop.subscribe();
    let console = tokio::spawn(console.run(async move {
        // an error means that the engine is gone
        let _ = stopped.wait_for(|stop| *stop).await;
    }));

    reporter.step("connecting to Kafka");
    let mut kafka = KafkaOptions::new(&addresses.brokers);
    kafka.properties.clone_from(&kafka_properties);
    ensure_topics(&kafka, &departments, &TopicSettings::default())
        .await
        .map_err(|e| e.problem())?;
    let registry = args.registry.clone().unwrap_or_else(|| url.clone());
    let schema_ids = SchemaIds::register_all(&RegistryOptions::new(&registry))
        .await
        .map_err(|e| e.problem())?;
    let engine_id = work::engine_id(&location.path("engine.id"))?;
    let ledger_id = ledger.reader().identity().await.map_err(|e| e.problem())?;
    let group = work::group(ledger_id);
    let options = WorkOptions::new(kafka.clone(), group, &engine_id, work::units());
    let group = WorkGroup::join(options).await.map_err(|e| e.problem())?;
    let lanes = match args.workers {
        0 => Some(Lanes::join(kafka.clone(), ledger_id, &engine_id).await?),
        // they run the agents
        _ => None,
    };
    let (duties, feeds) = work::follow(&group, parts.views.clone());
    let feeder = Feeder::new(queue, door.clone(), work::orchestrator());
    // set once
    let _ = parts.jobs.set(feeder.stuck());
    tokio::spawn(feeder.run(Box::new(ledger.tail()), feeds.clone()));
    let (log, to) = (door.clone(), door.clone());
    let scheduler = Scheduler::new(log, to, departments.clone(), work::orchestrator());
    let _ = parts.schedules.set(scheduler.stuck());
    tokio::spawn(scheduler.run(feeds));
    let letters = Letters::start(
        kafka.clone(),
        &parts,
        ledger.reader(),
        schema_ids.clone(),
        stop.subscribe(),
    )?;
    let options = CommandsOptions::new(kafka.clone(), RegistryOptions::new(&registry), &engine_id);
    let commands = Commands::start(options, door.clone()).map_err(|e| e.problem())?;
    let mut options = RelayOptions::new(kafka);
    let turn = group
        .unit(work::RELAY)
        .map(|unit| Arc::new(unit) as Arc<dyn Turn>);
    options.turn = Some(turn.ok_or_else(|| internal("the relay is no unit of work"))?);
    let relay = Relay::start(
        options,
        Box::new(ledger.tail()),
        Arc::new(Probe(ledger.reader())),
        schema_ids,
        departments,
    );
    let checkpoints = Checkpoints::connect(&addresses.database).map_err(|e| e.problem())?;
    let checkpoints = Arc::new(AgentCheckpoints(checkpoints));
    let (tails, sealed) = (ledger.clone(), sealed);
    let programs = Programs::start(
        programs,
        &Environment {
            gateway: door.clone(),
            checkpoints: checkpoints.clone(),
            tails: Arc::new(move || Box::new(tails.tail())),
            launch: Arc::new(programs::Launcher {
                folder: location.folder.clone(),
            }),
            describe: Arc::new(move |event| sealed.described(event, &sealed.sealed_data(event))),
            complaints: programs::complaints(location.path("logs")),
            duties: duties.clone(),
        },
    );
    let agents = Runner::start(
        RunnerOptions {
            duties: lanes::duties(lanes.as_ref(), Some(duties)),
            ..RunnerOptions::default()
        },
        Box::new(ledger.tail()),
        door,
        checkpoints,
        market,
        Arc::new(SystemClock),
    );
    let state = EngineState {
        pid: std::process::id(),
        started_at: Timestamp::now(),
        console: url,
        page,
        database: addresses.database,
        keys_database: addresses.keys_database,
        api_database: addresses.api_database,
        worker_database: addresses.worker_database,
        worker_keys_database: addresses.worker_keys_database,
        brokers: addresses.brokers,
        kafka_properties,
        registry,
        config: config_path,
        engine: engine_id,
        master_key: master_path,
    };
    // each was empty: nobody else sets them
    let _ = (parts.agents.set(agents), parts.state.set(state.clone()));
    let _ = parts.programs.set(programs);
    if let Some(lanes) = lanes {
        let _ = parts.lanes.set(lanes);
    }
    let _ = parts.letters.set(letters);
    let _ = parts.commands.set(commands);
    let _ = parts.work.set(group);
    *parts.relay.write().unwrap_or_else(PoisonError::into_inner) = Some(relay);
    let engine = Engine {
        parts,
        console,
        folder,
    };
    write_state(location, &state)?;
    if let Err(failure) = healthy(reporter, &engine).await {
        engine.stop(location).await;
        return Err(failure);
    }
    Ok(engine)
}

fn write_state(location: &Location, state: &EngineState) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(state).map_err(internal)?;
    write_private(&location.path("engine.json"), &bytes).map_err(|e| unusable(&e))
}

/// Waits until every part is healthy; says which one is not.
async fn healthy(reporter: &Reporter, engine: &Engine) -> Result<()> {
    reporter.step("waiting until all parts are healthy");
    let deadline = Instant::now() + HEALTHY_LIMIT;
    loop {
        let health = engine.parts.health().await;
        // with nothing to relay a relay is healthy that has not even connected
        let relay = engine.parts.relay_start();
        let joined = engine
            .parts
            .work
            .get()
            .map(|w| w.assigned().borrow().joined);
        // a program of somebody's that fails at once must not keep the engine from starting
        let own = |name: &str| name != PROGRAMS;
        let well = health.parts.iter().all(|(name, p)| p.healthy || !own(name));
        if well && joined == Some(true) && relay == RelayStart::Done {
            return Ok(());
        }
        if let RelayStart::Refused(problem) = relay {
            return Err(problem.into());
        }
        let mut parts = health.parts.into_iter().filter(|(name, _)| own(name));
        let problem = parts.find_map(|(_, part)| part.problem);
        // a stopped relay stays stopped, and no setting changes by itself: these are final
        let hopeless = problem.as_ref().is_some_and(|p| {
            use ErrorCode::{InvalidConfig, LedgerDiverged, SchemaTooNew, TopicAhead};
            matches!(
                p.code,
                TopicAhead | LedgerDiverged | InvalidConfig | SchemaTooNew
            )
        });
        if hopeless || Instant::now() > deadline {
            let late = || Problem::new(ErrorCode::TimedOut, "engine is not healthy after 60 s");
            return Err(problem.unwrap_or_else(late).into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The named tokens of the data folder.
async fn tokens(location: &Location) -> Result<TokenBook> {
    let key = CredentialKey::from_hex(&secret(&location.path("tokens.key"))?);
    let key = key.map_err(|e| {
        Problem::new(
            ErrorCode::DataFolderUnusable,
            format!("the key of the tokens is damaged: {e}"),
        )
    })?;
    let file = Arc::new(TokenFile(location.path("tokens.json")));
    Ok(TokenBook::open(key, file).await?)
}

/// Binds the API: the port that was asked for, else the last one, else a free one.
async fn bind(location: &Location, args: &UpArgs, services: Services) -> Result<Console> {
    let token = Token::new(secret(&location.path("api.token"))?)?;
    let mut options = ConsoleOptions::new(token);
    options.allow_non_loopback = args.listen_beyond_loopback;
    options.public_url.clone_from(&args.public_url);
    if let Some(listen) = args.listen {
        options.listen = listen;
        return Ok(Console::bind(options, services)
            .await
            .map_err(|e| e.problem())?);
    }
    if let Some(port) = last_port(location)? {
        options.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if let Ok(console) = Console::bind(options.clone(), services.clone()).await {
            return Ok(console);
        }
        tracing::warn!(port, "last port of the api is taken; choosing another");
        options.listen.set_port(0);
    }
    let console = Console::bind(options, services)
        .await
        .map_err(|e| e.problem())?;
    let port = console.local_addr().port().to_string();
    std::fs::write(location.path("api.port"), port).map_err(|e| unusable(&e))?;
    Ok(console)
}

fn last_port(location: &Location) -> Result<Option<u16>> {
    match std::fs::read_to_string(location.path("api.port")) {
        Ok(text) => Ok(text.trim().parse().ok().filter(|port| *port != 0)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(&error)),
    }
}

pub(super) fn unusable(error: &std::io::Error) -> Failure {
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorCode::DiskFull,
        _ => ErrorCode::DataFolderUnusable,
    };
    Failure::new(code, format!("data folder cannot be used: {error}"))
}

/// The key of the data folder, made at the first start, or the one that was named.
fn master_key(location: &Location, elsewhere: Option<&Path>) -> Result<MasterKey> {
    if let Some(path) = elsewhere {
        return reveal::master_key(path);
    }
    let path = location.path("master.key");
    secret(&path)?;
    reveal::master_key(&path)
}

/// The 64 hex digits of a secret file, made at the first start.
fn secret(path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(unusable(&error)),
    }
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(internal)?;
    let text = sovereign_schemas::hex(&bytes);
    write_private(path, format!("{text}\n").as_bytes()).map_err(|e| unusable(&e))?;
    Ok(text)
}

/// Reads client properties, `name=value` a line, `#` for comments.
fn properties(path: Option<&Path>) -> Result<BTreeMap<String, String>> {
    let Some(path) = path else {
        return Ok(BTreeMap::new());
    };
    let text = std::fs::read_to_string(path).map_err(|e| crate::failure::file(path, &e))?;
    let mut all = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err(Problem::new(ErrorCode::InvalidConfig, "line is no setting")
                .line(index as u64 + 1)
                .field(path.display().to_string())
                .expected("name=value")
                .into());
        };
        all.insert(name.trim().to_owned(), value.trim().to_owned());
    }
    Ok(all)
}
