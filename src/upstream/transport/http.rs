//! What the two HTTP transports share: the URL, the headers, the Agents, and reading a stream of
//! events.

use std::sync::Arc;
use std::time::Duration;

use ureq::http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use crate::config::{Grant, HttpTarget, KEY_VARIABLE, Role};
use crate::error::Stage;
use crate::protocol::call::{Outgoing, PrincipalId};
use crate::protocol::capabilities::{
    CLIENT_CREDENTIALS_EXTENSION, ENTERPRISE_EXTENSION, with_extension,
};
use crate::protocol::headers::{EVENT_STREAM, JSON, PROTOCOL_VERSION, SESSION_ID};
use crate::protocol::jsonrpc::RequestId;
use crate::protocol::legacy::Initialized;
use crate::protocol::raw::Keeper;
use crate::protocol::sse::{DecodeError, Decoder, Event};
use crate::thread::Joined;
use crate::upstream::message::cancelled;
use crate::wait::{Interrupted, Wait};

use super::refused_status::{is_of_key, said_in};
use super::throttle::Throttle;
use crate::upstream::failure::{Failure, FailureKind, cut};
use crate::upstream::http_client::credentials::RequestCredentials;
use crate::upstream::http_client::dns::DnsCache;
use crate::upstream::http_client::message_bytes::Held;
use crate::upstream::http_client::redirect::Endpoint;
use crate::upstream::http_client::side_channel::{Control, Message};
use crate::upstream::http_client::tls::Tls;
use crate::upstream::http_client::{AgentFactory, HttpResponse};
use crate::upstream::session::context::SessionContext;
use crate::upstream::session::dispatch::MessageSender;

/// The extension that a client declares in each request whose access tokens are had by this grant
/// (extensions, OAuth Client Credentials and Enterprise-Managed Authorization).
fn extension(grant: &Grant) -> Option<&'static str> {
    match grant {
        Grant::AuthorizationCode => None,
        Grant::ClientCredentials => Some(CLIENT_CREDENTIALS_EXTENSION),
        Grant::JwtBearer(grant) => {
            grant.identity_provider.is_some().then_some(ENTERPRISE_EXTENSION)
        }
    }
}

/// Takes a broken stream up behind the event of this id.
pub(crate) const LAST_EVENT_ID: &str = "last-event-id";

/// One session to an HTTP upstream as both transports see it.
pub(crate) struct HttpContext {
    pub(crate) context: Arc<SessionContext>,
    pub(crate) endpoint: Arc<Endpoint>,
    /// The configured ones and those of a POST.
    pub(crate) post: HeaderMap,
    /// The configured ones and those of a GET that wants a stream.
    pub(crate) get: HeaderMap,
    pub(crate) factory: AgentFactory,
    /// The extension by which access tokens are had, where there is one.
    extension: Option<&'static str>,
    /// Of all sessions to this upstream; it ends with the shared one.
    control: Arc<Control>,
}

impl HttpContext {
    /// # Errors
    /// The configuration is not usable after all; the text says why.
    pub(crate) fn new(
        context: Arc<SessionContext>,
        target: &HttpTarget,
        names: Arc<DnsCache>,
        tls: &Tls,
    ) -> Result<HttpContext, String> {
        // The error could hold the URL, and the URL a secret.
        let uri: Uri = target.url.parse().map_err(|_| "its URL is not usable".to_owned())?;
        let mut get = HeaderMap::new();
        for (name, value) in &target.headers {
            let unusable = || format!("the header {name:?} is not usable");
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable())?;
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| unusable())?;
            value.set_sensitive(true);
            get.append(key, value);
        }
        // What comes is not decoded (RFC 9110, section 12.5.3).
        get.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut post = get.clone();
        get.insert(ACCEPT, HeaderValue::from_static(EVENT_STREAM));
        post.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        let both = format!("{JSON}, {EVENT_STREAM}");
        post.insert(ACCEPT, HeaderValue::try_from(both).map_err(|error| error.to_string())?);
        let credentials = context.authorization.clone().map(|it| {
            let credentials: Arc<dyn RequestCredentials> = it;
            credentials
        });
        let factory = AgentFactory::new(target, names, tls, context.config.connect_timeout)?
            .with_credentials(credentials);
        let control = Arc::new(Control::new(
            context.thread_name("ctl"),
            factory.clone(),
            context.secrets.clone(),
        ));
        let endpoint = Arc::new(Endpoint::new(uri, context.redirected.clone()));
        let extension = target.oauth.as_ref().and_then(|it| extension(&it.grant));
        Ok(HttpContext { context, endpoint, post, get, factory, extension, control })
    }

    /// The same upstream for another session.
    pub(crate) fn for_session(&self, context: Arc<SessionContext>) -> HttpContext {
        HttpContext {
            context,
            endpoint: self.endpoint.clone(),
            post: self.post.clone(),
            get: self.get.clone(),
            factory: self.factory.clone(),
            extension: self.extension,
            control: self.control.clone(),
        }
    }

    /// The text of a request to a server without sessions. Each declares the extension by which its
    /// access token is had.
    pub(crate) fn message(&self, outgoing: &Outgoing<'_>, id: u64) -> String {
        let id = RequestId::from(id);
        match self.extension {
            Some(name) => {
                let capabilities = with_extension(outgoing.about.capabilities, name);
                outgoing.to_modern_message_with(&capabilities, &id)
            }
            None => outgoing.to_modern_message(&id),
        }
    }

    /// A refusal whose status and text are told, and what its head says besides.
    pub(crate) fn refused(
        &self,
        kind: FailureKind,
        answer: &HttpResponse<'_>,
        text: &str,
    ) -> Failure {
        let status = answer.status;
        let mut message = format!("it answered with status {status}");
        match cut(&said_in(text)).as_str() {
            "" => (),
            text => message.push_str(&format!(": {text}")),
        }
        if self.context.config.role == Role::OtherGateway && is_of_key(status) {
            message.push_str(&format!(" (the key for it is read from ${KEY_VARIABLE})"));
        }
        let refusal = Some(Box::new(answer.refusal()));
        Failure { sent: true, refusal, ..Failure::new(kind, Stage::Answer, message) }
    }

    /// Ends a session some time soon: nobody waits for that.
    pub(crate) fn end_session(&self, headers: &HeaderMap) {
        let (endpoint, headers) = (self.endpoint.clone(), Arc::new(headers.clone()));
        let message = Message { method: Method::DELETE, endpoint, headers, body: None };
        self.control.send(self.context.charged(), message);
    }

    /// The end of this session: with the shared one, nothing is said on the side any more.
    pub(crate) fn close_control(&self) {
        if self.context.client.is_none() {
            self.control.close();
        }
    }
}

/// The way on which a session's side messages go: cancellations, and answers to the upstream's
/// own requests.
pub(crate) struct Wire {
    pub(crate) http: Arc<HttpContext>,
    pub(crate) endpoint: Arc<Endpoint>,
    /// What every POST of the session carries.
    pub(crate) post: Arc<HeaderMap>,
}

impl Wire {
    fn message(&self, text: String) -> Message {
        let (endpoint, headers) = (self.endpoint.clone(), self.post.clone());
        Message { method: Method::POST, endpoint, headers, body: Some(text) }
    }

    /// Takes back a request, for which that one is charged, if it failed because nobody waits
    /// for its answer any more, and was sent.
    pub(crate) fn cancel_if_sent(
        &self,
        failed: &Failure,
        id: u64,
        charged: Option<&PrincipalId>,
    ) {
        if let (FailureKind::Interrupted(reason), true) = (&failed.kind, failed.sent) {
            self.http.control.send(charged, self.message(cancelled(id, *reason)));
        }
    }

    /// Queues a client's notification.
    pub(crate) fn notify(&self, whose: &PrincipalId, text: String) {
        self.http.control.notify(whose, self.message(text));
    }
}

impl MessageSender for Wire {
    fn say(&self, text: String) {
        self.http.control.send(self.http.context.charged(), self.message(text));
    }
}

/// [`HttpContext::post`] or [`HttpContext::get`] with what every later request of a session carries.
pub(crate) fn session_headers(
    base: &HeaderMap,
    initialized: &Initialized,
    session_id: &Option<HeaderValue>,
) -> HeaderMap {
    let mut headers = base.clone();
    if initialized.revision.has_version_header() {
        let value = HeaderValue::from_static(initialized.revision.as_str());
        headers.insert(header_name(PROTOCOL_VERSION), value);
    }
    match session_id {
        Some(id) => with_session(&headers, id),
        None => headers,
    }
}

/// `base` with the id of a session.
pub(crate) fn with_session(base: &HeaderMap, id: &HeaderValue) -> HeaderMap {
    let (mut headers, mut id) = (base.clone(), id.clone());
    id.set_sensitive(true);
    headers.insert(header_name(SESSION_ID), id);
    headers
}

/// The name of a header that is a constant of ours.
pub(crate) fn header_name(name: &'static str) -> HeaderName {
    // They are all valid.
    HeaderName::from_bytes(name.as_bytes()).unwrap_or(HeaderName::from_static("x-invalid"))
}

/// A thread that reads a long-lived stream; dropping it ends the stream.
pub(crate) struct StreamThread {
    /// What the thread waits on.
    pub(crate) wait: Arc<Wait>,
    pub(crate) thread: Option<Joined>,
}

impl StreamThread {
    /// Ends the stream after `time`, unless it is dropped before.
    pub(crate) fn end_after(&self, time: Duration) {
        self.wait.set_timeout(time, time);
        self.wait.bell().ring();
    }
}

impl Drop for StreamThread {
    fn drop(&mut self) {
        self.wait.interrupt(Interrupted::Stopping);
        drop(self.thread.take());
    }
}

/// True of an event that holds a message: events of other names are none of MCP's, whatever they
/// hold, and what has no data is no event (HTML, section 9.2.6).
pub(crate) fn is_message(event: &Event) -> bool {
    !event.data.is_empty() && matches!(event.name.as_str(), "" | "message")
}

/// Why a stream of events was left.
#[derive(Debug)]
pub(crate) enum StreamEnd {
    /// The server ended it.
    Eof,
    /// The one who reads has what it wanted.
    Done,
}

/// Whether to read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    More,
    /// So too, and what came was waited for.
    Answered,
    Done,
}

/// The lines of an event besides its data have about so many bytes.
const EVENT_FRAME_BYTES: usize = 256;

/// Reads the events of an answer and hands each to `take`, with the keeper of its memory, which
/// `charged` is charged for.
pub(crate) fn read_events(
    answer: &mut HttpResponse<'_>,
    context: &SessionContext,
    charged: Option<&PrincipalId>,
    take: &mut dyn FnMut(Event, Option<Keeper>) -> Next,
) -> Result<StreamEnd, Failure> {
    answer.check_coding()?;
    let event_bytes_max = context.limits.upstream_event_bytes;
    let mut held = Held::new(&context.buffered, charged);
    let mut decoder = Decoder::new(event_bytes_max);
    let mut buffer = vec![0_u8; crate::limits::UPSTREAM_BUFFER_BYTES];
    let mut throttle = Throttle::default();
    loop {
        let n = answer.read(&mut buffer)?;
        if n == 0 {
            return Ok(StreamEnd::Eof);
        }
        let mut next = Next::More;
        let piece = buffer.get(..n).unwrap_or_default();
        let before = decoder.held_bytes();
        held.grow_to(before.saturating_add(n))?;
        let mut given = 0;
        let fed = decoder.feed(piece, |event| {
            let bytes = event.data.len();
            given += bytes + EVENT_FRAME_BYTES;
            if next != Next::Done {
                next = take(event, held.take());
            }
            if next != Next::Answered {
                throttle.heard(bytes);
            }
        });
        if next == Next::Done {
            return Ok(StreamEnd::Done);
        }
        fed.map_err(|error| decode_trouble(error, event_bytes_max))?;
        let of_messages = given.saturating_add(decoder.held_bytes()).saturating_sub(before);
        throttle.idled(n.saturating_sub(of_messages));
        if let Some(time) = throttle.rest() {
            answer.rest(time)?;
        }
    }
}

fn decode_trouble(error: DecodeError, event_bytes_max: usize) -> Failure {
    let what = match error {
        DecodeError::TooLarge => format!(
            "an event is larger than limits.upstream_event_bytes ({event_bytes_max} bytes)"
        ),
        DecodeError::NotUtf8 => "an event is not UTF-8".to_owned(),
    };
    Failure { stage: Stage::Read, ..Failure::nonsense(what) }
}
