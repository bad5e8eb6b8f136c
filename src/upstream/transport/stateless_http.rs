//! Streamable HTTP without sessions (2026-07-28, basic/transports/streamable-http): a POST for
//! every request, with what it is about mirrored into headers, answered as JSON or as a stream.
//! Whoever no longer wants an answer closes the connection.

use std::sync::Arc;

use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method as HttpMethod};

use crate::error::Stage;
use crate::protocol::call::{Outcome, Outgoing, PrincipalId};
use crate::protocol::headers::{METHOD, NAME, PARAM_PREFIX, PROTOCOL_VERSION, encode_value};
use crate::protocol::jsonrpc::{RpcError, code};
use crate::protocol::legacy::Initialized;
use crate::protocol::method::Method;
use crate::protocol::modern::is_modern_error;
use crate::protocol::revision::Revision;
use crate::wait::Wait;

use super::answer::{Ear, Exchange, Response};
use super::http::{HttpContext, header_name};
use super::listen_stream::Listening;
use super::refused_status::{error_text, is_success};
use super::{Channel, Closing, RequestAttempt};
use crate::upstream::failure::{Failure, FailureKind, Refusal};
use crate::upstream::handshake;
use crate::upstream::http_client::{HttpConnection, HttpRequest, HttpResponse};
use crate::upstream::message::{self, Incoming};
use crate::upstream::session::context::Opener;
use crate::upstream::session::stateless::{answered_here, outcome};

/// What all contacts with a server share.
pub(super) struct StatelessHttp {
    http: Arc<HttpContext>,
    /// The configured headers, and those of every POST.
    post: HeaderMap,
    listening: Arc<Listening>,
}

/// First contact was made. Requests need nothing of it.
struct Stateless {
    way: Arc<StatelessHttp>,
    initialized: Arc<Initialized>,
}

/// One POST.
struct Post<'a> {
    id: u64,
    body: &'a str,
    headers: &'a HeaderMap,
}

impl StatelessHttp {
    pub(super) fn new(http: Arc<HttpContext>) -> StatelessHttp {
        let mut post = http.post.clone();
        let version = HeaderValue::from_static(Revision::LATEST_MODERN.as_str());
        post.insert(header_name(PROTOCOL_VERSION), version);
        let mut headers = post.clone();
        let method = HeaderValue::from_static(Method::SubscriptionsListen.as_str());
        headers.insert(header_name(METHOD), method);
        let listening = Listening::new(http.clone(), headers);
        StatelessHttp { http, post, listening }
    }

    /// Asks the server what it is.
    pub(super) fn connect(
        self: &Arc<Self>,
        connection: &mut HttpConnection,
        wait: &Arc<Wait>,
    ) -> Result<Box<dyn Channel>, Failure> {
        let id = self.http.context.next_id();
        let mut headers = self.post.clone();
        let method = HeaderValue::from_static(Method::ServerDiscover.as_str());
        headers.insert(header_name(METHOD), method);
        let body = &self.http.message(&handshake::discovery(), id);
        let post = Post { id, body, headers: &headers };
        let sink = Opener(&self.http.context);
        let answer = self.post(connection, &post, &Ear::new(&sink, wait, None));
        let answer = answer.map_err(|failure| match failure.kind {
            FailureKind::Refused(_) => {
                Failure { kind: FailureKind::Refused(Refusal::OtherEra), ..failure }
            }
            FailureKind::Interrupted(_)
            | FailureKind::Unauthorized(_)
            | FailureKind::SessionGone
            | FailureKind::Broke
            | FailureKind::Nonsense
            | FailureKind::Overloaded => failure,
        })?;
        let initialized = Arc::new(handshake::read_discovery(answer)?);
        Ok(Box::new(Stateless { way: self.clone(), initialized }))
    }

    /// What every POST carries, and what this one is about (basic/transports/streamable-http,
    /// Request Metadata).
    fn headers(&self, outgoing: &Outgoing<'_>) -> Result<HeaderMap, Failure> {
        let unusable = |what: &str| {
            Failure::new(
                FailureKind::Nonsense,
                Stage::Send,
                format!("{what} fits into no header"),
            )
        };
        let value = |text: &str| HeaderValue::from_str(&encode_value(text));
        let mut headers = self.post.clone();
        let method = value(outgoing.method).map_err(|_| unusable("the method's name"))?;
        headers.insert(header_name(METHOD), method);
        let about = Method::parse(outgoing.method)
            .and_then(Method::mirrored_name)
            .and_then(|key| outgoing.params.string(key).ok().flatten());
        if let Some(about) = about {
            let about = value(&about).map_err(|_| unusable("what the request is about"))?;
            headers.insert(header_name(NAME), about);
        }
        for (name, parameter) in &outgoing.mirrored {
            let name = format!("{PARAM_PREFIX}{name}");
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable(&name))?;
            let parameter = value(parameter).map_err(|_| unusable("a parameter"))?;
            headers.insert(name, parameter);
        }
        Ok(headers)
    }

    fn post(
        &self,
        connection: &mut HttpConnection,
        post: &Post<'_>,
        ear: &Ear<'_>,
    ) -> Result<Response, Failure> {
        let http = &*self.http;
        let (method, endpoint) = (&HttpMethod::POST, &*http.endpoint);
        let ask =
            HttpRequest { method, endpoint, headers: post.headers, body: Some(post.body) };
        let mut answer = connection.client(&http.factory).run(ear.wait, ask)?;
        if is_success(answer.status) {
            return Exchange { http, id: post.id, ear, session: None }.read(connection, answer);
        }
        let text = error_text(&mut answer);
        match answer_to(&text, post.id) {
            // What its head says would be lost. It is an answer, and no sign of another era.
            Some(Err(error)) if answer.refusal().says_more() => {
                let kind = FailureKind::Refused(Refusal::Plain);
                Err(http.refused(kind, &answer, &error.message))
            }
            Some(Err(error)) => Ok(Err(error)),
            Some(Ok(_)) | None => Err(refusal(http, &answer, &text)),
        }
    }
}

impl Channel for Stateless {
    fn initialized(&self) -> &Arc<Initialized> {
        &self.initialized
    }

    fn begin(&self, generation: u64, _: &Wait) {
        self.way.http.context.subscriptions.begin(&self.initialized);
        self.way.listening.begin(generation);
    }

    fn request(
        &self,
        connection: &mut HttpConnection,
        attempt: RequestAttempt<'_>,
    ) -> Result<Outcome, Failure> {
        let RequestAttempt { outgoing, wait, sink, .. } = attempt;
        let context = &self.way.http.context;
        let renew = || self.way.listening.renew();
        if let Some(outcome) = answered_here(context, outgoing, wait, &renew)? {
            return Ok(outcome);
        }
        let headers = &self.way.headers(outgoing)?;
        let id = context.next_id();
        let body = &self.way.http.message(outgoing, id);
        let ear = Ear::new(sink, wait, None).charged(outgoing.charged.as_ref());
        let answer = self.way.post(connection, &Post { id, body, headers }, &ear);
        answer.and_then(|answer| outcome(context, answer)).inspect_err(|failure| {
            if !matches!(failure.kind, FailureKind::Refused(_)) {
                // Also what tells the server that nobody wants the answer any more.
                connection.reset();
            }
        })
    }

    // No notification of a client's is left in this revision, and to cancel is to close.
    fn notify(&self, _: &PrincipalId, _: String) {}

    fn close(&self, why: Closing) {
        match why {
            Closing::Forgotten | Closing::Ended => self.way.listening.end(),
            // It may be another one's.
            Closing::Unused => (),
        }
    }

    fn word(&self) -> &'static str {
        "http"
    }
}

/// The answer to the request of that id in a small body. An error may stand there without an id
/// if only a modern server gives it; one that speaks of a session is none of such a server.
pub(crate) fn answer_to(text: &str, id: u64) -> Option<Response> {
    let mut found = None;
    let read = message::read(&Arc::new(text.to_owned()), &|| true, |incoming| {
        let Incoming::Answer { id: to, outcome } = incoming else { return };
        let is_ours = match &outcome {
            Ok(_) => to == Some(id),
            Err(error) if to.is_none() => is_modern_error(error.code),
            Err(error) => to == Some(id) && !speaks_of_session(error),
        };
        if is_ours {
            found = Some(outcome);
        }
    });
    read.ok().and(found)
}

/// What an answer without success or sense means: a sign that the server is of the other era,
/// or a failure.
pub(crate) fn refusal(http: &HttpContext, answer: &HttpResponse<'_>, text: &str) -> Failure {
    let refused = http.refused(FailureKind::Refused(Refusal::Plain), answer, text);
    let is_other_era = matches!(answer.status, 400 | 404 | 405 | 406 | 415);
    let kind =
        if is_other_era { FailureKind::Refused(Refusal::OtherEra) } else { refused.kind };
    Failure { kind, ..refused }
}

/// Whether an error says that a session is missing, which no modern server would.
fn speaks_of_session(error: &RpcError) -> bool {
    let codes = [code::BAD_REQUEST, code::SESSION_NOT_FOUND, code::INVALID_REQUEST];
    let message = error.message.to_ascii_lowercase();
    codes.contains(&error.code)
        && ["session", "initialize", "protocol version"].iter().any(|it| message.contains(it))
}
