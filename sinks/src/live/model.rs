//! Chat completions of any server that speaks OpenAI's form.

use serde::Deserialize;
use serde_json::{Value, json};
use sovereign_effects::{HttpCall, Method, ModelCall, Outcome, Request, Tools};
use sovereign_schemas::{ErrorCode, Problem};

use super::Live;
use super::run::Run;

#[derive(Deserialize)]
struct Completion {
    #[serde(default)]
    model: Option<String>,
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Said,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    content: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

impl Live {
    pub(super) async fn model(
        &self,
        tools: &Tools,
        request: &Request,
        call: &ModelCall,
        run: &Run,
    ) -> Outcome {
        // it costs again, and changes nothing
        run.is_harmless();
        let Some(tool) = tools.tool(&call.tool) else {
            return Outcome::refused(super::http::unknown_tool(&call.tool, tools));
        };
        let http = HttpCall {
            tool: call.tool.clone(),
            method: Method::Post,
            path: tool.chat_path.clone(),
            query: std::collections::BTreeMap::new(),
            body: Some(question(call)),
        };
        match self.http(tools, request, &http, run).await {
            Outcome::Done { result } => match completion(&result) {
                Some(result) => Outcome::done(result),
                None => Outcome::refused(Problem::new(
                    ErrorCode::AnswerIncomplete,
                    "the answer is no chat completion",
                )),
            },
            other => other,
        }
    }
}

fn question(call: &ModelCall) -> Value {
    let mut question = json!({
        "model": call.model,
        "messages": call.messages,
        "max_tokens": call.tokens_max,
        "stream": false,
    });
    if let Some(temperature) = &call.temperature {
        question["temperature"] = Value::Number(temperature.clone());
    }
    if let Some(seed) = call.seed {
        question["seed"] = json!(seed);
    }
    question
}

/// What is kept of an answer.
fn completion(result: &Value) -> Option<Value> {
    let answer: Completion = serde_json::from_value(result.get("body")?.clone()).ok()?;
    let choice = answer.choices.into_iter().next()?;
    let usage = answer.usage.map(|usage| {
        json!({
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
        })
    });
    Some(json!({
        "model": answer.model,
        "content": choice.message.content.unwrap_or_default(),
        "finish_reason": choice.finish_reason,
        "usage": usage,
    }))
}
