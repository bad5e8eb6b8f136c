//! Serves clients: bytes in → call → outcome → bytes out. Each transport has a file or a folder;
//! the common part is here: the principal, the scope and the admission of a request.

mod admission;
pub mod answer;
mod authentication;
mod counted_bytes;
pub mod endpoint;
pub mod event_stream;
mod keep_alive;
pub mod legacy;
pub mod list_pages;
pub mod oauth;
pub mod operator;
pub mod posted_message;
mod problem_body;
mod readmission;
mod refusal_text;
mod request_telemetry;
pub mod rest;
mod second_look;
mod session_scope;
pub mod stateless;
pub mod status_codes;
pub mod stdio;
mod token_problems;
mod users;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use crossbeam_channel::Sender;

use crate::access::origin::Foreign;
use crate::access::policy::OptionalLease;
use crate::access::policy::{Principal, Scope};
use crate::config::Reloaded;
use crate::http::{Answer, Budget, Handler, Head, Request, Responder, Running};
use crate::limits::Limits;
use crate::pipeline::{Pipeline, Review};
use crate::protocol::call::PrincipalId;
use crate::protocol::headers;
use crate::protocol::quirks::Tolerance;
use crate::protocol::sealed::Sealer;
use crate::protocol::server_name::ServerName;
use crate::resource_server::ResourceServer;
use crate::session::{EncodedEvent, EventLogs, EventSink, Sessions};
use crate::sync::RwLock;

use crate::telemetry;
use crate::telemetry::rejected::Reason;
use crate::telemetry::request::{self, Incoming, Served};

pub use admission::Admission;
pub use authentication::Tokens;
use authentication::{Identified, note, refusal};
use endpoint::Endpoint;
use event_stream::{Place, StreamHandle, Streams};
pub use operator::listener::AdminListener;
pub use operator::status_events::Watchers;
pub use readmission::Readmitted;
use second_look::Look;
use stateless::parked_calls::ParkedCalls;
pub use stateless::request_state::used::UsedStates;
use status_codes::Problem;

/// The values that the clients' transports share.
#[derive(Debug)]
pub struct Front {
    /// The keys of issuers, for `/status`.
    pub resource_server: Arc<ResourceServer>,
    /// The present verifier of access tokens, for whatever outlives a request.
    pub tokens: Arc<Tokens>,
    /// The present admission, swapped whole.
    pub admission: RwLock<Arc<Admission>>,
    /// The principal of clients without a key, where none is required.
    pub anonymous: Arc<Principal>,
    /// The principal of such clients on this machine, and of others that are told everything.
    pub operator: Arc<Principal>,
    /// The pipeline of calls.
    pub pipeline: Arc<Pipeline>,
    /// The session thread's handle.
    pub sessions: Sessions,
    /// The stream thread's handle.
    pub streams: Streams,
    /// The streams that are sent calls and refusals as they happen.
    pub watchers: Arc<Watchers>,
    /// The events that are kept for clients that resume a stream.
    pub event_logs: EventLogs,
    /// Every bound.
    pub limits: Arc<Limits>,
    /// The bytes that may be held at once.
    pub buffered: Budget,
    /// Seals and opens the cursors of lists.
    pub cursors: Sealer,
    /// Seals and opens the `requestState` of stateless clients.
    pub states: Sealer,
    /// The states that have come back.
    pub used_states: UsedStates,
    /// Calls of stateless clients that outlive a request.
    pub parked: ParkedCalls,
    /// The review of pins.
    pub review: Review,
    /// The time at which the process began to serve.
    pub started: Instant,
    /// True while the process stops.
    pub stopping: AtomicBool,
    /// The running engine, once it runs, for `/status`.
    pub engine: OnceLock<Weak<Running>>,
    /// The sender of wishes to read the configuration again, once there is a receiver.
    pub reload: OnceLock<Sender<Sender<Reloaded>>>,
}

/// The text for a client whose bodies and results fill its share.
const SHARE_HELD: &str = "your bodies and results fill your share of limits.buffered_bytes";
/// The headers that a page of an admitted origin may read besides the usual ones: the session that
/// it opened, and where its user signs in.
const EXPOSED_HEADERS: &str = "Mcp-Session-Id, WWW-Authenticate";

/// A request that is admitted.
#[derive(Debug)]
struct Admitted<'a> {
    endpoint: Endpoint<'a>,
    principal: Arc<Principal>,
    admission: u64,
    charged: Option<PrincipalId>,
    lease: OptionalLease,
}

/// A transport that can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TransportSwitch {
    Rest,
    Sse,
    StreamableHttp,
}

impl Front {
    pub(super) fn tolerance(&self) -> Tolerance {
        self.admission().tolerance
    }

    /// The present admission.
    fn admission(&self) -> Arc<Admission> {
        self.admission.read().clone()
    }

    /// Notes the beginning of a request in this thread's record, with its id and peer.
    fn begin(&self, head: &Head, bytes_in: usize) -> Served {
        let admission = self.admission();
        admission.note_forwarded(head);
        let peer = admission.peer(head);
        telemetry::request::begin(Incoming {
            id: head.headers.get(headers::REQUEST_ID),
            traceparent: head.headers.get(headers::TRACEPARENT),
            tracestate: head.headers.get(headers::TRACESTATE),
            agent: head.headers.get("user-agent"),
            method: &head.method,
            path: &head.path,
            peer: peer.ip(),
            bytes_in,
        })
    }

    /// Decides by the head alone if a request may be served.
    fn gate<'a>(&self, head: &'a Head, look: Look) -> Result<Admitted<'a>, Problem> {
        let admission = self.admission();
        let (host, origin) = (head.headers.get("host"), head.headers.get("origin"));
        let endpoint = Endpoint::find(admission.own_path(&head.path));
        match admission.origins.check(host, origin) {
            // A health check may not know the gateway's name, and reveals nothing else.
            Err(Foreign::Host) if matches!(endpoint, Some(Endpoint::Healthz)) => (),
            Err(Foreign::Host) => return Err(Problem::foreign("Host", host, "allowed_hosts")),
            // Every page may learn where its user signs in.
            Err(Foreign::Origin) if matches!(endpoint, Some(Endpoint::ResourceMetadata(_))) => {
            }
            Err(Foreign::Origin) => {
                return Err(Problem::foreign("Origin", origin, "allowed_origins"));
            }
            Ok(()) => (),
        }
        if let Some(field) = posted_message::repeated(head, admission.tolerance) {
            return Err(Problem::repeated(field));
        }
        let is_preflight = head.method == "OPTIONS";
        let identified = match endpoint {
            // A browser's preflight carries no key; it only asks which requests are allowed.
            Some(endpoint) if is_preflight || endpoint.is_unauthenticated() => {
                Identified::of(self.anonymous.clone())
            }
            Some(endpoint) if endpoint.is_open() => self.identify_at_once(&admission, head),
            Some(_) | None => self
                .identify(&admission, head, look)
                .map_err(|why| refusal(&why, &admission, head))?,
        };
        let Identified { principal, lease } = identified;
        note(&principal);
        let endpoint = endpoint.ok_or_else(Problem::unknown_path)?;
        if !endpoint.methods().contains(&head.method.as_str()) {
            return Err(Problem::wrong_method(endpoint.methods()));
        }
        let charged = admission.charged(&principal, admission.peer(head));
        Ok(Admitted { endpoint, principal, lease, admission: admission.generation, charged })
    }

    fn endpoint<'a>(&self, head: &'a Head) -> Option<Endpoint<'a>> {
        Endpoint::find(self.admission().own_path(&head.path))
    }

    /// The scope of a request.
    ///
    /// # Errors
    /// The endpoint is one server's, and there is no server of that name for this key.
    fn scope(&self, head: &Head, admitted: &Admitted<'_>) -> Result<Scope, Problem> {
        let principal = admitted.principal.clone();
        let admission = admitted.admission;
        let charged = admitted.charged.clone();
        let (lease, user) = (admitted.lease.clone(), self.user(head, &admitted.principal));
        let mut scope =
            Scope { principal, only: None, narrowed: None, admission, charged, lease, user };
        users::check_forwarded(&scope)?;
        let found = |name: &str| {
            self.pipeline.server(&scope, name).map_err(|error| Problem::from_call(&error))
        };
        let in_path = admitted.endpoint.server().map(|path| (path, path.split(',').map(found)));
        let (only, narrowed) = match in_path {
            // Several names are those of the narrowing header, as a path.
            Some((path, mut named)) if path.contains(',') => {
                (None, Some(each_once(named.by_ref().collect::<Result<_, _>>()?)))
            }
            Some((_, mut named)) => (named.next().transpose()?, None),
            None => (None, None),
        };
        (scope.only, scope.narrowed) = (only, narrowed);
        let seen = scope.clone();
        let in_header = head.headers.get(headers::SERVERS).map(|_| {
            // A name that no server has narrows to nothing, and is not worth remembering. Nor is
            // the name of a server that the key may not see: the two must be treated alike, in a
            // session's id too.
            let known = |name: &ServerName| seen.sees_server(name) && self.pipeline.knows(name);
            let lists = head.headers.get_all(headers::SERVERS);
            let names = lists
                .flat_map(|list| list.split(','))
                .filter_map(|name| ServerName::parse(name.trim()));
            each_once(names.filter(known).collect())
        });
        scope.narrowed = in_both(scope.narrowed.as_ref(), in_header);
        Ok(scope)
    }

    /// Checks that a transport serves.
    ///
    /// # Errors
    /// The answer, which names the transports that serve instead.
    fn switched_on(&self, transport: TransportSwitch) -> Result<(), Problem> {
        let on = self.admission().transports;
        let (serves, name) = match transport {
            TransportSwitch::Rest => (on.rest, "rest"),
            TransportSwitch::Sse => (on.sse, "sse"),
            TransportSwitch::StreamableHttp => (on.streamable_http, "streamable_http"),
        };
        if serves {
            return Ok(());
        }
        let mut serving = Vec::new();
        if on.rest {
            serving.extend(["GET /mcp/tools/list", "POST /mcp/tools/call"]);
        }
        if on.sse {
            serving.push("GET /mcp/sse");
        }
        if on.streamable_http {
            serving.push("POST /mcp");
        }
        Err(Problem::switched_off(name, &serving))
    }

    fn dispatch(&self, admitted: &Admitted<'_>, request: &Request, responder: Responder) {
        let head = &request.head;
        if head.method == "OPTIONS" {
            return operator::options(admitted.endpoint, head, responder);
        }
        let scope = match self.scope(head, admitted) {
            Ok(scope) => scope,
            Err(problem) => return refuse(&problem, Some(admitted.endpoint), responder),
        };
        match admitted.endpoint {
            Endpoint::RestList(dialect) => self.rest_list(head, &scope, dialect, responder),
            Endpoint::RestCall(dialect) => self.rest_call(request, &scope, dialect, responder),
            Endpoint::Mcp(_) => self.mcp(request, scope, responder),
            Endpoint::Sse(_) => self.open_sse(head, &scope, responder),
            Endpoint::SseMessages(_) => self.sse_message(request, scope, responder),
            Endpoint::Healthz => operator::healthz(self, responder),
            Endpoint::Readyz => operator::readyz(self, &scope, responder),
            Endpoint::Status => operator::status(self, scope, responder),
            Endpoint::StatusEvents => {
                operator::status_events::watch(self, head, &scope, responder)
            }
            Endpoint::Metrics if scope.principal.is_admin => {
                operator::metrics::metrics(self, &scope, responder)
            }
            Endpoint::Metrics => {
                refuse(&Problem::not_admin(), Some(admitted.endpoint), responder);
            }
            Endpoint::Pins => operator::console::pins(self, head, &scope, responder),
            Endpoint::PinsAccept => {
                operator::console::accept_pins(self, request, &scope, responder)
            }
            Endpoint::Invite => operator::console::invite(self, request, &scope, responder),
            Endpoint::OAuth(part) => oauth::serve(self, part, request, &scope, responder),
            Endpoint::Console(file) => operator::console::console(self, file, head, responder),
            Endpoint::Document(document) => {
                operator::documents::document(self, document, head, responder)
            }
            Endpoint::ResourceMetadata(path) => {
                oauth::protected_resource::metadata(self, path, head, responder);
            }
            Endpoint::Reload => operator::reload(self, &scope, responder),
        }
    }

    fn mcp(&self, request: &Request, scope: Scope, responder: Responder) {
        match request.head.method.as_str() {
            "POST" => self.post(request, scope, responder),
            "DELETE" => self.delete(&request.head, &scope, responder),
            _ => self.get(&request.head, scope, responder),
        }
    }

    /// A place among the long-lived streams, taken before the answer begins.
    fn place(&self, scope: &Scope) -> Result<Place, Problem> {
        let place = self.streams.reserve_for(scope.charged.as_ref());
        place
            .map(|place| place.leased(scope.lease.clone()))
            .map_err(|full| Problem::overloaded(&full.to_string()))
    }

    /// True if a page of this origin may read the answer because it is admitted. Every page may
    /// read metadata, which says so itself.
    fn admits_page(&self, origin: &str, head: &Head) -> bool {
        self.admission().origins.admits(origin)
            && !matches!(self.endpoint(head), Some(Endpoint::ResourceMetadata(_)))
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

impl Handler for Front {
    fn admit(&self, head: &Head) -> Result<Option<PrincipalId>, Answer> {
        // More is noted of an admitted request once its body is here.
        let served = self.begin(head, 0);
        match self.gate(head, Look::BeforeBody) {
            Ok(admitted) => Ok(admitted.charged),
            Err(problem) => {
                telemetry::request::answers(problem.status);
                let mut answer = problem.to_answer(self.endpoint(head));
                answer.headers.push((headers::REQUEST_ID, served.name.as_str().to_owned()));
                let origin = head.headers.get("origin");
                if let Some(origin) = origin.filter(|origin| self.admits_page(origin, head)) {
                    answer.headers.extend(cors(origin));
                }
                Err(answer)
            }
        }
    }

    fn aborted(&self) {
        second_look::forget();
    }

    fn handle(&self, mut request: Request, responder: Responder) {
        let served = self.begin(&request.head, request.body.len());
        let responder = responder.named(served.name);
        // This includes errors: a page may read why it was refused.
        let mut responder = match request.head.headers.get("origin") {
            Some(origin) if self.admits_page(origin, &request.head) => {
                responder.always(cors(origin))
            }
            Some(_) | None => responder,
        };
        // The share is held for as long as the request.
        let mut share = std::mem::take(&mut request.share);
        let admitted = self.gate(&request.head, Look::Whole).and_then(|admitted| {
            let charged = admitted.charged.as_ref();
            responder.charge(charged).map_err(|what| Problem::overloaded(&what))?;
            share.charge(charged).map_err(|_| Problem::overloaded(SHARE_HELD))?;
            Ok(admitted)
        });
        second_look::forget();
        match admitted {
            Ok(admitted) => self.dispatch(&admitted, &request, responder),
            Err(problem) => refuse(&problem, self.endpoint(&request.head), responder),
        }
    }

    fn refused(&self, head: &Head, reason: Option<Reason>, told: &str) -> Served {
        let served = self.begin(head, 0);
        let principal = self.admission().principal(head);
        if let Some(principal) = principal {
            note(&principal);
        }
        if let Some(reason) = reason {
            request::turned_away(reason, None, told);
        }
        served
    }

    fn refusal(&self, status: u16, reason: &str) -> Vec<u8> {
        status_codes::engine_body(status, reason).into_bytes()
    }
}

/// The headers that allow a page of an admitted origin to read the answer.
fn cors(origin: &str) -> [(&'static str, String); 3] {
    [
        ("Access-Control-Allow-Origin", origin.to_owned()),
        ("Access-Control-Expose-Headers", EXPOSED_HEADERS.to_owned()),
        ("Vary", "Origin".to_owned()),
    ]
}

/// The names of a narrowing, each once.
fn each_once(mut names: Vec<ServerName>) -> Arc<[ServerName]> {
    names.sort_unstable();
    names.dedup();
    names.into()
}

/// The intersection of two narrowings; None narrows nothing.
fn in_both(
    one: Option<&Arc<[ServerName]>>,
    other: Option<Arc<[ServerName]>>,
) -> Option<Arc<[ServerName]>> {
    match (one, other) {
        (None, other) => other,
        (Some(one), None) => Some(one.clone()),
        (Some(one), Some(other)) => {
            Some(one.iter().filter(|name| other.contains(name)).cloned().collect())
        }
    }
}

fn refuse(problem: &Problem, endpoint: Option<Endpoint<'_>>, responder: Responder) {
    // If the client has gone, the answer is not missed.
    problem.send(responder, &problem.body_for(endpoint)).ok();
}

impl EventSink for StreamHandle {
    fn send(&self, event: EncodedEvent) -> bool {
        StreamHandle::send(self, event).is_ok()
    }

    fn close(&self) {
        StreamHandle::close(self);
    }

    fn is_open(&self) -> bool {
        StreamHandle::is_open(self)
    }
}
