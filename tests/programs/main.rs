//! The real programs, built for release and started as a person starts them: what a test inside one process cannot show.
//!
//! They need the release build, so a plain `cargo test` skips them; `cargo xtask test` builds it and runs them. Rows are those of
//! the table.
#![cfg(unix)]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod canary;
mod money;
mod network;
mod pairing;
mod runs;
mod sleep;
mod walls;
