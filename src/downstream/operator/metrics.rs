//! `/metrics`: counters, times and present values.

use super::limits_in_use;
use crate::access::policy::Scope;
use crate::downstream::Front;
use crate::downstream::status_codes;
use crate::http::Responder;
use crate::pipeline::{ServerStatus, State};
use crate::protocol::call::Kind;
use crate::telemetry::counters::prometheus_text::{CONTENT_TYPE, Exposition, Family, float};
use crate::telemetry::counters::{process, reloads, requests, servers, state_writes, tools};
use crate::telemetry::rejected::Reason;

/// Answers a scrape.
pub(crate) fn metrics(front: &Front, scope: &Scope, responder: Responder) {
    let mut all = Exposition::default();
    add_requests(&mut all);
    add_tools(&mut all);
    let scope = Scope { principal: front.operator.clone(), ..scope.clone() };
    add_servers(&mut all, &front.pipeline.status(&scope));
    add_used(front, &mut all);
    add_rejected(&mut all);
    add_own(&mut all);
    process::add(&mut all);
    let text = all.to_text();
    // If the client has gone, the answer is not missed.
    responder.respond(status_codes::OK, &[("Content-Type", CONTENT_TYPE)], &[&text]).ok();
}

fn add_used(front: &Front, all: &mut Exposition) {
    let sessions = front.sessions.counts();
    let mut by_door = Family::gauge("trunkline_sessions", "Open sessions.");
    by_door.add(&[("door", "sse")], float(sessions.http_sse));
    by_door.add(&[("door", "streamable")], float(sessions.streamable_http));
    by_door.add(&[("door", "modern")], float(sessions.listening));
    by_door.add(&[("door", "stdio")], float(sessions.stdio));
    all.add(by_door);
    let streams = float(front.streams.count());
    all.add_gauge("trunkline_streams", "Open event streams.", streams);
    let mut used = Family::gauge("trunkline_limit_used", "How much of a bound is in use.");
    let mut max = Family::gauge("trunkline_limit_max", "The bound.");
    let n_sessions = sessions.http_sse + sessions.streamable_http + sessions.listening;
    for (limit, (in_use, most)) in limits_in_use(front, n_sessions) {
        used.add(&[("limit", limit)], float(in_use));
        max.add(&[("limit", limit)], float(most));
    }
    all.add(used);
    all.add(max);
}

fn add_requests(all: &mut Exposition) {
    let mut total = Family::counter(
        "trunkline_requests_total",
        "Requests by door, method and what came of them.",
    );
    let mut seconds =
        Family::histogram("trunkline_request_seconds", "How long requests took, in seconds.");
    for of_method in requests::counted() {
        let (door, method) = (of_method.door.as_str(), of_method.method);
        for (outcome, count) in &of_method.outcomes {
            let labels = [("door", door), ("method", method), ("outcome", outcome.as_str())];
            total.add(&labels, float(*count));
        }
        seconds.add_times(&[("door", door), ("method", method)], &of_method.seconds);
    }
    all.add(total);
    all.add(seconds);
}

fn add_tools(all: &mut Exposition) {
    let mut total = Family::counter(
        "trunkline_tool_calls_total",
        "Calls of tools by server, tool, key and what came of them.",
    );
    for series in tools::counted() {
        for (outcome, count) in series.outcomes().filter(|(_, count)| *count > 0) {
            let labels = [
                ("server", &*series.server),
                ("tool", &*series.tool),
                ("key", &*series.key),
                ("outcome", outcome.as_str()),
            ];
            total.add(&labels, float(count));
        }
    }
    all.add(total);
}

fn add_servers(all: &mut Exposition, statuses: &[ServerStatus]) {
    let mut calls = Family::counter(
        "trunkline_upstream_calls_total",
        "Calls to servers behind the gateway, by what came of them.",
    );
    let mut seconds = Family::histogram(
        "trunkline_upstream_seconds",
        "How long calls to servers behind the gateway took, in seconds.",
    );
    let mut up = Family::gauge("trunkline_upstream_up", "1 while the server can be called.");
    let mut in_flight = Family::gauge("trunkline_upstream_in_flight", "Calls at the server.");
    let mut waiting = Family::gauge(
        "trunkline_upstream_waiting",
        "Calls that wait for a place at the server.",
    );
    let mut restarts = Family::counter(
        "trunkline_upstream_restarts_total",
        "How often the server's child was started again.",
    );
    let mut offered =
        Family::gauge("trunkline_catalogue_tools", "Tools that are offered of the server.");
    for status in statuses {
        let labels = [("server", status.server.as_str())];
        let (outcomes, took) = servers::of(&status.server).counted();
        for (outcome, count) in outcomes {
            let [server] = labels;
            calls.add(&[server, ("outcome", outcome.as_str())], float(count));
        }
        seconds.add_times(&labels, &took);
        let is_up = match status.upstream.state {
            State::Ready => 1.0,
            State::Starting { .. }
            | State::BackingOff { .. }
            | State::Down { .. }
            | State::NeedsSignIn => 0.0,
        };
        up.add(&labels, is_up);
        in_flight.add(&labels, float(status.upstream.in_flight));
        waiting.add(&labels, float(status.upstream.waiting));
        restarts.add(&labels, float(status.upstream.restarts));
        offered.add(&labels, float(status.offered(Kind::Tool)));
    }
    for family in [calls, seconds, up, in_flight, waiting, restarts, offered] {
        all.add(family);
    }
}

fn add_rejected(all: &mut Exposition) {
    let mut rejected = Family::counter(
        "trunkline_rejected_total",
        "Requests and connections that were turned away, by reason.",
    );
    for reason in Reason::ALL {
        rejected.add(&[("reason", reason.as_str())], float(reason.count()));
    }
    all.add(rejected);
}

fn add_own(all: &mut Exposition) {
    let last = reloads::last();
    all.add_gauge(
        "trunkline_config_last_reload_successful",
        "1 if the configuration that was read last is the one that runs.",
        if last.is_successful { 1.0 } else { 0.0 },
    );
    all.add_gauge(
        "trunkline_config_last_reload_success_timestamp_seconds",
        "When the configuration that runs was read, in seconds since 1970.",
        float(last.succeeded_at),
    );
    all.add_counter(
        "trunkline_state_write_errors_total",
        "Writes into state_dir that failed.",
        float(state_writes::failed()),
    );
    let mut build =
        Family::gauge("trunkline_build_info", "1, with the version of the program.");
    build.add(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    all.add(build);
}
