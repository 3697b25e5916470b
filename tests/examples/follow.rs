//! Follows what the traders do, from the first event on: `cargo run --example follow`.
use sovereign_kafka::{KafkaOptions, Start, Subscription};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut events = Subscription::builder(KafkaOptions::new(std::env::var("BROKERS")?))
        .departments(["trader"])
        .start(Start::Beginning)
        .open()
        .await?;
    loop {
        let event = events.next().await?.event;
        println!("{} {}", event.position(), event.header.event_type);
    }
}
