//! The one integration binary: the gateway as a real process, between clients that speak by
//! hand and scripted servers.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where it is surprised"
)]

mod access_log;
mod admin;
mod behind_proxies;
#[cfg(not(feature = "tiny_http"))]
mod bounds_named;
mod breaker;
mod check;
mod children;
mod cli;
mod commands;
mod config_files;
mod config_schema;
mod console;
mod conversations;
mod cut_off;
mod deadlines;
mod demo_http;
mod docs;
mod eras;
#[cfg(not(feature = "tiny_http"))]
mod event_stream;
mod exit_codes;
#[cfg(not(feature = "tiny_http"))]
mod fairness;
mod fairness_upstream;
mod first_lists;
mod hearing;
mod hidden_servers;
#[cfg(not(feature = "tiny_http"))]
mod hostile_clients;
mod hostile_upstreams;
#[cfg(not(feature = "tiny_http"))]
mod http_engine;
#[cfg(not(feature = "tiny_http"))]
mod http_hostile;
mod http_sse;
#[cfg(feature = "tiny_http")]
mod http_tiny;
mod import;
mod initialize;
mod isolation;
mod keys;
mod late_names;
mod links;
mod list_changes;
mod litellm;
mod logging;
mod malformed_lists;
mod memory;
mod metrics;
mod modern;
mod names;
mod narrowing;
#[cfg(not(feature = "tiny_http"))]
mod one_line;
mod one_server;
mod openapi;
mod own_sessions;
mod owned_names;
mod pagination;
mod passing_through;
mod pins;
mod process_one;
mod prompts;
mod question_ends;
mod questions;
mod quirks;
mod quotas;
mod readme_commands;
mod reasons;
mod refusal_lines;
mod refused_upstream;
mod refusing;
mod reload;
mod resources;
mod rest;
mod restarts;
#[cfg(not(feature = "tiny_http"))]
mod resumption;
mod retrying;
mod running_gateways;
mod schemas;
mod service_manager;
mod sessions;
#[cfg(not(feature = "tiny_http"))]
mod shared_pages;
mod slow_children;
mod socket_mode;
mod stale;
mod start_order;
mod stdio;
mod stopping;
mod streamable_http;
mod subscriptions;
mod support;
mod support_modern;
mod support_selftest;
mod support_sessions;
mod task_owners;
mod tasks;
#[cfg(feature = "tiny_http")]
mod tiny_http_smoke;
mod tls;
mod told;
mod traces;
mod upgrade;
mod upstream_links;
mod upstreams;
mod views;
mod watching;
