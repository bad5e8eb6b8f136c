//! The call of a user who has not signed in, where a server's credentials are each user's own: the
//! caller is asked to open the gateway's page (URL mode of 2025-11-25 and 2026-07-28,
//! client/elicitation), and the call goes on by itself once the user has signed in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use super::route::{Route, Wanted};
use super::send::Asker;
use super::sign_in::{Beginner, SignInStatus};
use super::{CallOptions, Pipeline};
use crate::access::policy::Scope;
use crate::error::{CallError, Stage};
use crate::protocol::call::{Call, CallSink, Caller, Notice, Outcome, Outgoing};
use crate::protocol::capabilities::lacking;
use crate::protocol::jsonrpc::{RequestId, RpcError};
use crate::protocol::method::notification::ELICITATION_COMPLETE;
use crate::protocol::question::{AnswerTo, Question};
use crate::protocol::raw::{Raw, RawObject, string};
use crate::protocol::server_name::ServerName;
use crate::upstream::authorization::ServerAuthorization;
use crate::upstream::{State, Upstream};
use crate::wait::Wait;

/// The time between two looks for a sign-in that another process has made.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The method by which clients are asked to open a page.
const ELICITATION: &str = "elicitation/create";
/// Where an RPC id of a question comes from that no server has asked.
static LAST_QUESTION: AtomicU64 = AtomicU64::new(0);

impl Pipeline {
    /// The user's own upstream at which the user has to sign in before a call can be sent: that of
    /// the server to which the item of the call belongs, or of the only such server in scope.
    pub(super) fn awaits_sign_in(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        call: &Call<'_>,
    ) -> Option<Arc<Upstream>> {
        scope.user.as_ref()?;
        let asked = Wanted::of(call)?;
        let named = options.server.and_then(|server| self.server(scope, server).ok());
        let catalogue = self.catalogue.current();
        let owner = named
            .or_else(|| scope.only.clone())
            .or_else(|| asked.owner(&catalogue).filter(|it| scope.sees_server(it)).cloned());
        if let Some(owner) = owner {
            return self.needing_sign_in(scope, &owner);
        }
        let servers = self.servers(scope);
        let mut needing = servers.iter().filter_map(|it| self.needing_sign_in(scope, it));
        let first = needing.next()?;
        needing.next().is_none().then_some(first)
    }

    /// [`Pipeline::find`]; a caller who has not signed in at the server that may have the item is
    /// asked to.
    ///
    /// # Errors
    /// As [`Pipeline::find`] and [`Pipeline::ask_to_sign_in`].
    pub(super) fn find_signed_in(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        call: &Call<'_>,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Route, CallError> {
        match self.find(scope, options, call, wait) {
            Err(error @ (CallError::Unknown { .. } | CallError::NeedsSignIn { .. })) => {
                let Some(upstream) = self.awaits_sign_in(scope, options, call) else {
                    return Err(error);
                };
                self.ask_to_sign_in(scope, &upstream, &call.caller, wait, sink)?;
                self.find(scope, options, call, wait)
            }
            found => found,
        }
    }

    /// Sends a request; a caller who has not signed in at the server is asked to first.
    ///
    /// # Errors
    /// As [`Asker::send`] and [`Pipeline::ask_to_sign_in`].
    pub(super) fn send_signed_in(
        &self,
        scope: &Scope,
        asker: &Asker<'_>,
        (caller, outgoing): (&Caller, &Outgoing<'_>),
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<Outcome, CallError> {
        match (asker.send(outgoing, wait, sink), asker.of_user()) {
            (Err(CallError::NeedsSignIn { .. }), Some(upstream)) => {
                self.ask_to_sign_in(scope, upstream, caller, wait, sink)?;
                asker.send(outgoing, wait, sink)
            }
            (answer, _) => answer,
        }
    }

    fn needing_sign_in(&self, scope: &Scope, server: &ServerName) -> Option<Arc<Upstream>> {
        if !self.upstreams.get(server)?.config().is_per_user() {
            return None;
        }
        let upstream = self.upstream_for(scope, server).ok()?;
        (upstream.state() == State::NeedsSignIn).then_some(upstream)
    }

    /// Asks the caller to sign in, and waits for that: as long as a call may be parked.
    ///
    /// # Errors
    /// The caller cannot be asked, or declines: the error says where to sign in. Or the wait was
    /// ended.
    pub(super) fn ask_to_sign_in(
        &self,
        scope: &Scope,
        upstream: &Upstream,
        caller: &Caller,
        wait: &Arc<Wait>,
        sink: &dyn CallSink,
    ) -> Result<(), CallError> {
        let server = upstream.name();
        let needed = |message: String| {
            let (server, is_under_way) = (server.clone(), false);
            CallError::NeedsSignIn { server, message, is_under_way }
        };
        let Some(authorization) = upstream.authorization() else { return Ok(()) };
        let beginner = Beginner::of(&scope.principal).ok_or_else(|| {
            needed(
                "each user signs in there, and this client has no key that says who it is"
                    .into(),
            )
        })?;
        let url = self.invite_user(server, beginner, authorization).map_err(needed)?;
        let told = format!("open {url} in a browser, sign in, and call again");
        if !can_open_pages(caller) {
            return Err(needed(told));
        }
        // The time that people take does not run against the call's.
        let patience = self.upstreams.authorizations().setup().patience;
        let _held = wait.hold(patience);
        let asked = ask(server, &url, wait, sink);
        let outcome = await_sign_in(authorization, &asked.said, wait);
        match outcome {
            Waited::SignedIn => {
                asked.end(sink);
                Ok(())
            }
            Waited::NotAsked => Err(needed(told)),
            Waited::Declined => Err(needed(format!("the user declined; {told}"))),
            Waited::Over => Err(match wait.interrupted() {
                Some(reason) => CallError::interrupted(reason, server, Stage::Authorization),
                None => needed(told),
            }),
        }
    }
}

/// True if a caller can be asked to open a page. It needs no such capability to call: its user can
/// open the page all the same, so that the error for a missing capability would say too little.
fn can_open_pages(caller: &Caller) -> bool {
    lacking(caller.capabilities.get(), ELICITATION, Some(r#"{"mode":"url"}"#)).is_none()
}

/// A caller that was asked.
struct Asked<'a> {
    server: &'a ServerName,
    id: RequestId,
    elicitation: String,
    said: Receiver<Result<Raw, RpcError>>,
}

impl Asked<'_> {
    /// Tells the caller that nothing is to be done any more.
    fn end(self, sink: &dyn CallSink) {
        let mut params = RawObject::default();
        params.set("elicitationId", string(&self.elicitation));
        let params = Some(Raw::from_valid(params.to_text()));
        sink.notice(Notice::Withdrawn { server: self.server.clone(), id: self.id });
        sink.notice(Notice::Other { method: ELICITATION_COMPLETE.to_owned(), params });
    }
}

fn ask<'a>(
    server: &'a ServerName,
    url: &str,
    wait: &Arc<Wait>,
    sink: &dyn CallSink,
) -> Asked<'a> {
    let number = LAST_QUESTION.fetch_add(1, Ordering::Relaxed) + 1;
    let elicitation = format!("trunkline-sign-in-{}-{number}", std::process::id());
    // Servers count from the other end.
    let id = RequestId::from(u64::MAX - number);
    let mut params = RawObject::default();
    params.set("mode", string("url"));
    params.set("message", string(&format!("Sign in to {server} to go on.")));
    params.set("url", string(url));
    params.set("elicitationId", string(&elicitation));
    let (give, said) = bounded(1);
    let woken = wait.clone();
    let reply = AnswerTo::new(move |answer| {
        give.try_send(answer).ok();
        woken.bell().ring();
    });
    sink.ask(Question {
        server: server.clone(),
        id: id.clone(),
        is_of_call: true,
        method: ELICITATION.to_owned(),
        params: Some(Raw::from_valid(params.to_text())),
        reply,
    });
    Asked { server, id, elicitation, said }
}

/// How the wait for a sign-in ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waited {
    SignedIn,
    /// The caller is none that can be asked.
    NotAsked,
    Declined,
    /// The time is over, or the caller has gone.
    Over,
}

fn await_sign_in(
    authorization: &ServerAuthorization,
    said: &Receiver<Result<Raw, RpcError>>,
    wait: &Arc<Wait>,
) -> Waited {
    loop {
        if matches!(authorization.status(), SignInStatus::SignedIn { .. }) {
            return Waited::SignedIn;
        }
        match said.try_recv() {
            Ok(Ok(answer)) if !is_accepted(&answer) => return Waited::Declined,
            Ok(Err(_)) => return Waited::NotAsked,
            // The browser may still be on its way.
            Ok(Ok(_)) | Err(_) => (),
        }
        if wait.until(None, Some(LOOK_INTERVAL)).is_err() {
            return Waited::Over;
        }
    }
}

fn is_accepted(answer: &Raw) -> bool {
    let answer = RawObject::parse(answer.get()).ok();
    let action = answer.and_then(|it| it.string("action").ok().flatten());
    action.as_deref() == Some("accept")
}
