//! The test world: fakes of what stands outside of 1K4, each a server on a socket, and the journeys through the real parts.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod backstage;
pub mod caller;
pub mod connect_proxy;
pub mod control;
pub mod description;
pub mod fake_ollama;
pub mod fake_provider;
pub mod fault_proxy;
pub mod hostile_lab;
#[cfg(unix)]
pub mod programs;
pub mod scripted;
pub mod watcher;
pub mod world;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock whose other holders may have panicked: what a failed test leaves behind is still true.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
