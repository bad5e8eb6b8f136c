#![doc = include_str!("README.md")]

pub mod access;
pub mod budget;
pub mod catalogue;
pub mod cli;
pub mod config;
pub mod demo;
pub mod downstream;
pub mod error;
#[cfg(all(any(test, fuzzing), not(feature = "tiny_http")))]
#[path = "../fuzz/targets/mod.rs"]
pub mod fuzz;
pub mod gateway;
pub mod http;
pub mod limits;
pub mod pipeline;
pub mod protocol;
pub mod reload;
pub mod session;
pub mod shares;
pub mod state;
pub mod telemetry;
pub mod thread;
pub mod tidy;
pub mod turns;
pub mod upstream;
pub mod wait;
