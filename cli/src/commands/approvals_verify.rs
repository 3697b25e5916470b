use std::path::Path;

use serde_json::json;
use sovereign_approval_proof::{Action, Difference, Proof, Report, Verifier};
use sovereign_replay::FileLog;
use sovereign_schemas::chain::Head;
use sovereign_schemas::{Cursor, ErrorCode, EventLog as _, Position, Problem};

use super::source::{Named, failure};
use crate::failure::{Failure, Result};
use crate::output::{Output, Tone};

/// Events that are held in memory at once.
const PAGE_EVENTS: usize = 1_000;

/// Proves who approved what, from a file alone. Exit 3 names the first position that cannot be as it
/// is said.
pub(super) async fn run(
    output: Output,
    file: &Path,
    approval: Option<&str>,
    noted: Option<&Head>,
) -> Result<()> {
    let report = match read(file, noted).await? {
        Ok(report) => report,
        Err(difference) => return told(output, file, &difference),
    };
    let wanted = |proof: &&Proof| approval.is_none_or(|id| id == proof.approval_id);
    let proofs: Vec<&Proof> = report.approvals.iter().filter(wanted).collect();
    if let (Some(id), true) = (approval, proofs.is_empty()) {
        let problem = Problem::new(ErrorCode::NotFound, "the file holds no such approval");
        return Err(problem.found(id).into());
    }
    if output.json {
        return output.object(&json!({ "ok": true, "source": file.display().to_string(),
            "events": report.events, "head": report.head, "passkeys": report.passkeys,
            "approvals": proofs }));
    }
    for proof in &proofs {
        print(output, proof)?;
    }
    output.line(format!(
        "{} {}: {} events, chain whole, {} passkeys and {} approvals judged again, head {}:{}",
        output.paint(Tone::Good, "ok"),
        file.display(),
        report.events,
        report.passkeys,
        report.approvals.len(),
        report.head.position,
        report.head.hash,
    ))
}

async fn read(file: &Path, noted: Option<&Head>) -> Result<Result<Report, Difference>> {
    let named = Named::File(file.to_owned());
    let mut log = FileLog::open(file).map_err(|e| failure(e, &named))?;
    let first = log.info().first;
    if first.0 > 1 {
        let message = "the file begins later: policies and passkeys may lie before it";
        return Err(Problem::new(ErrorCode::InvalidRange, message)
            .found(first.to_string())
            .expected("1")
            .remedy("export the ledger from position 1 on")
            .into());
    }
    let (mut verifier, mut cursor) = (Verifier::new(), Cursor::default());
    let mut seen = noted.is_none();
    loop {
        let read = log.read(cursor, PAGE_EVENTS).await;
        let (events, next) = read.map_err(|e| failure(e.into(), &named))?;
        if events.is_empty() {
            break;
        }
        for event in &events {
            if let Err(difference) = verifier.take(event) {
                return Ok(Err(difference));
            }
            if let Some(noted) = noted.filter(|head| head.position == event.position()) {
                if noted.hash != event.hash {
                    let reason = format!("the noted head has hash {}", noted.hash);
                    return Ok(Err(of_file(event.position(), reason)));
                }
                seen = true;
            }
        }
        cursor = next;
    }
    if let Some(noted) = noted.filter(|_| !seen) {
        let reason = "the file ends before the noted head".to_owned();
        return Ok(Err(of_file(noted.position, reason)));
    }
    Ok(Ok(verifier.finish()?))
}

fn of_file(position: Position, reason: String) -> Difference {
    Difference {
        position,
        aggregate: "the file".to_owned(),
        reason,
    }
}

fn told(output: Output, file: &Path, difference: &Difference) -> Result<()> {
    let code = ErrorCode::VerificationDifference;
    if output.json {
        output.object(&json!({ "ok": false, "source": file.display().to_string(),
            "position": difference.position, "aggregate": difference.aggregate,
            "reason": difference.reason }))?;
        return Err(Failure::Exit(code.exit_code()));
    }
    Err(Problem::new(code, difference.to_string()).into())
}

fn print(output: Output, proof: &Proof) -> Result<()> {
    let Proof {
        approval_id,
        status,
        amount,
        currency,
        action_name,
        target_id,
        ..
    } = proof;
    output.line(format!(
        "{} {status}: {action_name} of {target_id}, {amount} {currency}",
        output.paint(Tone::Good, approval_id)
    ))?;
    if proof.imported {
        return output.line("  brought in from another store: nothing is proven");
    }
    let policy = &proof.policy;
    let rule = policy.rule.as_deref().unwrap_or("unknown");
    output.line(format!(
        "  asked at {} by {} for {}: policy {} rule {rule}, {} must approve until {}",
        proof.requested_at,
        proof.requested_by,
        proof.on_behalf_of.as_deref().unwrap_or("nobody else"),
        policy.version,
        proof.people_needed,
        proof.expires_at,
    ))?;
    let exactly = match &proof.action {
        Some(Action::Trade(a)) => Some(format!(
            "{} {} {} at {} {} (proposal at {}",
            a.side, a.quantity, a.instrument, a.price, a.currency, a.position
        )),
        Some(Action::Job(a)) => Some(format!(
            "{} of {}, a {} over {} {} submitted by {} (submission at {}",
            proof.action_name, a.job_id, a.kind, a.amount, a.currency, a.submitted_by, a.position
        )),
        None => None,
    };
    if let Some(exactly) = exactly {
        let digest = proof.action_digest;
        output.line(format!("  exactly: {exactly}, digest {digest})"))?;
    }
    for given in &proof.given {
        output.line(format!(
            "  {} approved at {} ({}) with the passkey enrolled at {} on {}",
            given.approver, given.position, given.at, given.enrolled_at, given.origin,
        ))?;
    }
    if let Some(used) = &proof.used {
        output.line(format!(
            "  used once, at {}, for {}",
            used.position, used.target_id
        ))?;
    }
    Ok(())
}
