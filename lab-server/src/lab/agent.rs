//! An agent at work.

pub mod budget;
