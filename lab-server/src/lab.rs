//! The Lab: what people keep here, and what works for them when nobody watches.
//!
//! A conversation is a tree of messages; a run makes one of them, a chat's answer or an agent's work, and goes on whether or not
//! anybody watches. [`content`] is what messages are made of, [`prompt`] what a model is asked and says, whoever it is, [`event`] what
//! happens in a run. Everything is sealed under the key of its project or its conversation before it reaches the store.

pub mod agent;
pub mod assistant;
pub mod content;
pub mod event;
pub mod files;
pub mod models;
pub mod operations;
pub mod prompt;
pub mod runs;
pub mod search;
pub mod tools;
pub mod turns;
