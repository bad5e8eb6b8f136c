//! A stateless request waits for its detached call until that is over, or a server with sessions
//! asks the client something in it: then the answer is `input_required`, and the call is parked
//! (2026-07-28, basic/patterns/mrtr).

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use super::call_sink::{
    Gathering, REQUEST_TIMEOUT, StatelessCallSink, StatelessRequest, client_of, options_of,
};
use super::parked_calls::{DetachedCall, Holder, News};
use super::refusals::failed;
use super::request_state::{Sequel, States};
use super::response::StatelessResponse;
use crate::access::policy::Scope;
use crate::downstream::Front;
use crate::downstream::answer::Answer;
use crate::downstream::authentication::bound;
use crate::downstream::counted_bytes::share_of;
use crate::error::CallError;
use crate::pipeline::CallOptions;
use crate::protocol::call::{Call, CallSink};
use crate::protocol::modern::{self};
use crate::protocol::raw::{Raw, RawObject};
use crate::telemetry;
use crate::telemetry::request::Carried;
use crate::wait::{Interrupted, Wait};

impl Front {
    /// Starts a call on a thread of its own.
    pub(super) fn start_apart(
        &self,
        asked: &StatelessRequest<'_>,
        call: &Call<'_>,
    ) -> Result<Arc<DetachedCall>, CallError> {
        let wait = Wait::plain(REQUEST_TIMEOUT)
            .map_err(|_| CallError::Overloaded { what: "no descriptor is left".to_owned() })?;
        let (pipeline, scope) = (self.pipeline.clone(), asked.scope.clone());
        let (caller, method, client) =
            (asked.caller.clone(), asked.method, client_of(asked.scope, &asked.caller));
        let params = call.params.to_text();
        let meta = call.meta.as_ref().map(RawObject::to_text);
        let (token, is_paid) = (asked.token.clone(), asked.is_paid);
        let carried = telemetry::request::carried();
        // The parameters outlive their request, and count for as long.
        let share = share_of(&self.buffered, [&params].into_iter().chain(&meta))?;
        self.parked.start(wait, move |wait, sink| {
            let _counted = share;
            let _served = carried.and_then(Carried::enter);
            let call = Call {
                caller: caller.clone(),
                method,
                // The parameters were read before, so they read again.
                params: RawObject::parse(&params).unwrap_or_default(),
                meta: meta.as_deref().and_then(|meta| RawObject::parse(meta).ok()),
                progress_token: token,
            };
            let options = CallOptions { is_paid, ..options_of(&client, &caller) };
            pipeline.call(&scope, options, call, wait, sink)
        })
    }

    /// Waits for a detached call, until it is over or has questions.
    pub(super) fn follow(
        &self,
        asked: &StatelessRequest<'_>,
        detached: &Arc<DetachedCall>,
        round: u64,
        states: &States<'_>,
        stream: &StatelessResponse,
    ) -> Answer {
        let wait = match self.stateless_wait(stream) {
            Ok(wait) => wait,
            Err(error) => {
                detached.abandon(Interrupted::Cancelled);
                return failed(&error);
            }
        };
        bound(&wait, asked.scope);
        detached.attach(&wait);
        let sink = StatelessCallSink {
            asked,
            wait: &wait,
            refused: RefCell::default(),
            inner: stream,
        };
        let mut gathering: Option<Gathering> = None;
        loop {
            let woken = match detached.next() {
                News::Notice(notice) => {
                    sink.notice(notice);
                    // The bell of a further notice would hide that the client has gone.
                    let look = || wait.until(None, Some(Duration::ZERO));
                    look().and_then(|_| look())
                }
                News::Done(outcome) => {
                    detached.detach();
                    telemetry::request::came_of(Some(asked.method), &outcome);
                    return self.conclude(asked, states, outcome);
                }
                // Questions that come close together are put to the client together.
                News::Asked => {
                    let n_asked = detached.n_asked();
                    let left = gathering.get_or_insert_with(Gathering::new).left(n_asked);
                    if left.is_zero() {
                        match self.ask(asked, detached, round, states) {
                            Some(answer) => return answer,
                            // The question was withdrawn, or the call has just ended.
                            None => continue,
                        }
                    }
                    wait.until(None, Some(left))
                }
                News::None => {
                    gathering = None;
                    wait.until(None, None)
                }
            };
            if let Err(reason) = woken {
                detached.abandon(reason);
                return Answer::None;
            }
        }
    }

    /// Answers with a call's questions, and parks the call. None if it has no questions left.
    fn ask(
        &self,
        asked: &StatelessRequest<'_>,
        detached: &Arc<DetachedCall>,
        round: u64,
        states: &States<'_>,
    ) -> Option<Answer> {
        let missing = detached.missing(asked.caller.capabilities.get());
        if !missing.is_empty() {
            detached.abandon(Interrupted::Cancelled);
            return Some(Answer::Error(modern::missing_capability(missing)));
        }
        let requests = detached.requests(asked.caller.revision)?;
        let Scope { principal, charged, lease, .. } = asked.scope;
        let (principal, charged) = (principal.id.clone(), charged.clone());
        let holder = Holder { principal, charged, lease: lease.clone() };
        match self.parked.park(detached, holder, round) {
            Ok(true) => (),
            Ok(false) => return None,
            Err(full) => {
                detached.abandon(Interrupted::Cancelled);
                return Some(Answer::Error(full.to_error()));
            }
        }
        let sequel = Sequel::Parked { boot: self.parked.boot(), id: detached.id(), round };
        let state = states.seal(sequel, self.parked.life());
        let text = modern::input_required(Some(&requests), Some(&state));
        Some(Answer::Result(Raw::from_valid(text)))
    }
}
