//! The journeys: what a person or a program can do with 1K4, walked through its real parts. Rows are those of the table.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod agents;
mod answers;
mod assistant;
mod bola;
mod cloud;
mod cuts;
mod hangups;
mod hostile;
mod identity;
mod leaving;
mod models;
mod neighbour;
mod owner;
mod pressure;
mod roads;
mod runs;
mod workstations;
