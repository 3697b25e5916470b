mod agents;
mod approvals;
mod gate;
mod journal;
pub(crate) mod nothing;
mod schemas;
mod services;

use std::net::SocketAddr;
use std::sync::{Arc, Once};

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use sovereign_console::{
    Console, ConsoleError, ConsoleOptions, Role, Services, Token, TokenBook, metrics_recorder,
};
use sovereign_guard::access::CredentialKey;
use sovereign_schemas::{ErrorCode, Problem};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) use agents::FixedAgents;
pub(crate) use approvals::{FixedApprovals, TERMS, registration};
pub(crate) use gate::Gate;
pub(crate) use journal::{FixedRows, Journal, MemoryTokens};
pub(crate) use schemas::MemoryStore;
pub(crate) use services::Fixed;

pub(crate) const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A running console with its services and a client.
pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    pub(crate) gate: Arc<Gate>,
    pub(crate) fixed: Arc<Fixed>,
    pub(crate) agents: Arc<FixedAgents>,
    pub(crate) journal: Journal,
    client: Client,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

pub(crate) fn options() -> ConsoleOptions {
    ConsoleOptions::new(Token::new(TOKEN).unwrap())
}

pub(crate) async fn services(gate: &Arc<Gate>, fixed: &Arc<Fixed>) -> Services {
    let agents = FixedAgents::over(gate, &Journal::default());
    services_on(gate, fixed, &agents, &Arc::default()).await
}

async fn services_on(
    gate: &Arc<Gate>,
    fixed: &Arc<Fixed>,
    agents: &Arc<FixedAgents>,
    tokens: &Arc<MemoryTokens>,
) -> Services {
    let key = CredentialKey::from_bytes([7; 32]);
    let tokens = TokenBook::open(key, tokens.clone()).await.unwrap();
    Services {
        health: fixed.clone(),
        metrics: metrics_recorder().unwrap(),
        commands: gate.clone(),
        status: fixed.clone(),
        tasks: fixed.clone(),
        digest: fixed.clone(),
        views: fixed.clone(),
        events: Arc::new(agents.journal.clone()),
        agents: agents.clone(),
        jobs: Arc::new(NoJobs),
        rows: Arc::new(FixedRows),
        approvals: Arc::new(FixedApprovals),
        tokens: Arc::new(tokens),
        shutdown: fixed.clone(),
        schemas: Arc::new(MemoryStore::default()),
    }
}

/// Why a console with these options does not start.
pub(crate) async fn refused(options: ConsoleOptions) -> ConsoleError {
    let services = services(&Arc::new(Gate::default()), &Arc::new(Fixed::default())).await;
    Console::bind(options, services).await.unwrap_err()
}

pub(crate) async fn start() -> Running {
    start_with(options()).await
}

pub(crate) async fn start_with(options: ConsoleOptions) -> Running {
    start_on(options, &Journal::default(), &Arc::default()).await
}

/// A console over a ledger and tokens that outlive it.
pub(crate) async fn start_on(
    options: ConsoleOptions,
    journal: &Journal,
    tokens: &Arc<MemoryTokens>,
) -> Running {
    let (gate, fixed) = (Arc::new(Gate::default()), Arc::new(Fixed::default()));
    let agents = FixedAgents::over(&gate, journal);
    let services = services_on(&gate, &fixed, &agents, tokens).await;
    let console = Console::bind(options, services).await.unwrap();
    let addr = console.local_addr();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(console.run(async {
        let _ = stopped.await;
    }));
    Running {
        addr,
        gate,
        fixed,
        agents,
        journal: journal.clone(),
        client: client(),
        stop: Some(stop),
        task,
    }
}

fn client() -> Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        rustls::crypto::ring::default_provider()
            .install_default()
            .unwrap();
    });
    Client::builder().no_proxy().build().unwrap()
}

impl Running {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(self.url(path))
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.client.request(method.parse().unwrap(), self.url(path))
    }

    /// A token with this role and an actor of its own.
    pub(crate) async fn token(&self, role: Role, actor: &str) -> String {
        let wanted = json!({ "name": actor, "role": role, "expires_in_s": 3_600 });
        let answer = self.post("/api/v1/tokens").bearer_auth(TOKEN).json(&wanted);
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let made: Value = answer.json().await.unwrap();
        made["token"].as_str().unwrap().to_owned()
    }

    /// A token that acts as these agents.
    pub(crate) async fn agent(&self, name: &str, agents: &[&str]) -> String {
        let wanted = json!({ "name": name, "role": "agent", "agents": agents });
        let answer = self.post("/api/v1/tokens").bearer_auth(TOKEN).json(&wanted);
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let made: Value = answer.json().await.unwrap();
        made["token"].as_str().unwrap().to_owned()
    }

    /// The secret of an invitation for this person.
    pub(crate) async fn invite(&self, name: &str) -> String {
        let path = format!("/api/v1/approvers/{name}/invitation");
        let answer = self.post(&path).bearer_auth(TOKEN).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        let made: Value = answer.json().await.unwrap();
        assert_eq!(made["approver"], name);
        let link = made["link"].as_str().unwrap();
        let page = format!("http://localhost:{}/approvals/enrol#", self.addr.port());
        link.strip_prefix(&page).unwrap().to_owned()
    }

    /// Sends bytes as they are and returns all that comes back until the connection closes.
    pub(crate) async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // a reset after the answer is as good as an end
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub(crate) fn ask_to_stop(&mut self) {
        drop(self.stop.take());
    }

    /// Stops the console and waits for it.
    pub(crate) async fn stop(mut self) {
        self.ask_to_stop();
        self.task.await.unwrap();
    }
}

/// There are no jobs.
struct NoJobs;

#[async_trait::async_trait]
impl sovereign_console::JobService for NoJobs {
    async fn submit(&self, wanted: Value, _: &str) -> Result<Value, Problem> {
        if wanted["kind"] != "plan" {
            return Err(Problem::new(ErrorCode::MissingField, "field is missing").field("kind"));
        }
        Ok(json!({ "job_id": "plan_040226_1201", "created": true }))
    }

    async fn list(&self, _: u64, _: u32, _: bool) -> Result<Value, Problem> {
        Ok(json!({ "jobs": [], "next": null }))
    }

    async fn show(&self, _: &str) -> Result<Value, Problem> {
        Err(Problem::new(ErrorCode::NotFound, "no such job"))
    }

    async fn command(&self, id: &str, _: &str, _: Value, _: &str) -> Result<Value, Problem> {
        self.show(id).await
    }

    async fn schedules(&self) -> Result<Value, Problem> {
        Ok(serde_json::json!({ "version": 0, "schedules": [] }))
    }

    async fn queues(&self) -> Result<Value, Problem> {
        Ok(json!({ "queues": [] }))
    }

    async fn pause(&self, _: &str, _: Option<&str>) -> Result<Value, Problem> {
        self.queues().await
    }
}
