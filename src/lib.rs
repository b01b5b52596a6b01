//! `wsmb`, a lightweight WebSocket message broker.

pub mod limits;
pub mod message;
pub mod policy;

pub mod broker;
pub mod protocol;

pub mod client;

pub mod cli;
