//! The HTTP client of the engine's own API.

use std::time::Duration;

use serde_json::Value;
use sovereign_schemas::{ErrorCode, Problem};

use crate::failure::{Failure, Result, internal};
use crate::location::{EngineState, Location};

/// Talks to a running engine.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Client {
    /// # Errors
    /// If no engine runs there, or its token cannot be read.
    pub(crate) fn connect(location: &Location) -> Result<Self> {
        let state = location.running()?;
        Self::to(location, &state)
    }

    pub(crate) fn to(location: &Location, state: &EngineState) -> Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .no_proxy()
            .build()
            .map_err(internal)?;
        Ok(Self {
            http,
            base: state.console.clone(),
            token: location.token()?,
        })
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        let request = self.http.get(format!("{}{path}", self.base));
        self.json(request.timeout(Duration::from_secs(30))).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.http.post(format!("{}{path}", self.base)).json(body);
        self.json(request.timeout(Duration::from_secs(60))).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<Value> {
        let request = self.http.delete(format!("{}{path}", self.base));
        self.json(request.timeout(Duration::from_secs(30))).await
    }

    /// Sends NDJSON and hands the response over as it streams.
    pub(crate) async fn commands(&self, body: Vec<u8>) -> Result<reqwest::Response> {
        let response = self
            .http
            .post(format!("{}/api/commands", self.base))
            .bearer_auth(&self.token)
            .header("content-type", "application/x-ndjson")
            .body(body)
            .send()
            .await
            .map_err(|e| unreachable(&e))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(refused(response).await)
    }

    async fn json(&self, request: reqwest::RequestBuilder) -> Result<Value> {
        let response = request
            .bearer_auth(&self.token)
            .send()
            .await
            .map_err(|e| unreachable(&e))?;
        // 503 of /health carries the same body as 200
        if response.status().is_success() || response.status().as_u16() == 503 {
            let body: Value = response.json().await.map_err(|e| unreachable(&e))?;
            if let Some(problem) = problem_in(&body) {
                return Err(problem.into());
            }
            return Ok(body);
        }
        Err(refused(response).await)
    }
}

fn problem_in(body: &Value) -> Option<Problem> {
    body.get("code")?;
    serde_json::from_value(body.clone()).ok()
}

async fn refused(response: reqwest::Response) -> Failure {
    let status = response.status();
    let body: Value = response.json().await.unwrap_or_default();
    match problem_in(&body) {
        Some(problem) => problem.into(),
        None => Failure::new(ErrorCode::Internal, format!("engine answered {status}")),
    }
}

pub(crate) fn unreachable(error: &reqwest::Error) -> Failure {
    let what = if error.is_timeout() { "in time" } else { "" };
    Problem::new(
        ErrorCode::EngineNotRunning,
        format!("engine does not answer {what}").trim_end(),
    )
    .into()
}
