//! The Lab as its clients see it: over TLS, on a socket.

mod admin;
mod client;
mod edge;
mod pairing;
