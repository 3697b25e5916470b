//! The broker goes away and comes back.

use std::time::Duration;

use crate::harness::{signal, sturdy, thought};

#[test]
fn appends_go_on_without_a_broker_and_the_relay_catches_up_alone() {
    let engine = sturdy();
    let head = engine.head();
    let broker = engine.pid("kafka");
    signal(broker, "-STOP");
    let commands: Vec<_> = (0..50)
        .map(|n| thought("first", &format!("thought {n}")))
        .collect();
    engine.send_all(&commands);
    assert_eq!(engine.head(), head + 50, "appends go on");
    engine.wait_for("red", Duration::from_secs(20), |status| {
        let lag = status["relay"]["lag"].as_u64().unwrap();
        status["healthy"] == false && lag >= 50 && status["problems"]["relay"]["code"].is_string()
    });
    let problem = engine.status()["problems"]["relay"].clone();
    assert_eq!(problem["code"], "broker-unreachable", "{problem}");
    assert_eq!(engine.run(&["status"]).code, 1);
    signal(broker, "-CONT");
    engine.wait_for("green", Duration::from_secs(60), |status| {
        status["healthy"] == true && status["relay"]["lag"] == 0
    });
    assert_eq!(engine.status()["relay"]["position"], head + 50);
    engine.run(&["verify", "--against", "kafka"]).ok();
}
