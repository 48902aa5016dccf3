//! How fast each workstation's models were when they last answered: in memory only, out of the records as they are settled.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use api_proxy::Record;
use wire::DeviceId;

/// Models that are remembered. When there are as many, all are forgotten: each is back with its next answer.
const MOST: usize = 16_384;
/// Fewer tokens say more of the first than of the others.
const FEWEST_TOKENS: u64 = 8;

type Known = HashMap<(DeviceId, Arc<str>), f64>;

/// Tokens of the answer a second, by workstation and model.
#[derive(Debug, Default)]
pub struct Speeds(Mutex<Known>);

impl Speeds {
    /// Takes a record that was just settled.
    pub fn observe(&self, record: &Record) {
        let (Some(device), Some(model), Some(tokens)) = (record.device, &record.model, record.output_tokens) else { return };
        let answering = record.first_byte_ms.map(|first| record.latency_ms.saturating_sub(first)).filter(|ms| *ms > 0);
        let Some(ms) = answering.filter(|_| tokens >= FEWEST_TOKENS) else { return };
        let mut known = self.lock();
        if known.len() >= MOST {
            known.clear();
        }
        // The first token was there when the clock began.
        known.insert((device, Arc::clone(model)), (tokens - 1) as f64 * 1000.0 / ms as f64);
    }

    pub(super) fn of(&self, device: DeviceId, model: &str) -> Option<f64> {
        self.lock().get(&(device, Arc::from(model))).copied()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
