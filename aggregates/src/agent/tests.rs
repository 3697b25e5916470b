use sovereign_schemas::avro;

use super::*;

fn by(actor: &str) -> Decision {
    Decision::new(
        "agent_1".parse().unwrap(),
        Timestamp(0),
        actor.parse().unwrap(),
    )
}

fn registered() -> Agent {
    let mut agent = Agent::default();
    agent.evolve(
        &AgentRegistered {
            role: "trader".into(),
        }
        .into(),
    );
    agent
}

fn step(agent: &mut Agent, command: AgentCommand) -> Vec<AgentEvent> {
    let events = agent.decide(command, &by("operator")).unwrap();
    events.iter().for_each(|e| agent.evolve(e));
    events
}

fn to(state: AgentState) -> AgentCommand {
    AgentCommand::Transition(Transition {
        to: state,
        reason: "test".parse().unwrap(),
    })
}

#[test]
fn executes_only_when_cleared() {
    use AgentState::{Analyzing, Executing, Idle, Scanning, Verifying};
    let mut agent = registered();
    for state in [Scanning, Analyzing, Verifying] {
        step(&mut agent, to(state));
    }
    assert!(matches!(
        step(&mut agent, to(Executing))[0],
        AgentEvent::TransitionRefused(_)
    ));
    assert_eq!(agent.state, Verifying);
    let clear = ClearExecution {
        trade_id: "trade_a_1".parse().unwrap(),
        authority: "policy:1".parse().unwrap(),
    };
    step(&mut agent, AgentCommand::ClearExecution(clear));
    step(&mut agent, to(Executing));
    assert_eq!(agent.state, Executing);
    step(&mut agent, to(Idle));
    assert_eq!(
        agent.cleared, None,
        "one clearance is good for one execution"
    );
}

#[test]
fn every_edge_that_is_not_in_the_table_is_refused_and_recorded() {
    for from in AgentState::ALL {
        for state in AgentState::ALL {
            let agent = Agent {
                state: *from,
                cleared: Some("trade_a_1".into()),
                ..registered()
            };
            let refused = matches!(
                agent.decide(to(*state), &by("operator")).unwrap()[0],
                AgentEvent::TransitionRefused(_)
            );
            assert_eq!(
                refused,
                !machine::is_legal(*from, *state),
                "{from} to {state}"
            );
        }
    }
}

#[test]
fn observes_bars_in_order_and_in_range() {
    let bar = |day: &str, high: &str| {
        let price = |s: &str| s.parse().unwrap();
        AgentCommand::ObserveMarket(ObserveMarket {
            instrument: "AAPL".parse().unwrap(),
            opened_at: day.parse().unwrap(),
            interval_s: 86_400,
            open: price("10"),
            high: price(high),
            low: price("9"),
            close: price("10.5"),
            volume: price("0"),
        })
    };
    let mut agent = registered();
    step(&mut agent, bar("2000-03-01", "11"));
    assert_eq!(
        agent
            .decide(bar("2000-03-01", "11"), &by("operator"))
            .unwrap_err()
            .problem
            .code,
        ErrorCode::WrongState
    );
    assert_eq!(
        agent
            .decide(bar("2000-03-02", "10.4"), &by("operator"))
            .unwrap_err()
            .problem
            .field
            .as_deref(),
        Some("data.close")
    );
}

#[test]
fn nothing_happens_to_an_agent_that_is_not_registered() {
    let refusal = Agent::default()
        .decide(to(AgentState::Scanning), &by("operator"))
        .unwrap_err();
    assert_eq!(refusal.problem.code, ErrorCode::NotFound);
}

#[test]
fn a_version_1_observation_is_read_as_the_newest() {
    use sovereign_schemas::avro::EventGroup as _;
    use sovereign_schemas::events::MarketObservedV1;
    let price: Decimal = "10".parse().unwrap();
    let old = MarketObservedV1 {
        instrument: "AAPL".into(),
        date: "2000-03-01".parse().unwrap(),
        open: price,
        high: price,
        low: price,
        close: price,
        volume: price,
    };
    let read = AgentEvent::decode("MarketObserved", 1, &avro::encode(&old)).unwrap();
    let AgentEvent::MarketObserved(bar) = read else {
        panic!("another event")
    };
    assert_eq!(bar.opened_at.to_string(), "2000-03-01T00:00:00.000000Z");
    assert_eq!(bar.interval_s, 86_400);
}

fn think(agent: &mut Agent, likeness: u64) -> Vec<AgentEvent> {
    let text = avro::decode(&[0; 30]).unwrap();
    let likeness = likeness.to_be_bytes().to_vec();
    step(
        agent,
        AgentCommand::RecordThought(RecordThought { text, likeness }),
    )
}

fn define(agent: &Agent, value: serde_json::Value) -> Result<Vec<AgentEvent>, Refusal> {
    let define = Define {
        version: None,
        definition: serde_json::from_value(value).unwrap(),
        prompt: None,
        prompt_likeness: vec![],
    };
    agent.decide(AgentCommand::Define(Box::new(define)), &by("operator"))
}

fn defined(value: serde_json::Value) -> Agent {
    let mut agent = registered();
    let events = define(&agent, value).unwrap();
    events.iter().for_each(|e| agent.evolve(e));
    agent
}

fn cause(events: &[AgentEvent]) -> &str {
    match &events[0] {
        AgentEvent::TransitionRefused(e) => &e.cause,
        _ => "",
    }
}

#[test]
fn versions_of_a_definition_follow_each_other_and_a_repeat_is_none() {
    let one = serde_json::json!({ "program": "x" });
    let agent = defined(one.clone());
    assert_eq!(agent.version(), 1);
    let again = define(&agent, one).unwrap_err().problem;
    assert_eq!(again.code, ErrorCode::AlreadyExists);
    let mut agent = defined(serde_json::json!({ "program": "y" }));
    let next = define(&agent, serde_json::json!({ "program": "x" })).unwrap();
    agent.evolve(&next[0]);
    assert_eq!(agent.version(), 2);
    let wrong = Define {
        version: Some(2),
        definition: Definition::of("z".parse().unwrap()),
        prompt: None,
        prompt_likeness: vec![],
    };
    let refused = agent.decide(AgentCommand::Define(Box::new(wrong)), &by("operator"));
    let problem = refused.unwrap_err().problem;
    assert_eq!(problem.code, ErrorCode::VersionConflict);
    assert_eq!(problem.expected.as_deref(), Some("3"));
}

#[test]
fn a_run_is_under_one_definition() {
    let mut agent = defined(serde_json::json!({ "program": "x" }));
    let events = step(&mut agent, to(AgentState::Scanning));
    let AgentEvent::StateTransitioned(e) = &events[0] else {
        panic!("{events:?}")
    };
    assert_eq!(e.definition, 1);
    let problem = define(&agent, serde_json::json!({ "program": "y" }))
        .unwrap_err()
        .problem;
    assert_eq!(problem.code, ErrorCode::WrongState);
}

#[test]
fn what_a_definition_leaves_out_is_refused_and_safety_is_not() {
    use AgentState::{Analyzing, Frozen, Idle, SafeMode, Scanning};
    let mut agent = defined(serde_json::json!({ "program": "x", "states": ["IDLE", "SCANNING"] }));
    step(&mut agent, to(Scanning));
    assert_eq!(cause(&step(&mut agent, to(Analyzing))), "definition");
    for state in [SafeMode, Idle, Frozen] {
        assert_eq!(cause(&step(&mut agent, to(state))), "", "{state}");
        assert_eq!(agent.state, state);
    }
}

#[test]
fn a_guard_wants_a_thought_since_the_last_move() {
    use AgentState::{Idle, Scanning};
    let guards = [serde_json::json!({ "edge": "SCANNING>IDLE", "needs": "thought" })];
    let mut agent = defined(serde_json::json!({ "program": "x", "guards": guards }));
    think(&mut agent, 1);
    step(&mut agent, to(Scanning));
    assert_eq!(cause(&step(&mut agent, to(Idle))), "thought");
    think(&mut agent, 2);
    assert_eq!(cause(&step(&mut agent, to(Idle))), "");
}

#[test]
fn a_definition_that_cannot_be_read_lets_only_safety_pass() {
    let mut agent = registered();
    agent.evolve(
        &AgentDefined {
            version: 3,
            digest: sovereign_schemas::Digest::ZERO,
            definition: "{\"from\":\"the future\"}".into(),
            prompt: None,
            prompt_likeness: vec![],
        }
        .into(),
    );
    assert_eq!(
        cause(&step(&mut agent, to(AgentState::Scanning))),
        "definition"
    );
    assert_eq!(cause(&step(&mut agent, to(AgentState::SafeMode))), "");
}

#[test]
fn the_same_thought_again_and_again_stops_the_agent_until_somebody_else_lets_it_out() {
    use AgentState::{Idle, SafeMode, Scanning};
    let mut agent = registered();
    step(&mut agent, to(Scanning));
    for other in 0..7 {
        assert_eq!(think(&mut agent, 9).len(), 1);
        think(&mut agent, 100 + other);
    }
    let events = think(&mut agent, 9);
    assert!(matches!(&events[0], AgentEvent::ThoughtRecorded(_)));
    let AgentEvent::LoopDetected(e) = &events[1] else {
        panic!("{events:?}")
    };
    assert_eq!(
        (e.kind.as_str(), e.repeats, e.steps, e.window),
        ("thought", 8, 1, 64)
    );
    assert!(matches!(&events[2], AgentEvent::StateTransitioned(e)
        if e.from == Scanning && e.to == SafeMode && e.reason == "loop_detected"));
    assert_eq!(agent.state, SafeMode);
    let own = agent.decide(to(Idle), &by("agent_1")).unwrap();
    assert_eq!(cause(&own), "stopped");
    // in SAFE_MODE it may think what it likes
    for _ in 0..20 {
        assert_eq!(think(&mut agent, 9).len(), 1);
    }
    assert_eq!(cause(&step(&mut agent, to(Idle))), "");
    assert_eq!(
        think(&mut agent, 9).len(),
        1,
        "what was before is forgotten"
    );
    let own = agent.decide(to(Scanning), &by("agent_1")).unwrap();
    assert_eq!(cause(&own), "");
}

#[test]
fn a_cycle_of_states_without_anything_new_stops_the_agent() {
    use AgentState::{Idle, SafeMode, Scanning};
    let guard = serde_json::json!({ "repeats": 3, "window": 12 });
    let mut agent = defined(serde_json::json!({ "program": "x", "loop_guard": guard }));
    for round in 0..10 {
        // a new thought in each round
        step(&mut agent, to(Scanning));
        think(&mut agent, 50 + round);
        step(&mut agent, to(Idle));
    }
    assert_eq!(agent.state, Idle);
    let mut all = vec![];
    for _ in 0..4 {
        all.extend(step(&mut agent, to(Scanning)));
        if agent.state == SafeMode {
            break;
        }
        all.extend(step(&mut agent, to(Idle)));
    }
    let found = all.iter().find_map(|e| match e {
        AgentEvent::LoopDetected(e) => Some((e.kind.as_str(), e.repeats, e.steps, e.window)),
        _ => None,
    });
    assert_eq!(found, Some(("cycle", 3, 2, 12)));
    assert_eq!(agent.state, SafeMode);
}

#[test]
fn knocking_at_the_same_closed_door_is_a_loop() {
    let mut agent = registered();
    for _ in 0..7 {
        assert_eq!(
            cause(&step(&mut agent, to(AgentState::Executing))),
            "machine"
        );
    }
    let events = step(&mut agent, to(AgentState::Executing));
    assert!(matches!(&events[0], AgentEvent::TransitionRefused(_)));
    assert!(matches!(&events[1], AgentEvent::LoopDetected(e) if e.steps == 1));
    assert_eq!(agent.state, AgentState::SafeMode);
}

#[test]
fn an_agent_whose_program_is_given_up_is_stopped() {
    let fault = |given_up| {
        AgentCommand::ReportFault(ReportFault {
            program: "momentum".parse().unwrap(),
            fault: "silent".parse().unwrap(),
            run: 3,
            given_up,
        })
    };
    let mut agent = registered();
    assert_eq!(step(&mut agent, fault(false)).len(), 1);
    assert_eq!(agent.state, AgentState::Idle);
    assert_eq!(step(&mut agent, fault(true)).len(), 2);
    assert_eq!((agent.state, agent.stopped), (AgentState::SafeMode, true));
    assert_eq!(
        step(&mut agent, fault(true)).len(),
        1,
        "it is there already"
    );
}

#[test]
fn replay_gives_the_state_that_the_decisions_made() {
    let mut agent = registered();
    let mut replayed = registered();
    for round in 0..300_u64 {
        let state = [AgentState::Scanning, AgentState::Idle][round as usize % 2];
        let mut events = think(&mut agent, round % 11);
        events.extend(step(&mut agent, to(state)));
        if agent.state == AgentState::SafeMode {
            events.extend(step(&mut agent, to(AgentState::Idle)));
        }
        events.iter().for_each(|e| replayed.evolve(e));
        assert_eq!(agent, replayed, "round {round}");
        let stored: Agent = serde_json::from_value(serde_json::json!(&agent)).unwrap();
        assert_eq!(agent, stored);
    }
}
