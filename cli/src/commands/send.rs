use std::io::{BufRead, Read as _};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use sovereign_schemas::{ErrorCode, Outcome, Problem, Status, Uuid};
use tokio::sync::mpsc;

use crate::args::FileArgs;
use crate::client::Client;
use crate::failure::{Failure, Result, file, internal};
use crate::location::Location;
use crate::output::Output;

/// Lines in one request.
const LINES_MAX: usize = 1_024;
/// Bytes in one request, besides its last line.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Longest line.
const LINE_BYTES_MAX: usize = 2 << 20;
/// How long an engine that went away is waited for.
const ENGINE_WAIT: Duration = Duration::from_secs(120);

/// A line of the input: ready to send, or hopeless.
#[derive(Debug)]
struct Line {
    number: u64,
    content: Result<Vec<u8>, Problem>,
}

/// Sends commands; one outcome line each, in input order. Safe to repeat: every command gets an id
/// before it is first sent, so that a lost answer cannot make it take effect twice.
pub(crate) async fn run(location: &Location, output: Output, args: FileArgs) -> Result<()> {
    let mut client = Client::connect(location)?;
    let (lines, mut queue) = mpsc::channel(LINES_MAX);
    let reader = std::thread::spawn(move || read(&args, &lines));
    let mut tally = Tally::default();
    while let Some(first) = queue.recv().await {
        let mut batch = vec![first];
        let mut bytes = 0;
        while batch.len() < LINES_MAX && bytes < BATCH_BYTES_MAX {
            let Ok(next) = queue.try_recv() else { break };
            bytes += next.content.as_ref().map_or(0, Vec::len);
            batch.push(next);
        }
        send(location, &mut client, output, &batch, &mut tally).await?;
    }
    match reader.join() {
        Ok(read) => read?,
        Err(_) => return Err(internal("the reader of the input ended unexpectedly")),
    }
    tally.finish()
}

#[derive(Debug, Default)]
struct Tally {
    invalid: u64,
    refused: u64,
    conflict: u64,
}

impl Tally {
    fn count(&mut self, status: Status) {
        match status {
            Status::Accepted | Status::Duplicate => {}
            Status::Invalid => self.invalid += 1,
            Status::Refused => self.refused += 1,
            Status::Conflict => self.conflict += 1,
        }
    }

    /// 0 if all took effect; else 2, 4 or 1 for the worst of what did not.
    fn finish(&self) -> Result<()> {
        match self {
            Self { invalid: 1.., .. } => Err(Failure::Exit(2)),
            Self { refused: 1.., .. } => Err(Failure::Exit(4)),
            Self { conflict: 1.., .. } => Err(Failure::Exit(1)),
            _ => Ok(()),
        }
    }
}

async fn send(
    location: &Location,
    client: &mut Client,
    output: Output,
    batch: &[Line],
    tally: &mut Tally,
) -> Result<()> {
    let mut print = |line: &Line, mut outcome: Outcome| {
        if let Some(error) = &mut outcome.error {
            error.line = Some(line.number);
        }
        tally.count(outcome.status);
        output.object(&outcome)
    };
    let mut rest = batch;
    let deadline = Instant::now() + ENGINE_WAIT;
    while !rest.is_empty() {
        if let Err(problem) = &rest[0].content {
            print(&rest[0], Outcome::failed(Status::Invalid, problem.clone()))?;
            rest = &rest[1..];
            continue;
        }
        let count = rest.iter().take_while(|l| l.content.is_ok()).count();
        let mut body = Vec::new();
        for line in rest[..count].iter().filter_map(|l| l.content.as_ref().ok()) {
            body.extend_from_slice(line);
            body.push(b'\n');
        }
        let answered = stream(client, body, &rest[..count], &mut print).await;
        let (done, failure) = match answered {
            Ok(done) => (done, None),
            Err((done, failure)) => (done, Some(failure)),
        };
        rest = &rest[done..];
        match failure {
            None => {}
            Some(Failure::Problem(problem)) if problem.code == ErrorCode::EngineNotRunning => {
                if Instant::now() > deadline {
                    return Err(Failure::Problem(problem));
                }
                output.hint("engine does not answer; waiting for it");
                tokio::time::sleep(Duration::from_secs(1)).await;
                if let Ok(again) = Client::connect(location) {
                    *client = again;
                }
            }
            Some(failure) => return Err(failure),
        }
    }
    Ok(())
}

/// Prints outcomes as they arrive; says how many there were, also when the stream broke.
async fn stream(
    client: &Client,
    body: Vec<u8>,
    lines: &[Line],
    print: &mut impl FnMut(&Line, Outcome) -> Result<()>,
) -> Result<usize, (usize, Failure)> {
    let response = client.commands(body).await.map_err(|e| (0, e))?;
    let mut chunks = response.bytes_stream();
    let mut buffer = Vec::new();
    let mut done = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|e| (done, crate::client::unreachable(&e)))?;
        buffer.extend_from_slice(&chunk);
        let mut start = 0;
        while let Some(length) = buffer[start..].iter().position(|b| *b == b'\n') {
            let outcome: Outcome = serde_json::from_slice(&buffer[start..start + length])
                .map_err(|e| (done, internal(e)))?;
            let line = lines
                .get(done)
                .ok_or_else(|| (done, internal("too many outcomes")))?;
            print(line, outcome).map_err(|e| (done, e))?;
            done += 1;
            start += length + 1;
        }
        buffer.drain(..start);
    }
    if done < lines.len() {
        let cut = Failure::new(
            ErrorCode::EngineNotRunning,
            "engine ended before it answered",
        );
        return Err((done, cut));
    }
    Ok(done)
}

fn read(args: &FileArgs, lines: &mpsc::Sender<Line>) -> Result<()> {
    if args.file.as_os_str() == "-" {
        return read_lines(std::io::stdin().lock(), lines, args);
    }
    let opened = std::fs::File::open(&args.file).map_err(|e| file(&args.file, &e))?;
    read_lines(std::io::BufReader::new(opened), lines, args)
}

fn read_lines(mut input: impl BufRead, lines: &mpsc::Sender<Line>, args: &FileArgs) -> Result<()> {
    for number in 1.. {
        let mut line = Vec::new();
        let limit = LINE_BYTES_MAX as u64 + 1;
        let read = (&mut input).take(limit).read_until(b'\n', &mut line);
        let read = read.map_err(|e| file(&args.file, &e))?;
        if read == 0 {
            break;
        }
        let ended = line.pop_if(|b| *b == b'\n').is_some();
        let content = if !ended && read as u64 == limit {
            skip_line(&mut input).map_err(|e| file(&args.file, &e))?;
            Err(Problem::new(ErrorCode::LineTooLong, "line is too long")
                .expected("at most 2097152 bytes"))
        } else if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        } else {
            Ok(with_command_id(line))
        };
        if lines.blocking_send(Line { number, content }).is_err() {
            break;
        }
    }
    Ok(())
}

fn skip_line(input: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        match buffer.iter().position(|b| *b == b'\n') {
            Some(at) => {
                input.consume(at + 1);
                return Ok(());
            }
            None => {
                let length = buffer.len();
                input.consume(length);
            }
        }
    }
}

/// Gives a command its id, so that it can be sent again safely. What is no JSON object goes as it
/// is; the engine says what is wrong with it.
fn with_command_id(line: Vec<u8>) -> Vec<u8> {
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&line) {
        Ok(object) if !object.contains_key("command_id") => {
            let start = line.iter().position(|b| *b == b'{').unwrap_or(0);
            let comma = if object.is_empty() { "" } else { "," };
            let id = format!("{{\"command_id\":\"{}\"{comma}", Uuid::now_v7());
            [id.as_bytes(), &line[start + 1..]].concat()
        }
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_gets_an_id_and_nothing_else_changes() {
        let with = |s: &str| String::from_utf8(with_command_id(s.as_bytes().to_vec())).unwrap();
        let object: serde_json::Value = serde_json::from_str(&with(" {\"a\": 1.10}")).unwrap();
        assert!(object["command_id"].is_string());
        assert!(with(" {\"a\": 1.10}").ends_with("\"a\": 1.10}"));
        assert!(serde_json::from_str::<serde_json::Value>(&with("{}")).is_ok());
        for left_alone in ["{\"command_id\":\"x\"}", "[1]", "{\"a\":", "\u{1}"] {
            assert_eq!(with(left_alone), left_alone);
        }
    }
}
