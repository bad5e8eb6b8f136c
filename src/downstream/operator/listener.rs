//! `admin_listen`: `/metrics` and `/status` on a second listener, for operators. On this machine
//! it requires no key; from elsewhere an admin's key.

use std::sync::Arc;

use super::metrics::metrics;
use super::{healthz, readyz, status};
use crate::access::origin::{Foreign, HostCheck, Origins};
use crate::access::policy::{Principal, Scope};
use crate::downstream::endpoint::Endpoint;
use crate::downstream::second_look::{self, Look};
use crate::downstream::status_codes::Problem;
use crate::downstream::{Front, refuse};
use crate::http::{Answer, Handler, Head, Request, Responder};
use crate::protocol::call::PrincipalId;
use crate::protocol::headers::REQUEST_ID;
use crate::telemetry;
use crate::telemetry::rejected::Reason;
use crate::telemetry::request::Served;

/// The handler of `admin_listen`.
#[derive(Debug)]
pub struct AdminListener {
    front: Arc<Front>,
    /// True if only this machine can reach it.
    is_local: bool,
    /// The origins: no page of a browser may send requests, under any name of this machine.
    origins: Origins,
}

/// A page of this listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Metrics,
    Status,
    Healthz,
    Readyz,
}

impl Page {
    /// The page at an endpoint; none if this listener does not have the endpoint.
    fn of(endpoint: Endpoint<'_>) -> Option<Page> {
        match endpoint {
            Endpoint::Metrics => Some(Page::Metrics),
            Endpoint::Status => Some(Page::Status),
            Endpoint::Healthz => Some(Page::Healthz),
            Endpoint::Readyz => Some(Page::Readyz),
            Endpoint::RestList(_)
            | Endpoint::RestCall(_)
            | Endpoint::Mcp(_)
            | Endpoint::Sse(_)
            | Endpoint::SseMessages(_)
            | Endpoint::StatusEvents
            | Endpoint::Pins
            | Endpoint::PinsAccept
            | Endpoint::Invite
            | Endpoint::OAuth(_)
            | Endpoint::Console(_)
            | Endpoint::Document(_)
            | Endpoint::ResourceMetadata(_)
            | Endpoint::Reload => None,
        }
    }
}

impl AdminListener {
    /// A handler of the gateway behind `front`.
    pub fn new(front: Arc<Front>, is_local: bool) -> AdminListener {
        let check_host = if is_local { HostCheck::Names } else { HostCheck::Off };
        let origins = Origins { check_host, hosts: Vec::new(), origins: Vec::new() };
        AdminListener { front, is_local, origins }
    }

    fn gate(&self, head: &Head, look: Look) -> Result<(Page, Arc<Principal>), Problem> {
        let (host, origin) = (head.headers.get("host"), head.headers.get("origin"));
        // Over a Unix socket there is no name to check.
        if head.peer.ip().is_some() {
            self.origins.check(host, origin).map_err(|foreign| match foreign {
                Foreign::Host => Problem::foreign("Host", host, "admin_listen"),
                Foreign::Origin => Problem::foreign("Origin", origin, "admin_listen"),
            })?;
        }
        let endpoint = Endpoint::find(&head.path);
        let page = endpoint.and_then(Page::of).ok_or_else(Problem::unknown_admin_path)?;
        if !["GET", "HEAD"].contains(&head.method.as_str()) {
            return Err(Problem::wrong_method(&["GET", "HEAD"]));
        }
        if self.is_local || endpoint.is_some_and(|it| it.is_open()) {
            return Ok((page, self.front.operator.clone()));
        }
        Ok((page, self.front.admin(head, look)?))
    }
}

impl Handler for AdminListener {
    fn admit(&self, head: &Head) -> Result<Option<PrincipalId>, Answer> {
        let served = self.front.begin(head, 0);
        match self.gate(head, Look::BeforeBody) {
            Ok(_) => Ok(None),
            Err(problem) => {
                telemetry::request::answers(problem.status);
                let mut answer = problem.to_answer(None);
                answer.headers.push((REQUEST_ID, served.name.as_str().to_owned()));
                Err(answer)
            }
        }
    }

    fn aborted(&self) {
        self.front.aborted();
    }

    fn handle(&self, request: Request, responder: Responder) {
        let served = self.front.begin(&request.head, request.body.len());
        let responder = responder.named(served.name);
        let admitted = self.gate(&request.head, Look::Whole);
        second_look::forget();
        let (page, principal) = match admitted {
            Ok(admitted) => admitted,
            Err(problem) => return refuse(&problem, None, responder),
        };
        let (only, narrowed, charged, lease, user) = (None, None, None, None, None);
        let scope = Scope { principal, only, narrowed, admission: 0, charged, lease, user };
        match page {
            Page::Metrics => metrics(&self.front, &scope, responder),
            Page::Healthz => healthz(&self.front, responder),
            Page::Readyz => readyz(&self.front, &scope, responder),
            Page::Status => status(&self.front, scope, responder),
        }
    }

    fn refused(&self, head: &Head, reason: Option<Reason>, told: &str) -> Served {
        self.front.refused(head, reason, told)
    }

    fn refusal(&self, status: u16, reason: &str) -> Vec<u8> {
        self.front.refusal(status, reason)
    }
}
