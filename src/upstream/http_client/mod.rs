//! One HTTP exchange with an upstream: a request, the head of its answer, and the answer's body
//! piece by piece; every failure as a [`Failure`] that says how far it came.

pub(super) mod collector;
pub(super) mod connector;
pub(super) mod credentials;
pub(super) mod dns;
pub(super) mod fetcher;
pub(super) mod in_flight;
pub(super) mod message_bytes;
pub(super) mod redirect;
pub(super) mod reference;
pub(super) mod side_channel;
pub(super) mod tls;

use std::io::{ErrorKind, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::header::{CONTENT_ENCODING, WWW_AUTHENTICATE};
use ureq::http::{HeaderMap, HeaderValue, Method, Request, Uri};
use ureq::{Agent, BodyReader, Error};

use crate::config::HttpTarget;
use crate::error::{HttpRefusal, RetryAfter, Stage};
use crate::limits::{
    REQUEST_TOKENS_MAX, RESULT_BYTES_COUNTED_FROM, UPSTREAM_BUFFER_BYTES,
    UPSTREAM_CHALLENGE_CHARS_MAX, UPSTREAM_DRAIN_BYTES_MAX, UPSTREAM_DRAIN_TIMEOUT,
    UPSTREAM_IDLE_MAX, UPSTREAM_SKIP_TIMEOUT,
};
use crate::telemetry;
use crate::telemetry::redact::excerpt;
use crate::wait::{Wait, Woken};

use super::failure::{Failure, FailureKind, cut};
use connector::SocketConnector;
use credentials::{RequestCredentials, TokenNumber};
use dns::{AgentResolver, DnsCache};
use in_flight::InFlight;
use message_bytes::Held;
use redirect::{Endpoint, Turn};
use tls::Tls;

/// Makes Agents for one upstream, each with a connection of its own.
#[derive(Clone)]
pub(super) struct AgentFactory {
    config: ureq::config::Config,
    tls: Tls,
    names: Arc<DnsCache>,
    connect_timeout: Duration,
    /// What requests carry, if the server wants OAuth.
    credentials: Option<Arc<dyn RequestCredentials>>,
}

impl AgentFactory {
    /// # Errors
    /// The proxy's URL or the file of certificates is not usable; the text says why.
    pub(super) fn new(
        target: &HttpTarget,
        names: Arc<DnsCache>,
        tls: &Tls,
        connect_timeout: Duration,
    ) -> Result<AgentFactory, String> {
        let proxy = target.proxy.as_ref().map(|url| ureq::Proxy::new(url.expose()));
        // The error could hold the URL, and the URL a password.
        let proxy =
            proxy.transpose().map_err(|_| "the proxy's URL is not usable".to_owned())?;
        let config = Agent::config_builder()
            .proxy(proxy)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("trunkline/", env!("CARGO_PKG_VERSION")))
            .accept("")
            .accept_encoding("")
            .input_buffer_size(UPSTREAM_BUFFER_BYTES)
            .output_buffer_size(UPSTREAM_BUFFER_BYTES)
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .max_idle_age(UPSTREAM_IDLE_MAX);
        let tls = match &target.ca_file {
            Some(file) => Tls::with_file(file)?,
            None => tls.clone(),
        };
        let credentials = None;
        Ok(AgentFactory { config: config.build(), tls, names, connect_timeout, credentials })
    }

    /// The same, for requests that carry these credentials.
    pub(super) fn with_credentials(
        self,
        credentials: Option<Arc<dyn RequestCredentials>>,
    ) -> AgentFactory {
        AgentFactory { credentials, ..self }
    }

    /// Waits until it is known what the next request carries.
    ///
    /// # Errors
    /// There are no usable credentials, or the wait ended first.
    pub(super) fn await_credentials(&self, wait: &Arc<Wait>) -> Result<(), Failure> {
        self.credentials.as_ref().map_or(Ok(()), |it| it.token(wait).map(drop))
    }

    pub(super) fn client(&self) -> HttpClient {
        let watch = Arc::new(InFlight::default());
        let dial = SocketConnector {
            watch: watch.clone(),
            tls: self.tls.clone(),
            connect_timeout: self.connect_timeout,
            proxied: self.config.proxy().is_some(),
        };
        let resolver = AgentResolver { names: self.names.clone(), watch: watch.clone() };
        let agent = Agent::with_parts(self.config.clone(), dial, resolver);
        HttpClient { agent, watch, credentials: self.credentials.clone() }
    }
}

/// One Agent and the watch of the call that it serves.
pub(super) struct HttpClient {
    agent: Agent,
    watch: Arc<InFlight>,
    credentials: Option<Arc<dyn RequestCredentials>>,
}

/// What a call does when its bell rings while it waits for an upstream's answer over HTTP, or
/// while it reads that.
pub(super) trait OnBell {
    /// Looks at what another thread may have brought.
    fn rang(&self);
}

/// A request as ureq wants it; all of it is made once per session but the body.
#[derive(Clone, Copy)]
pub(super) struct HttpRequest<'a> {
    pub(super) method: &'a Method,
    pub(super) endpoint: &'a Endpoint,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: Option<&'a str>,
}

impl HttpClient {
    /// Sends a request and waits for the head of its answer. Redirects that may be followed are.
    pub(super) fn run(
        &self,
        wait: &Arc<Wait>,
        ask: HttpRequest<'_>,
    ) -> Result<HttpResponse<'static>, Failure> {
        self.exchange(wait, ask, None)
    }

    /// [`HttpClient::run`], but the bell of `wait` is heeded, too; also while the answer is read.
    pub(super) fn run_heeding_bell<'a>(
        &self,
        wait: &Arc<Wait>,
        ask: HttpRequest<'_>,
        on_bell: &'a dyn OnBell,
    ) -> Result<HttpResponse<'a>, Failure> {
        self.exchange(wait, ask, Some(on_bell))
    }

    fn exchange<'a>(
        &self,
        wait: &Arc<Wait>,
        ask: HttpRequest<'_>,
        on_bell: Option<&'a dyn OnBell>,
    ) -> Result<HttpResponse<'a>, Failure> {
        let Some(credentials) = &self.credentials else {
            return self.exchange_once(wait, ask, on_bell, None);
        };
        let mut n_tries = 1;
        loop {
            let token = credentials.token(wait)?;
            let carried = token.map(|token| Carried { credentials: &**credentials, token });
            let answer = self.exchange_once(wait, ask, on_bell, carried)?;
            let demand = credentials.demand(token, &answer);
            let Some(demand) = demand.filter(|_| n_tries < REQUEST_TOKENS_MAX) else {
                return Ok(answer);
            };
            n_tries += 1;
            answer.skip(wait)?;
            let satisfied = credentials.satisfy(&demand, token, wait);
            // The bell may have rung for something else meanwhile.
            rang(on_bell);
            satisfied?;
        }
    }

    fn exchange_once<'a>(
        &self,
        wait: &Arc<Wait>,
        ask: HttpRequest<'_>,
        on_bell: Option<&'a dyn OnBell>,
        carried: Option<Carried<'_>>,
    ) -> Result<HttpResponse<'a>, Failure> {
        let mut way = ask.endpoint.way();
        loop {
            // What became of a request that was redirected is over.
            match on_bell {
                Some(_) => self.watch.begin_heeding_bell(wait),
                None => self.watch.begin(wait),
            }
            let answer = self.send(ask, way.uri(), on_bell, carried)?;
            match way.take(answer.status, &answer.headers)? {
                Turn::Arrived => return Ok(answer),
                Turn::Again => answer.skip(wait)?,
            }
        }
    }

    fn send<'a>(
        &self,
        ask: HttpRequest<'_>,
        uri: &Uri,
        on_bell: Option<&'a dyn OnBell>,
        carried: Option<Carried<'_>>,
    ) -> Result<HttpResponse<'a>, Failure> {
        loop {
            let answered = match ask.body {
                Some(body) => self.agent.run(request(ask, uri, body, carried)?),
                None => self.agent.run(request(ask, uri, (), carried)?),
            };
            match answered {
                Ok(response) => {
                    self.watch.set_stage(Stage::Read);
                    let (parts, body) = response.into_parts();
                    let length = body.content_length();
                    let reader = body.into_reader();
                    return Ok(HttpResponse {
                        status: parts.status.as_u16(),
                        headers: parts.headers,
                        uri: uri.clone(),
                        length,
                        reader,
                        watch: self.watch.clone(),
                        on_bell,
                    });
                }
                Err(_) if self.watch.take_bell() => rang(on_bell),
                Err(error) => return Err(failure(&self.watch, &error)),
            }
        }
    }
}

fn rang(on_bell: Option<&dyn OnBell>) {
    if let Some(on_bell) = on_bell {
        on_bell.rang();
    }
}

/// The token that a request carries.
#[derive(Clone, Copy)]
struct Carried<'a> {
    credentials: &'a dyn RequestCredentials,
    token: TokenNumber,
}

fn request<B>(
    ask: HttpRequest<'_>,
    uri: &Uri,
    body: B,
    carried: Option<Carried<'_>>,
) -> Result<Request<B>, Failure> {
    let mut request = Request::new(body);
    request.method_mut().clone_from(ask.method);
    request.uri_mut().clone_from(uri);
    request.headers_mut().clone_from(ask.headers);
    // What an operator has configured stays.
    telemetry::request::write_headers(|name, value| {
        if let (Ok(value), false) =
            (HeaderValue::from_str(value), ask.headers.contains_key(name))
        {
            request.headers_mut().insert(name, value);
        }
    });
    if let Some(Carried { credentials, token }) = carried {
        credentials.write(token, ask.method, uri, request.headers_mut())?;
    }
    Ok(request)
}

/// An answer whose body is still to be read.
pub(super) struct HttpResponse<'a> {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// Where it comes from.
    pub(super) uri: Uri,
    length: Option<u64>,
    reader: BodyReader<'static>,
    watch: Arc<InFlight>,
    on_bell: Option<&'a dyn OnBell>,
}

impl HttpResponse<'_> {
    /// A header's value, if it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The coding that its body has although none was asked for; what it says is not readable.
    fn coding(&self) -> Option<String> {
        let values = self.headers.get_all(CONTENT_ENCODING).into_iter();
        let values: Vec<_> =
            values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        let coding = values.join(", ");
        let is_plain =
            coding.trim().is_empty() || coding.trim().eq_ignore_ascii_case("identity");
        (!is_plain).then_some(coding)
    }

    /// # Errors
    /// Its body is not what it says, but a coding of that.
    pub(super) fn check_coding(&self) -> Result<(), Failure> {
        let Some(coding) = self.coding() else { return Ok(()) };
        let what =
            format!("its answer is coded ({coding}), but was asked for without a coding");
        Err(Failure::nonsense(cut(&what)))
    }

    /// What its head says to whoever asked, if it is a refusal.
    pub(super) fn refusal(&self) -> HttpRefusal {
        let challenges = self.headers.get_all(WWW_AUTHENTICATE).into_iter();
        let challenges: Vec<&str> = challenges.filter_map(|it| it.to_str().ok()).collect();
        let challenge = excerpt(&challenges.join(", "), UPSTREAM_CHALLENGE_CHARS_MAX);
        HttpRefusal {
            status: self.status,
            www_authenticate: (!challenge.is_empty()).then_some(challenge),
            retry_after: self.header("retry-after").and_then(RetryAfter::parse),
        }
    }

    /// The next piece of the body; 0 is its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        loop {
            match self.reader.read(buffer) {
                Ok(n) => return Ok(n),
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(_) if self.watch.take_bell() => rang(self.on_bell),
                Err(error) => return Err(failure(&self.watch, &Error::from(error))),
            }
        }
    }

    /// Reads nothing for a while.
    pub(super) fn rest(&self, time: Duration) -> Result<(), Failure> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            match self.watch.sleep(Some(left)) {
                Ok(Woken::Bell) => rang(self.on_bell),
                Ok(Woken::Tick | Woken::Ready) => (),
                Err(error) => return Err(failure(&self.watch, &error)),
            }
        }
    }

    /// The whole body, if it is a small one: of a refusal, or of an answer that says nothing.
    /// Nothing of one that is coded.
    pub(super) fn read_to_end(
        &mut self,
        bytes_max: usize,
        bound: &str,
    ) -> Result<Vec<u8>, Failure> {
        let body = self.read_all(bytes_max, bound, &mut Held::uncounted())?;
        Ok(if self.coding().is_some() { Vec::new() } else { body })
    }

    /// Reads the body of an answer that says that the request is to be sent otherwise, so that its
    /// connection can be used again. What does not come soon is not waited for: then there is
    /// another connection.
    ///
    /// # Errors
    /// The wait is over; the request was not done.
    fn skip(mut self, wait: &Wait) -> Result<(), Failure> {
        {
            let _bound = wait.within(UPSTREAM_SKIP_TIMEOUT);
            // Its text does not matter.
            self.read_to_end(UPSTREAM_DRAIN_BYTES_MAX, "a bound").ok();
        }
        let over = wait.check().map(drop);
        over.map_err(|reason| Failure::interrupted(reason, Stage::Read, false))
    }

    /// The whole body.
    ///
    /// # Errors
    /// Also if it is coded.
    pub(super) fn read_whole(
        &mut self,
        bytes_max: usize,
        bound: &str,
        held: &mut Held<'_>,
    ) -> Result<Vec<u8>, Failure> {
        self.check_coding()?;
        self.read_all(bytes_max, bound, held)
    }

    fn read_all(
        &mut self,
        bytes_max: usize,
        bound: &str,
        held: &mut Held<'_>,
    ) -> Result<Vec<u8>, Failure> {
        let too_large = || {
            let what = format!("its answer is larger than {bound} ({bytes_max} bytes)");
            Failure { stage: Stage::Read, ..Failure::nonsense(what) }
        };
        let max = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        if self.length.is_some_and(|length| length > max) {
            return Err(too_large());
        }
        let expected = self.expected_bytes(bytes_max);
        let end = bytes_max.saturating_add(1);
        let mut room = expected.max(RESULT_BYTES_COUNTED_FROM).min(end);
        held.grow_to(room)?;
        let mut body = Vec::with_capacity(expected);
        loop {
            let left = u64::try_from(room.saturating_sub(body.len())).unwrap_or(u64::MAX);
            match Read::take(&mut self.reader, left).read_to_end(&mut body) {
                Ok(_) if body.len() > bytes_max => return Err(too_large()),
                Ok(_) if body.len() < room => return Ok(body),
                // As its memory grows too.
                Ok(_) => {
                    room = room.saturating_mul(2).min(end);
                    held.grow_to(room)?;
                }
                Err(_) if self.watch.take_bell() => rang(self.on_bell),
                Err(error) => return Err(failure(&self.watch, &Error::from(error))),
            }
        }
    }

    /// Room for the body at once where its length is declared, so that a large one is not moved
    /// while it grows. The declared length is within the bound, or there is no answer.
    fn expected_bytes(&self, bytes_max: usize) -> usize {
        let length = self.length.and_then(|length| usize::try_from(length).ok());
        length.map_or(512, |length| length.min(bytes_max)).saturating_add(1)
    }

    /// What is left of the body, for when its connection is wanted again.
    pub(super) fn into_rest(self) -> BodyReader<'static> {
        self.reader
    }
}

/// What a slot owns: one connection, and the end of its last answer that nobody waited for.
#[derive(Default)]
pub(super) struct HttpConnection {
    client: Option<HttpClient>,
    rest: Option<BodyReader<'static>>,
}

impl HttpConnection {
    /// The lane's client, made on first use. What was left of its last answer is read if it
    /// has arrived or is about to, else that connection is given up.
    pub(super) fn client(&mut self, factory: &AgentFactory) -> &HttpClient {
        let client = self.client.get_or_insert_with(|| factory.client());
        if let Some(rest) = self.rest.take() {
            drain(&client.watch, rest);
        }
        client
    }

    /// Keeps the rest of an answer: mostly the end of a stream that is about to come.
    pub(super) fn keep(&mut self, rest: BodyReader<'static>) {
        self.rest = Some(rest);
    }

    /// Gives the connection up: what is on it is not known.
    pub(super) fn reset(&mut self) {
        *self = HttpConnection::default();
    }
}

/// Reads what is left of an answer, which lets ureq use its connection again.
fn drain(watch: &InFlight, mut rest: BodyReader<'static>) {
    watch.begin_impatient();
    let mut buffer = [0_u8; 1024];
    let mut left = UPSTREAM_DRAIN_BYTES_MAX;
    let mut waited = false;
    while left > 0 {
        match rest.read(&mut buffer) {
            Ok(0) => return,
            Ok(n) => left = left.saturating_sub(n),
            Err(_) if waited => return,
            Err(_) => {
                let Ok(wait) = Wait::plain(UPSTREAM_DRAIN_TIMEOUT) else { return };
                watch.begin(&wait);
                watch.set_stage(Stage::Read);
                waited = true;
            }
        }
    }
}

/// What a ureq error means. Its own texts are not used where they could hold a URL.
fn failure(watch: &InFlight, error: &Error) -> Failure {
    let (stage, sent) = (watch.stage(), watch.was_sent());
    if let Some(reason) = watch.interrupted() {
        return Failure::interrupted(reason, stage, sent);
    }
    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum is not ours and grows")]
    let (kind, stage, message) = match error {
        Error::Io(error) if stage == Stage::Tls && error.kind() != ErrorKind::TimedOut => {
            (FailureKind::Broke, stage, error.to_string())
        }
        Error::Io(error) => (FailureKind::Broke, stage, io_text(error)),
        Error::HostNotFound => {
            (FailureKind::Broke, Stage::Resolve, "the host has no address".to_owned())
        }
        Error::Tls(what) => (FailureKind::Broke, Stage::Tls, (*what).to_owned()),
        Error::Rustls(error) => (FailureKind::Broke, Stage::Tls, error.to_string()),
        Error::TlsRequired => {
            (FailureKind::Broke, Stage::Tls, "the connection is not secured".to_owned())
        }
        Error::ConnectProxyFailed(what) => {
            (FailureKind::Broke, Stage::Connect, format!("the proxy failed: {what}"))
        }
        Error::ConnectionFailed => (FailureKind::Broke, stage, "no connection".to_owned()),
        Error::Protocol(error) => {
            (FailureKind::Nonsense, stage, format!("no proper HTTP: {error}"))
        }
        Error::LargeResponseHeader(_, _) => {
            (FailureKind::Nonsense, stage, "the head of its answer is too large".to_owned())
        }
        _ => (
            FailureKind::Nonsense,
            stage,
            "the request or its answer is no proper HTTP".to_owned(),
        ),
    };
    Failure { sent, ..Failure::new(kind, stage, message) }
}

fn io_text(error: &std::io::Error) -> String {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum is not ours and grows")]
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "connection reset".to_owned(),
        ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
        ErrorKind::TimedOut => "no connection in time".to_owned(),
        _ => error.to_string(),
    }
}
