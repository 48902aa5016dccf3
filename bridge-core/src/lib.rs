//! The bridge: one outbound link to the Lab, relays to the local Ollama, and an owner who stays in command.
//!
//! [`bridge`] starts the parts and owns the status. [`dial`] makes a link, [`session`] serves one life of it, [`relay`] runs one
//! generation that outlives it, [`policy`] is what the owner lets through, [`ollama`] is the neighbour that does the work, and
//! [`control`] is how tray and CLI talk to a bridge that runs. [`login`] pairs it with a Lab once.

pub mod backoff;
pub mod bridge;
pub mod config;
pub mod control;
pub mod credentials;
pub mod dial;
pub mod gpu;
pub mod login;
mod network;
pub mod ollama;
pub mod policy;
mod private_file;
mod relay;
mod session;
mod shared;
pub mod status;
