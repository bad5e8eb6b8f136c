//! Messages and questions of a server during a stateless client's call, for that client.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::request_state::Sequel;
use super::response::StatelessResponse;
use crate::access::policy::Scope;
use crate::downstream::Front;
use crate::downstream::answer::MessageSink;
use crate::error::CallError;
use crate::limits::{INPUT_ROUNDS_MAX, QUESTIONS_GATHERED_MAX, QUESTIONS_GATHERED_WITHIN};
use crate::pipeline::CallOptions;
use crate::protocol::call::{About, Call, CallSink, Caller, Client, Notice};
use crate::protocol::capabilities::{can_be_asked, needed_for, of_client_for_legacy};
use crate::protocol::for_revision;
use crate::protocol::jsonrpc::{self, RpcError, code};
use crate::protocol::legacy;
use crate::protocol::log_level::LogLevel;
use crate::protocol::method::{Method, notification};
use crate::protocol::modern;
use crate::protocol::question::Question;
use crate::protocol::raw::{Raw, RawObject};
use crate::protocol::server_name::ServerName;
use crate::wait::{Interrupted, Wait};

/// Longer than any call may take: a request that waits for a call ends with the call.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// A stateless request, and its caller.
pub(crate) struct StatelessRequest<'a> {
    pub(crate) scope: &'a Scope,
    pub(crate) method: Method,
    pub(crate) caller: Arc<Caller>,
    pub(crate) token: Option<String>,
    /// The number of the free retry that this is, from 1, of those to which a paid call entitles;
    /// 0 if it is none.
    pub(crate) free_round: usize,
    /// True if the call has been paid for, or goes on with a paid one.
    pub(crate) is_paid: bool,
}

impl Front {
    /// The wait of a stateless request, which the end of its client's connection ends.
    pub(crate) fn stateless_wait(
        &self,
        stream: &StatelessResponse,
    ) -> Result<Arc<Wait>, CallError> {
        let (time, client) = (REQUEST_TIMEOUT, stream.client());
        Wait::with_heartbeat(time, time, client, self.heartbeat(stream))
            .map_err(|_| CallError::Overloaded { what: "no descriptor is left".to_owned() })
    }

    /// The server of a call, and true if that server may ask questions while the call runs. The
    /// request waits where that may be known soon.
    pub(crate) fn owner_of(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        call: &Call<'_>,
        stream: &StatelessResponse,
    ) -> Result<(ServerName, bool), CallError> {
        if let Some(owner) = self.pipeline.owner(scope, options, call) {
            return Ok(owner);
        }
        self.pipeline.await_owner(scope, options, call, &self.stateless_wait(stream)?)
    }

    /// Has the key pay for a call before its item is looked up, unless it goes on with a paid
    /// one. Returns the number of the free retry that this is, from 1; 0 if it is none.
    ///
    /// # Errors
    /// The key's calls for this minute are spent.
    pub(crate) fn pay(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        call: &Call<'_>,
        sequel: Option<&Sequel>,
    ) -> Result<usize, CallError> {
        let free_round = match sequel {
            Some(Sequel::Parked { boot, .. }) if *boot == self.parked.boot() => return Ok(0),
            Some(Sequel::Server { serial, round, .. }) => {
                self.free_round(scope, *serial, *round)
            }
            Some(Sequel::Parked { .. }) | None => 0,
        };
        if free_round == 0 {
            self.pipeline.pay(scope, options, call)?;
        }
        Ok(free_round)
    }

    /// The number of the free retry that this is, from 1; 0 if it must be paid for, because its
    /// state has come back before or the free ones are used up.
    pub(crate) fn free_round(&self, scope: &Scope, serial: u64, round: usize) -> usize {
        let is_free = !self.pipeline.is_metered(scope)
            || (round < INPUT_ROUNDS_MAX
                && self.used_states.is_first_use(
                    serial,
                    scope.charged.as_ref(),
                    Instant::now(),
                    self.parked.life(),
                ));
        if is_free { round.saturating_add(1) } else { 0 }
    }
}

/// The caller, as requests to servers without sessions tell of it, and the log messages that it
/// wants.
fn about(caller: &Caller) -> About<'_> {
    About {
        capabilities: caller.capabilities.get(),
        log_level: caller.log_level,
        is_level_told: false,
    }
}

/// The client of a call for upstream sessions: its principal's.
pub(crate) fn client_of(scope: &Scope, caller: &Caller) -> Client {
    let session = match &scope.principal.id {
        // A user's id is no key's name.
        Some(id) => format!("key:{id}"),
        None => "anybody:".to_owned(),
    };
    let capabilities = of_client_for_legacy(caller.capabilities.get());
    Client {
        session: session.into(),
        is_exclusive: true,
        can_be_asked: can_be_asked(&capabilities),
        capabilities: Raw::from_valid(capabilities),
        charged: scope.charged.clone(),
    }
}

/// The options of a stateless client's request.
pub(crate) fn options_of<'a>(client: &'a Client, caller: &'a Caller) -> CallOptions<'a> {
    CallOptions { client: Some(client), about: about(caller), ..CallOptions::default() }
}

/// The time for which further questions are awaited.
pub(crate) struct Gathering {
    n_asked: u64,
    until: Instant,
    latest: Instant,
}

impl Gathering {
    /// The time begins now.
    pub(crate) fn new() -> Gathering {
        let now = Instant::now();
        Gathering { n_asked: 0, until: now, latest: now + QUESTIONS_GATHERED_MAX }
    }

    /// The time that is left, now that there have been so many questions.
    pub(crate) fn left(&mut self, n_asked: u64) -> Duration {
        let now = Instant::now();
        if n_asked > self.n_asked {
            self.n_asked = n_asked;
            self.until = (now + QUESTIONS_GATHERED_WITHIN).min(self.latest);
        }
        self.until.saturating_duration_since(now)
    }
}

/// Capabilities with notifications of changes for every list: the gateway's lists change with the
/// servers behind it, whatever these declare.
pub(crate) fn with_list_changes(capabilities: &str) -> String {
    let Ok(mut all) = RawObject::parse(capabilities) else { return capabilities.to_owned() };
    for name in ["tools", "prompts", "resources"] {
        let Some(own) = all.get(name) else { continue };
        let mut own = RawObject::parse(own).unwrap_or_default();
        own.set("listChanged", "true");
        let text = own.to_text();
        all.set(name, text);
    }
    all.to_text()
}

/// Turns a server's messages during a call into messages for the call's client.
pub(crate) struct StatelessCallSink<'a> {
    pub(crate) asked: &'a StatelessRequest<'a>,
    pub(crate) wait: &'a Arc<Wait>,
    /// The answer to a call whose server has asked a question.
    pub(crate) refused: RefCell<Option<RpcError>>,
    pub(crate) inner: &'a dyn MessageSink,
}

impl CallSink for StatelessCallSink<'_> {
    fn notice(&self, notice: Notice) {
        let message = match notice {
            Notice::Progress(params) => self.asked.token.as_ref().and_then(|token| {
                let params = legacy::with_progress_token(params.get(), token).ok()?;
                Some(jsonrpc::notification(notification::PROGRESS, Some(&params)))
            }),
            Notice::Log(params) => {
                let level = LogLevel::of_message(params.get());
                // Log messages pass only if the request asks for them (server/utilities/logging).
                let wanted = self
                    .asked
                    .caller
                    .log_level
                    .is_some_and(|wanted| level.is_none_or(|level| level >= wanted));
                wanted.then(|| jsonrpc::notification(notification::MESSAGE, Some(params.get())))
            }
            // These belong to subscriptions, and a withdrawn question was never asked here.
            Notice::ResourceUpdated(_) | Notice::Withdrawn { .. } => None,
            Notice::Other { method, params } => {
                for_revision::hears(self.asked.caller.revision, &method)
                    .then(|| jsonrpc::notification(&method, params.as_ref().map(Raw::get)))
            }
        };
        if let Some(message) = message {
            self.inner.message(&message);
        }
    }

    fn ask(&self, question: Question) {
        let is_known = needed_for(&question.method).is_some();
        let capabilities = self.asked.caller.capabilities.get();
        let (server, lacking) = (question.server.clone(), question.lacking(capabilities));
        // This answers the server, too. An unknown request cannot be passed on either.
        drop(question.if_served(self.asked.caller.revision, capabilities));
        if is_known {
            // The client would have been asked, had the server been known to ask in this way.
            let changed = || {
                let what = format!(
                    "The server {server} has changed to an earlier revision; the call was \
                     cancelled and may be repeated."
                );
                RpcError::new(code::INTERNAL_ERROR, what)
            };
            let error = lacking.map_or_else(changed, |name| modern::missing_capability([name]));
            self.refused.replace(Some(error));
            self.wait.interrupt(Interrupted::Cancelled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_further_question_is_waited_for_anew_up_to_a_bound() {
        let mut gathering = Gathering::new();
        let mut last = gathering.left(1);
        assert!(last > Duration::ZERO && last <= QUESTIONS_GATHERED_WITHIN);
        std::thread::sleep(QUESTIONS_GATHERED_WITHIN / 2);
        // The bell alone prolongs nothing; a question does.
        assert!(gathering.left(1) <= QUESTIONS_GATHERED_WITHIN / 2);
        assert!(gathering.left(2) > QUESTIONS_GATHERED_WITHIN / 2);
        for n_asked in 3..60 {
            std::thread::sleep(Duration::from_millis(5));
            last = gathering.left(n_asked);
        }
        assert_eq!(last, Duration::ZERO);
    }

    #[test]
    fn changes_of_every_list_are_told_of() {
        let own = r#"{"tools":{},"resources":{"listChanged":false,"subscribe":true},"x":{}}"#;
        assert_eq!(
            with_list_changes(own),
            r#"{"tools":{"listChanged":true},"resources":{"listChanged":true,"subscribe":true},"x":{}}"#
        );
    }
}
