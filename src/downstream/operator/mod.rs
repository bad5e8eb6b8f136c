//! Endpoints of operators: /healthz, /readyz, /status, reloads; and OPTIONS for browsers.

pub(super) mod console;
pub(super) mod documents;
pub(super) mod listener;
pub(super) mod metrics;
pub(super) mod status_events;

use std::collections::HashMap;
use std::sync::Weak;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::bounded;
use serde_json::{Value, json};

use super::Front;
use super::endpoint::Endpoint;
use super::refusal_text::add_refusal;
use super::status_codes::{self, Problem};
use crate::access::policy::Scope;
use crate::config::Reloaded;
use crate::error::CallError;
use crate::http::{Head, Responder};
use crate::limits::{OWN_NAME_CHARS_MAX, RELOAD_ANSWER_TIMEOUT, USER_FAILURES_TOLD_MAX};
use crate::pipeline::sign_in::SignInStatus;
use crate::pipeline::{Clash, FailureReport, Pinned, ServerStatus, State, Unread, Users};
use crate::protocol::call::Kind;
use crate::protocol::quirks::Quirk;
use crate::protocol::server_name::ServerName;
use crate::resource_server::IssuerStatus;
use crate::telemetry::access;
use crate::telemetry::record::{Refused, ToldRequest};
use crate::telemetry::rejected::Reason;
use crate::telemetry::request;
use crate::telemetry::{otlp, quirks};

/// The most requests in work that `/status` shows.
const REQUESTS_TOLD_MAX: usize = 256;

/// Answers OPTIONS: the methods, and for a page of an admitted origin the headers that it may
/// send.
pub(super) fn options(endpoint: Endpoint<'_>, head: &Head, responder: Responder) {
    let methods = endpoint.methods().join(", ");
    let mut headers = vec![("Allow", methods.as_str())];
    if matches!(endpoint, Endpoint::ResourceMetadata(_)) {
        headers.push(("Access-Control-Allow-Origin", "*"));
    }
    if head.headers.get("origin").is_some() {
        headers.push(("Access-Control-Allow-Methods", &methods));
        let wanted = head.headers.get("access-control-request-headers").unwrap_or("*");
        headers.push(("Access-Control-Allow-Headers", wanted));
        headers.push(("Access-Control-Max-Age", "600"));
    }
    responder.respond(status_codes::NO_CONTENT, &headers, &[]).ok();
}

pub(super) fn healthz(front: &Front, responder: Responder) {
    if front.sessions.is_alive() {
        send(responder, &json!({ "status": "ok" }));
    } else {
        let error = CallError::Overloaded { what: "the session thread is silent".into() };
        refuse(responder, &Problem::from_call(&error));
    }
}

pub(super) fn readyz(front: &Front, scope: &Scope, responder: Responder) {
    let mut missing = front.pipeline.missing();
    let n_missing = missing.len();
    let is_known = scope.principal.is_admin || admitted_by_key(scope);
    if !scope.principal.is_admin {
        // All clients may know that the gateway is not ready; a client without a key also how
        // many servers are awaited, and a key the names of those that it may see.
        missing.retain(|server| is_known && scope.sees_server(server));
    }
    if front.is_stopping() {
        refuse(responder, &Problem::from_call(&CallError::ShuttingDown));
    } else if n_missing > 0 && !is_known {
        refuse(responder, &Problem::not_ready_without_names(n_missing));
    } else if n_missing > 0 {
        let names: Vec<&str> = missing.iter().map(ServerName::as_str).collect();
        refuse(responder, &Problem::not_ready(&names));
    } else {
        send(responder, &json!({ "status": "ready" }));
    }
}

/// Answers an admin with everything, whatever its key may use; others with the state of the
/// servers that their key may use, without effects of other clients.
pub(super) fn status(front: &Front, scope: Scope, responder: Responder) {
    let status = if scope.principal.is_admin {
        whole_status(front, &Scope { principal: front.operator.clone(), ..scope })
    } else {
        let of = |status: &ServerStatus| server_as_seen(server(status));
        let upstreams: Vec<Value> = front.pipeline.status(&scope).iter().map(of).collect();
        own_status(front, upstreams)
    };
    send(responder, &status);
}

/// Has the configuration read again, for an admin, and answers with the result.
pub(super) fn reload(front: &Front, scope: &Scope, responder: Responder) {
    if !scope.principal.is_admin {
        return refuse(responder, &Problem::not_admin());
    }
    let (told, visible_servers) = bounded(1);
    let wished = front.reload.get().map(|it| it.send_timeout(told, RELOAD_ANSWER_TIMEOUT));
    let wished = matches!(wished, Some(Ok(())));
    match wished.then(|| visible_servers.recv_timeout(RELOAD_ANSWER_TIMEOUT)) {
        Some(Ok(Reloaded::Taken { changes, warnings, at_next_start })) => {
            let taken = json!({
                "changes": changes,
                "warnings": warnings,
                "at_next_start": at_next_start,
            });
            send(responder, &taken);
        }
        Some(Ok(Reloaded::Refused(problems))) => {
            refuse(responder, &Problem::bad_configuration(problems));
        }
        Some(Ok(Reloaded::InPart(why))) => {
            refuse(responder, &Problem::reloaded_in_part(&why));
        }
        Some(Err(_)) | None => {
            let what = "a reload is under way, or the gateway ends".to_owned();
            refuse(responder, &Problem::from_call(&CallError::Overloaded { what }));
        }
    }
}

/// The part of `/status` for all clients.
fn own_status(front: &Front, upstreams: Vec<Value>) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_ms": ms(front.started.elapsed()),
        "stopping": front.is_stopping(),
        "upstreams": upstreams,
    })
}

fn whole_status(front: &Front, scope: &Scope) -> Value {
    let upstreams = front.pipeline.status(scope).iter().map(server).collect();
    let sessions = front.sessions.counts();
    let clashes = front.pipeline.clashes();
    let mut status = own_status(front, upstreams);
    let further = json!({
        "clashes": clashes.told.iter().map(clash).collect::<Vec<Value>>(),
        "clashes_further": clashes.n_further,
        "sessions": {
            "sse": sessions.http_sse,
            "streamable": sessions.streamable_http,
        },
        "streams": front.streams.count(),
        "rejected": rejected_by_reason(),
        "quirks": quirks_tolerated(),
        "limits": limits(limits_in_use(front,
            sessions.http_sse + sessions.streamable_http + sessions.listening
        )),
        "calls": calls_in_work(),
        "refusals": refusals(),
        "issuers": front.resource_server.status().iter().map(issuer).collect::<Vec<Value>>(),
        "spans": otlp::counts().into_iter().collect::<HashMap<_, _>>(),
    });
    if let (Some(status), Value::Object(further)) = (status.as_object_mut(), further) {
        status.extend(further);
    }
    status
}

/// Each bound on values held at once: how much of it is in use, and its maximum.
pub(super) fn limits_in_use(
    front: &Front,
    sessions: usize,
) -> [(&'static str, (usize, usize)); 8] {
    let limits = &front.limits;
    let engine = front.engine.get().and_then(Weak::upgrade);
    let engine = engine.map(|engine| engine.counters()).unwrap_or_default();
    let list_waiters = front.pipeline.list_waiters();
    let [views, lists] = front.pipeline.list_bytes();
    [
        ("connections", (engine.open, limits.connections)),
        ("buffered_bytes", (engine.buffered_bytes, limits.buffered_bytes)),
        ("sessions", (sessions, limits.sessions)),
        ("streams", (front.streams.count(), limits.streams)),
        ("parked_calls", (front.parked.count(), limits.parked_calls)),
        ("list_waiters", list_waiters),
        ("views_bytes", views),
        ("lists_bytes", lists),
    ]
}

/// True if the client has a key, by which its rights are known. Without one, a client that is no
/// admin may be anybody.
fn admitted_by_key(scope: &Scope) -> bool {
    scope.principal.id.is_some()
}

/// The members of a server's status for clients that may use it: its description and present
/// state. Its child's output, items that are not offered, and effects of other clients are not
/// among them.
const TOLD_TO_ALL: [&str; 18] = [
    "server",
    "description",
    "required",
    "state",
    "next_try_ms",
    "starting_ms",
    "down_since",
    "sign_in",
    "transport",
    "era",
    "revision",
    "server_info",
    "tools",
    "prompts",
    "resources",
    "resource_templates",
    "stale",
    "last_failure",
];

fn server_as_seen(mut status: Value) -> Value {
    let Some(fields) = status.as_object_mut() else { return status };
    // The last failure of a server that is well belongs to another client's call.
    if fields.get("state").is_some_and(|state| state == "ready") {
        fields.remove("last_failure");
    }
    // Advice is for operators, and names parts of the configuration.
    if let Some(Value::Object(failure)) = fields.get_mut("last_failure") {
        failure.remove("advice");
    }
    let changed = fields.get_mut("pins").and_then(|pins| pins.get_mut("changed"));
    let changed = changed.map(Value::take);
    fields.retain(|key, _| TOLD_TO_ALL.contains(&key.as_str()));
    if let Some(changed) = changed {
        fields.insert("pins".to_owned(), json!({ "changed": changed }));
    }
    status
}

/// The bounds by name.
fn limits(of: [(&'static str, (usize, usize)); 8]) -> Value {
    let told = |(name, (used, max)): (&str, (usize, usize))| {
        (name.to_owned(), json!({ "used": used, "max": max }))
    };
    Value::Object(of.into_iter().map(told).collect())
}

/// Requests in work, the oldest first, and the number of all.
fn calls_in_work() -> Value {
    let (calls, n) = request::in_work(REQUESTS_TOLD_MAX);
    let told = |call: ToldRequest| {
        json!({
            "id": call.id,
            "peer": call.peer,
            "key": call.key,
            "client": call.client,
            "door": call.door,
            "method": call.method,
            "tool": call.tool,
            "server": call.server,
            "ms": ms(call.took),
        })
    };
    json!({ "count": n, "oldest": calls.into_iter().map(told).collect::<Vec<Value>>() })
}

/// The last refusals, the newest first.
fn refusals() -> Value {
    let told = |it: &ToldRequest| Some(refusal(it, it.refused.as_ref()?));
    access::recent_refusals().iter().filter_map(told).collect()
}

/// One refusal.
pub(super) fn refusal(told: &ToldRequest, refused: &Refused) -> Value {
    json!({
        "at": seconds(told.at),
        "peer": told.peer,
        "key": told.key,
        "id": told.id,
        "tool": told.tool,
        "reason": refused.reason,
        "status": told.status,
        "request": refused.request,
        "message": told.message,
        "left_out": refused.left_out,
    })
}

/// The number of refusals since the start, for each reason.
fn rejected_by_reason() -> Value {
    let counts = Reason::ALL.into_iter();
    counts.map(|reason| (reason.as_str().to_owned(), Value::from(reason.count()))).collect()
}

/// The number of times that each known quirk of clients was tolerated since the start.
fn quirks_tolerated() -> Value {
    let quirks = Quirk::ALL.into_iter();
    quirks.map(|it| (it.as_str().to_owned(), Value::from(quirks::count(it)))).collect()
}

fn server(status: &ServerStatus) -> Value {
    let upstream = &status.upstream;
    let (state, next_try_ms) = match upstream.state {
        State::Starting { .. } => ("starting", None),
        State::Ready => ("ready", None),
        State::BackingOff { next_try } => ("backing_off", Some(ms(next_try))),
        State::NeedsSignIn => ("needs_sign_in", None),
        State::Down { next_try } => ("down", Some(ms(next_try))),
    };
    let era = upstream.revision.map(|revision| revision.era().as_str());
    let mut failure = upstream.last_failure.as_ref().map(failure);
    if let (Some(told), Some(advice)) = (&mut failure, &status.advice) {
        told["advice"] = advice.as_str().into();
    }
    let info: Option<Value> =
        upstream.server_info.as_ref().and_then(|info| serde_json::from_str(info.get()).ok());
    json!({
        "server": status.server.as_str(),
        "description": status.description,
        "required": status.required,
        "state": state,
        "next_try_ms": next_try_ms,
        "starting_ms": upstream.starting.map(ms),
        "down_since": upstream.down_since.map(seconds),
        "sign_in": status
            .sign_in
            .as_ref()
            .filter(|_| status.wants_person)
            .map(SignInStatus::as_str),
        "signed_in_until":
            status.sign_in.as_ref().and_then(SignInStatus::signed_in_until).map(seconds),
        "failures_in_a_row": upstream.failures,
        "transport": upstream.transport,
        "redirected_to": upstream.redirected_to,
        "era": era,
        "revision": upstream.revision.map(|revision| revision.as_str()),
        "server_info": info,
        "tools": status.offered(Kind::Tool),
        "prompts": status.offered(Kind::Prompt),
        "resources": status.offered(Kind::Resource),
        "resource_templates": status.offered(Kind::Template),
        "left_out": status.left_out,
        "left_out_items": left_out_items(status),
        "views": status.n_views,
        "stale": status.is_stale,
        "pins": status.pinned.as_ref().map(pins),
        "unread_lists": unread(&upstream.unread),
        "last_failure": failure,
        "latency_ms": upstream.latency.map(|latency| latency.as_secs_f64() * 1000.0),
        "in_flight": upstream.in_flight,
        "waiting": upstream.waiting,
        "restarts": upstream.restarts,
        "dropped_messages": upstream.dropped_messages,
        "unattributed_messages": status.n_unattributed,
        "stderr": upstream.stderr,
        "users": status.users.as_ref().map(users),
    })
}

/// The users of a server whose credentials are each user's own.
fn users(users: &Users) -> Value {
    let failing: Vec<Value> = users
        .failing
        .iter()
        .take(USER_FAILURES_TOLD_MAX)
        .map(|(name, it)| json!({ "key": name.as_deref(), "last_failure": failure(it) }))
        .collect();
    json!({
        "count": users.count,
        "ready": users.ready,
        "starting": users.starting,
        "needs_sign_in": users.needing_sign_in,
        "failing": users.failing.len(),
        "failures": failing,
    })
}

fn left_out_items(status: &ServerStatus) -> Value {
    let items = status.left_out_items.iter();
    let each = items.map(|(kind, item)| {
        json!({ "kind": kind.as_str(), "name": item.name, "reason": item.reason })
    });
    each.collect()
}

/// A refused name, cut, because URIs may have any length.
fn issuer(status: &IssuerStatus) -> Value {
    json!({
        "issuer": status.issuer,
        "keys": status.keys,
        "keys_age_ms": status.keys_age.map(ms),
        "fault": status.fault.as_deref(),
    })
}

fn clash(clash: &Clash) -> Value {
    let cut = |text: &str| text.chars().take(OWN_NAME_CHARS_MAX).collect::<String>();
    json!({
        "server": clash.server.as_str(),
        "kind": clash.kind.as_str(),
        "own": cut(&clash.own),
        "name": cut(&clash.name),
        "owner": clash.owner.as_str(),
        "offered": cut(&clash.offered),
    })
}

fn failure(failure: &FailureReport) -> Value {
    let mut told = json!({
        "stage": failure.stage.as_str(),
        "message": failure.message,
        "at": seconds(failure.at),
        "seconds_ago": SystemTime::now()
            .duration_since(failure.at)
            .map_or(0, |since| since.as_secs()),
    });
    add_refusal(&mut told, failure.refusal.as_deref());
    told
}

/// The lists that cannot be read, by their names in the protocol.
fn unread(lists: &[Unread]) -> Value {
    let now = Instant::now();
    let of = |list: &Unread| {
        let next_try = list.next_try.saturating_duration_since(now);
        let told = json!({
            "last_failure": failure(&list.failure),
            "next_try_ms": ms(next_try),
        });
        (list.kind.list_key().to_owned(), told)
    };
    Value::Object(lists.iter().map(of).collect())
}

/// The seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn pins(pinned: &Pinned) -> Value {
    let changed: Vec<Value> = pinned
        .changed
        .iter()
        .map(|(tool, since)| json!({ "tool": tool, "since": since }))
        .chain(pinned.others.iter().flat_map(|(subject, changed)| {
            changed.iter().map(|(own, since)| json!({ subject.as_str(): own, "since": since }))
        }))
        .collect();
    json!({ "pin": pinned.pin.as_str(), "pinned": pinned.n_pinned, "changed": changed })
}

pub(super) fn ms(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn send(responder: Responder, body: &Value) {
    // If the client has gone, the answer is not missed.
    status_codes::send_json(responder, &[body.to_string().as_bytes(), b"\n"]).ok();
}

pub(super) fn refuse(responder: Responder, problem: &Problem) {
    let body = problem.body_for(None);
    problem.send(responder, &body).ok();
}
