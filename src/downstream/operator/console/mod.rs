//! The console: one page over `/status` and the REST endpoints, and endpoints for the review of
//! pins. The page is the same for all clients and holds no data; it requests the data with the
//! key that it is given.

use serde_json::{Value, json};

use crate::access::policy::Scope;
use crate::downstream::Front;
use crate::downstream::rest::query_value;
use crate::downstream::status_codes::{self, Problem};
use crate::http::{Head, Request, Responder};
use crate::pipeline::{Changes, PinTexts, Subject, Unusable};
use crate::protocol::headers::{JSON, is_json};
use crate::protocol::server_name::ServerName;

const PAGE: &str = include_str!("index.html");
const STYLE: &[u8] = include_bytes!("console.css");
const SCRIPT: &[u8] = include_bytes!("console.js");
const BASE_SCRIPT: &[u8] = include_bytes!("console-base.js");
const TOOLS_SCRIPT: &[u8] = include_bytes!("console-tools.js");
const ACTIVITY_SCRIPT: &[u8] = include_bytes!("console-activity.js");

/// The mark before the name of each file that the page loads, in place of which the path is put.
const PATH_MARK: &str = "{path}";

/// Allows only files of this gateway, and images that a tool's result holds.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page at `prefix`: there `/trunk` and `/trunk/` are the same, and a relative name would
/// lead elsewhere from one of the two. Where no prefix is known a proxy may still have one, and a
/// relative name is right under its path with a slash.
fn page(prefix: &str) -> String {
    let path = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    let path = path.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    PAGE.replace(PATH_MARK, &path)
}

/// A file of the console.
pub(crate) fn console(front: &Front, file: &str, head: &Head, responder: Responder) {
    let script = |text| ("text/javascript; charset=utf-8", text);
    let page;
    let (content_type, body) = match file {
        "console.js" => script(SCRIPT),
        "console-base.js" => script(BASE_SCRIPT),
        "console-tools.js" => script(TOOLS_SCRIPT),
        "console-activity.js" => script(ACTIVITY_SCRIPT),
        "console.css" => ("text/css; charset=utf-8", STYLE),
        _ => {
            page = super::console::page(front.admission().prefix_for(head));
            ("text/html; charset=utf-8", page.as_bytes())
        }
    };
    let headers = [
        ("Content-Type", content_type),
        ("Cache-Control", "no-cache"),
        ("Content-Security-Policy", POLICY),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
    ];
    // If the client has gone, the answer is not missed.
    responder.respond(status_codes::OK, &headers, &[body]).ok();
}

/// Answers with the changes of a server's pins, old beside new. For an admin.
pub(crate) fn pins(front: &Front, head: &Head, scope: &Scope, responder: Responder) {
    let server = query_value(head.query.as_deref(), "server");
    let changes = reviewed(front, scope, server.as_deref()).and_then(|server| {
        front.review.changes(&server).map_err(|error| unusable(&error, &server))
    });
    let told =
        changes.map(|all| json!({ "changed": all.iter().map(change).collect::<Vec<_>>() }));
    answer(told, responder);
}

/// Accepts pins of a server as they were seen last: `{"server", "item"?}`. For an admin.
pub(crate) fn accept_pins(
    front: &Front,
    request: &Request,
    scope: &Scope,
    responder: Responder,
) {
    let accepted = body_of(request).and_then(|(server, item)| {
        let server = reviewed(front, scope, Some(&server))?;
        let accepted = front.review.accept(&server, item.as_deref());
        accepted.map_err(|error| unusable(&error, &server))
    });
    let item =
        |(subject, own): &(Subject, String)| json!({ "kind": subject.as_str(), "item": own });
    let told =
        accepted.map(|all| json!({ "accepted": all.iter().map(item).collect::<Vec<_>>() }));
    answer(told, responder);
}

/// Invites an admin to sign in at a server for all who use the gateway: `{"server"}`. The answer
/// has the page, and a cookie by which the page knows the admin's browser.
pub(crate) fn invite(front: &Front, request: &Request, scope: &Scope, responder: Responder) {
    let invited = body_of(request).and_then(|(server, _)| {
        let server = reviewed(front, scope, Some(&server))?;
        front.invite(&server, scope).map_err(Problem::no_sign_in)
    });
    match invited {
        Ok(invited) => {
            let headers = [
                ("Content-Type", JSON),
                ("Cache-Control", "no-store"),
                ("Set-Cookie", invited.cookie.as_str()),
            ];
            let body = json!({ "url": invited.url }).to_string();
            responder.respond(status_codes::OK, &headers, &[body.as_bytes()]).ok();
        }
        Err(problem) => {
            problem.send(responder, &problem.body_for(None)).ok();
        }
    }
}

/// The server that an admin wants to do something with.
///
/// # Errors
/// The client is no admin, or there is no such server.
fn reviewed(front: &Front, scope: &Scope, server: Option<&str>) -> Result<ServerName, Problem> {
    if !scope.principal.is_admin {
        return Err(Problem::not_admin());
    }
    let server = server.ok_or_else(|| Problem::bad_request("\"server\" is missing"))?;
    let everything = Scope { principal: front.operator.clone(), ..scope.clone() };
    let found = front.pipeline.server(&everything, server);
    found.map_err(|error| Problem::from_call(&error))
}

/// The members of an acceptance's body.
const MEMBERS: [&str; 2] = ["server", "item"];

fn body_of(request: &Request) -> Result<(String, Option<String>), Problem> {
    if !request.head.headers.get("content-type").is_some_and(is_json) {
        return Err(Problem::not_json());
    }
    let body: Value = serde_json::from_slice(&request.body)
        .map_err(|error| Problem::bad_request(format!("the body is no JSON: {error}")))?;
    let text = |key: &str| match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Problem::bad_request(format!("{key:?} is no string"))),
    };
    let unknown = body.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
    let unknown: Vec<&str> = unknown.filter(|key| !MEMBERS.contains(key)).collect();
    if !unknown.is_empty() {
        return Err(Problem::unknown_members(&unknown, &MEMBERS));
    }
    let server =
        text("server")?.ok_or_else(|| Problem::bad_request("\"server\" is missing"))?;
    Ok((server, text("item")?))
}

fn change(change: &Changes) -> Value {
    let told = match change.texts {
        PinTexts::Both => None,
        PinTexts::New => Some("it is new"),
        PinTexts::PinnedNotKept => Some("the pinned text was not kept"),
        PinTexts::ChangedNotKept => Some("the text as it is now was not kept"),
    };
    let differences = change.differences.iter();
    let of = differences.map(|it| json!({ "at": it.at, "old": it.old, "new": it.new }));
    json!({
        "kind": change.subject.as_str(),
        "item": change.own,
        "told": told,
        "differences": of.collect::<Vec<_>>(),
    })
}

fn unusable(error: &Unusable, server: &ServerName) -> Problem {
    match error {
        Unusable::UnknownTool(near) => Problem::not_pinned(server, near),
        Unusable::Disk(what) => Problem::not_kept(what),
    }
}

fn answer(told: Result<Value, Problem>, responder: Responder) {
    match told {
        Ok(told) => status_codes::send_json(responder, &[told.to_string().as_bytes()]).ok(),
        Err(problem) => problem.send(responder, &problem.body_for(None)).ok(),
    };
}
