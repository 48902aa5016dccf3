//! The Lab as its clients see it: over TLS, on a socket.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests say what they expect by failing")]

mod admin;
mod api;
mod audit;
mod check;
mod client;
mod edge;
mod leaving;
mod operator;
mod pairing;
mod sessions;
mod sign_in;
mod space;
mod vault;
