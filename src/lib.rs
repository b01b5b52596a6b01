//! `wsmb`, a lightweight WebSocket message broker.

pub mod limits;
pub mod message;
pub mod policy;

pub mod auth;
pub mod broker;
pub mod config;
pub mod protocol;
pub mod store;

pub mod server;

pub mod client;

pub mod cli;
