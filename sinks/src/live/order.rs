use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;
use sovereign_effects::{EffectId, Order, Outcome, Tools};
use sovereign_schemas::{Digest, ErrorCode, Problem};

/// So many orders are remembered.
const ORDERS_MAX: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

/// The mock exchanges. What they answer follows from the order and its id, so the memory is only
/// for telling another order under a known id from a repeat.
#[derive(Debug)]
pub(super) struct Orders(Mutex<LruCache<EffectId, Digest>>);

impl Default for Orders {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(ORDERS_MAX)))
    }
}

impl Orders {
    pub(super) async fn place(&self, tools: &Tools, id: EffectId, order: &Order) -> Outcome {
        let json = serde_json::to_vec(order).unwrap_or_default();
        let digest = Digest::of(&[&json]);
        let known = {
            let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            orders.get(&id).copied()
        };
        if known.is_some_and(|known| known != digest) {
            return Outcome::refused(
                Problem::new(
                    ErrorCode::IdempotencyKeyReused,
                    "the exchange has another order under this id",
                )
                .found(id.to_string()),
            );
        }
        if let Some(exchange) = tools.exchange(&order.exchange) {
            let latency = Duration::from_millis(exchange.latency_ms(id));
            if !latency.is_zero() {
                tokio::time::sleep(latency).await;
            }
        }
        let outcome = tools.fill(id, order);
        if matches!(outcome, Outcome::Done { .. }) {
            let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            orders.put(id, digest);
        }
        outcome
    }
}
