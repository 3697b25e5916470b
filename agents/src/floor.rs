use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;
use sovereign_aggregates::AnyEvent;
use sovereign_aggregates::agent::{AgentCommand, Define, Definition, Register, StartTask};
use sovereign_aggregates::approval;
use sovereign_schemas::events::{AgentEvent, ApprovalEvent, TradeEvent, Verdict};
use sovereign_schemas::{
    AggregateType, DepartmentId, ErrorCode, EventHeader, EventType, IMPORT_ACTOR, IdError, Problem,
};

use crate::RawRequest;
use crate::duties::lane_of;
use crate::expiry::Expiries;
use crate::logic::{
    Names, Reaction, SHARED, Seen, auditor, code, definition, exchange, guardian, historian,
    hunter, jobs, start_request, trader,
};
use crate::market::{MarketFile, slug};

/// At most so many instruments are worked on; further ones are left alone (I9).
const DESKS_MAX: usize = 1_024;
/// At most so many registered traders are remembered whose instrument is not known yet.
const TRADERS_MAX: usize = 100_000;

/// All built-in agents over all instruments: a fold over the ledger.
#[derive(Debug, Default)]
pub struct Floor {
    desks: BTreeMap<String, Desk>,
    trades: HashMap<String, Trade>,
    /// Approvals of those trades, with the desk.
    approvals: HashMap<String, String>,
    traders: HashSet<String>,
    expiries: Expiries,
    jobs: jobs::State,
}

#[derive(Debug)]
struct Trade {
    slug: String,
    is_exit: bool,
}

/// The agents as far as one instrument is concerned.
#[derive(Debug)]
struct Desk {
    hunter: hunter::State,
    exchange: exchange::State,
    auditor: auditor::State,
    guardian: guardian::State,
    historian: historian::State,
    trader: trader::State,
}

impl Desk {
    fn new(names: Names, trader_registered: bool) -> Self {
        Self {
            hunter: hunter::State::new(names.clone()),
            exchange: exchange::State::new(names.clone()),
            auditor: auditor::State::new(names.clone()),
            guardian: guardian::State::default(),
            historian: historian::State::default(),
            trader: trader::State::new(names, trader_registered),
        }
    }

    fn step(&mut self, seen: &Seen) -> Vec<Reaction> {
        let mut all = hunter::step(&mut self.hunter, seen);
        all.extend(exchange::step(&mut self.exchange, seen));
        all.extend(auditor::step(&mut self.auditor, seen));
        all.extend(guardian::step(&mut self.guardian, seen));
        all.extend(historian::step(&mut self.historian, seen));
        all.extend(trader::step(&mut self.trader, seen));
        all
    }
}

/// How far the work on one instrument is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeskProgress {
    /// The instrument, as in ids.
    pub instrument: String,
    /// Bars observed.
    pub done: u64,
    /// Bars in the input.
    pub total: u64,
    /// Whether the task is in progress.
    pub running: bool,
    /// Orders that are with workers.
    pub orders: usize,
}

/// What starting a task meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StartOutcome {
    /// It begins now.
    Started,
    /// It had begun before and goes on.
    Running,
    /// It was done before; nothing happens.
    AlreadyDone,
}

impl Floor {
    /// Whether any agent looks at such an event. Others need not be decoded.
    #[must_use]
    pub fn wants(header: &EventHeader) -> bool {
        if header.aggregate_type == AggregateType::Imported.as_str() {
            return false;
        }
        let id = &header.aggregate_id;
        if header.aggregate_type == AggregateType::Job.as_str() {
            let held = [EventType::JobSubmitted, EventType::JobHeld];
            let held = held.iter().any(|t| header.event_type == t.as_str());
            return held || exchange::trade_of(id).is_some();
        }
        if header.aggregate_type != AggregateType::Agent.as_str() {
            return true;
        }
        (id.starts_with("hunter-") || id.starts_with("trader-"))
            && header.event_type != EventType::ThoughtRecorded.as_str()
    }

    /// Takes the next event of the ledger. Answers with the instrument (as in ids) that it
    /// concerns and what the agents want done about it, in order; `None` if nothing.
    pub fn step(&mut self, seen: &Seen) -> Option<(String, Vec<Reaction>)> {
        self.expiries.apply(seen);
        // what was brought in happened elsewhere: nobody here reacts to it
        if seen.header().actor == IMPORT_ACTOR {
            return None;
        }
        let reactions = jobs::step(&mut self.jobs, seen);
        if !reactions.is_empty() {
            // of no instrument: what concerns one job or approval waits for each other
            return Some((
                format!("jobs-{:02}", lane_of(seen.aggregate_id())),
                reactions,
            ));
        }
        let slug = self.desk_of(seen)?;
        let reactions = self.desks.get_mut(&slug)?.step(seen);
        self.forget(seen);
        (!reactions.is_empty()).then_some((slug, reactions))
    }

    fn desk_of(&mut self, seen: &Seen) -> Option<String> {
        let id = seen.aggregate_id();
        match &seen.event {
            AnyEvent::Agent(event) => {
                let (kind, own) = id.split_once('-')?;
                match event {
                    AgentEvent::TaskStarted(_) if kind == "hunter" => self.open(own),
                    // others may observe the same market; the desk follows its own hunter only
                    AgentEvent::MarketObserved(e)
                        if kind == "hunter" && slug(&e.instrument) == own =>
                    {
                        self.open(own);
                    }
                    AgentEvent::MarketObserved(_) => return None,
                    AgentEvent::AgentRegistered(_)
                        if kind == "trader" && self.traders.len() < TRADERS_MAX =>
                    {
                        self.traders.insert(own.to_owned());
                    }
                    _ => {}
                }
                Some(own.to_owned())
            }
            AnyEvent::Trade(TradeEvent::TradeProposed(e)) => {
                let slug = slug(&e.instrument);
                if self.desks.contains_key(&slug) {
                    let trade = Trade {
                        slug: slug.clone(),
                        is_exit: e.closes.is_some(),
                    };
                    self.trades.insert(id.to_owned(), trade);
                }
                Some(slug)
            }
            AnyEvent::Trade(_) => self.trades.get(id).map(|t| t.slug.clone()),
            AnyEvent::Approval(ApprovalEvent::ApprovalRequested(e)) => {
                let slug = self.trades.get(&e.target_id)?.slug.clone();
                self.approvals.insert(id.to_owned(), slug.clone());
                Some(slug)
            }
            AnyEvent::Approval(event) if approval::has_ended(event) => self.approvals.remove(id),
            AnyEvent::Approval(_) => self.approvals.get(id).cloned(),
            AnyEvent::Job(_) => {
                let trade = self.trades.get(exchange::trade_of(id)?)?;
                Some(trade.slug.clone())
            }
            AnyEvent::Imported(_)
            | AnyEvent::Policy(_)
            | AnyEvent::Approver(_)
            | AnyEvent::Schedules(_) => None,
        }
    }

    fn open(&mut self, slug: &str) {
        if self.desks.contains_key(slug) || self.desks.len() >= DESKS_MAX {
            return;
        }
        if let Ok(names) = Names::of(slug)
            && names.slug == slug
        {
            let registered = self.traders.contains(slug);
            self.desks
                .insert(slug.to_owned(), Desk::new(names, registered));
        }
    }

    /// Drops trades that have ended.
    fn forget(&mut self, seen: &Seen) {
        let AnyEvent::Trade(event) = &seen.event else {
            return;
        };
        let id = seen.aggregate_id();
        let ended = match event {
            TradeEvent::VerdictGiven(e) => e.verdict == Verdict::Red,
            TradeEvent::TradeCancelled(_) | TradeEvent::TradeConcluded(_) => true,
            TradeEvent::TradeFilled(_) => self.trades.get(id).is_some_and(|t| t.is_exit),
            _ => false,
        };
        if ended {
            self.trades.remove(id);
        }
    }

    /// The approvals that wait for an answer.
    #[must_use]
    pub const fn expiries(&self) -> &Expiries {
        &self.expiries
    }

    /// How far every instrument is, in the order of their names.
    #[must_use]
    pub fn progress(&self) -> Vec<DeskProgress> {
        let desks = self.desks.iter().filter_map(|(slug, desk)| {
            let total = desk.hunter.task()?.items;
            let running = desk.hunter.is_running();
            // a longer file of the same instrument goes on where the shorter one ended
            let done = if running {
                desk.hunter.observed().min(total)
            } else {
                total
            };
            Some(DeskProgress {
                instrument: slug.clone(),
                done,
                total,
                running,
                orders: desk.exchange.under_way(),
            })
        });
        desks.collect()
    }

    /// What has to be sent so that the file is worked through: registrations, then one task for
    /// each instrument. All ids follow from the file's digest, so sending them again is harmless.
    ///
    /// # Errors
    /// [`ErrorCode::WrongState`] if an instrument's hunter is at another file.
    pub fn start(&self, file: &MarketFile) -> Result<(StartOutcome, Vec<RawRequest>), Problem> {
        let (mut begun, mut done) = (0, 0);
        for (slug, _) in file.iter() {
            let Some(hunter) = self.desks.get(slug).map(|d| &d.hunter) else {
                continue;
            };
            let own = hunter.task().filter(|_| hunter.is_running());
            match own {
                _ if hunter.has_finished(file.digest()) => done += 1,
                Some(task) if task.input == file.digest() => begun += 1,
                Some(task) => {
                    return Err(Problem::new(
                        ErrorCode::WrongState,
                        format!("hunter-{slug} is at another market file"),
                    )
                    .found(task.input.to_string())
                    .expected(file.digest().to_string())
                    .remedy("wait until that task is finished; sovereign status shows how far"));
                }
                None => {}
            }
        }
        if done == file.iter().count() {
            return Ok((StartOutcome::AlreadyDone, vec![]));
        }
        let requests = start_requests(file).map_err(|e| {
            Problem::new(ErrorCode::InvalidId, format!("the instrument {e}")).field("Ticker")
        })?;
        let outcome = if begun + done == 0 {
            StartOutcome::Started
        } else {
            StartOutcome::Running
        };
        Ok((outcome, requests))
    }
}

/// The definition of a built-in agent, under an id that follows from its digest: another build
/// defines it anew, the same one does not.
fn define(id: &str, role: &str, department: DepartmentId) -> Result<RawRequest, IdError> {
    let definition = definition(role)?;
    let digest = Definition::digest(&definition.text(), &[]);
    let command = AgentCommand::Define(Box::new(Define {
        version: None,
        definition,
        prompt: None,
        prompt_likeness: vec![],
    }));
    let what = format!("define/{digest}");
    let (aggregate_id, actor) = (id.parse()?, id.parse()?);
    Ok(start_request(
        &what,
        aggregate_id,
        actor,
        department,
        command,
    ))
}

fn start_requests(file: &MarketFile) -> Result<Vec<RawRequest>, IdError> {
    let mut all = Vec::new();
    let mut begin = |id: &str, role: &'static str, department: DepartmentId| {
        let command = AgentCommand::Register(Register { role: code(role) });
        let request = start_request("register", id.parse()?, id.parse()?, department, command);
        all.push(request);
        all.push(define(id, role, department)?);
        Ok::<_, IdError>(())
    };
    for role in SHARED {
        begin(role.name, role.name, role.department)?;
    }
    let digest = file.digest().to_string();
    for (slug, _) in file.iter() {
        let names = Names::of(slug)?;
        begin(names.trader.as_str(), "trader", DepartmentId::TRADER)?;
        begin(names.hunter.as_str(), "hunter", DepartmentId::HUNTER)?;
    }
    // tasks last: by then everybody is there
    for (slug, series) in file.iter() {
        let hunter = Names::of(slug)?.hunter;
        let command = AgentCommand::StartTask(StartTask {
            task: format!("market_{}", &digest[..16]).parse()?,
            input_digest: file.digest(),
            items: series.bars.len() as i64,
        });
        let (what, actor) = (format!("task/{digest}"), hunter.as_str().parse()?);
        all.push(start_request(
            &what,
            hunter,
            actor,
            DepartmentId::HUNTER,
            command,
        ));
    }
    Ok(all)
}
