//! The HTTP of the OAuth client and of the resource server: one request, with a time for all of it,
//! a bound on its answer, no redirects, and only to addresses that it may reach. The address that
//! was checked is the one that is connected to.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use ureq::http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::{Agent, Body};

use crate::error::Stage;
use crate::limits::{OAUTH_DOCUMENT_BYTES_MAX, OAUTH_REQUEST_TIMEOUT};
use crate::oauth::fetch::{Fetch, FetchAnswer, FetchContent, FetchError, FetchRequest, Reach};
use crate::oauth::web_url::WebUrl;
use crate::sync::Mutex;
use crate::upstream::failure::Failure;
use crate::wait::{Interrupted, Wait};

use super::connector::SocketConnector;
use super::dns::AgentResolver;
use super::in_flight::InFlight;
use super::{AgentFactory, HttpResponse, failure};

/// Sends such requests, as requests to one server are sent: through its proxy, trusting its
/// certificates.
pub(crate) struct Fetcher {
    factory: AgentFactory,
    running: Arc<RunningFetches>,
}

thread_local! {
    /// The end of the time for all that this thread fetches at present, and that time.
    static BOUND: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
}

/// Does something whose fetches on this thread take no longer than `time` together.
pub(crate) fn within_time<T>(time: Duration, body: impl FnOnce() -> T) -> T {
    struct Unbounded;
    impl Drop for Unbounded {
        fn drop(&mut self) {
            BOUND.set(None);
        }
    }
    BOUND.set(Some((Instant::now() + time, time)));
    let _unbounded = Unbounded;
    body()
}

/// The part of `timeout` that the bound of [`within_time`] leaves, all of it without such a bound.
pub(crate) fn time_left(timeout: Duration) -> Duration {
    BOUND.get().map_or(timeout, |(until, _)| {
        timeout.min(until.saturating_duration_since(Instant::now()))
    })
}

/// The waits of the fetches that run at present, so that a stop ends them.
#[derive(Default)]
pub(crate) struct RunningFetches(Mutex<Running>);

#[derive(Default)]
struct Running {
    waits: Vec<Arc<Wait>>,
    is_stopped: bool,
}

impl RunningFetches {
    /// Ends all of them; none is begun any more.
    pub(crate) fn stop(&self) {
        let mut running = self.0.lock();
        running.is_stopped = true;
        running.waits.iter().for_each(|wait| wait.interrupt(Interrupted::Stopping));
    }

    /// True once [`RunningFetches::stop`] was called.
    pub(crate) fn is_stopped(&self) -> bool {
        self.0.lock().is_stopped
    }

    /// Runs `body` on a wait that a stop ends, and the bound of [`within_time`].
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub(crate) fn run<T>(
        &self,
        timeout: Duration,
        body: impl FnOnce(&Arc<Wait>) -> T,
    ) -> std::io::Result<T> {
        let wait = Wait::plain(time_left(timeout))?;
        {
            let mut running = self.0.lock();
            if running.is_stopped {
                wait.interrupt(Interrupted::Stopping);
            }
            running.waits.push(wait.clone());
        }
        // Also if `body` panics.
        let _entered = Entered { running: self, wait: &wait };
        Ok(body(&wait))
    }
}

/// A wait among those that a stop ends, until this is dropped.
struct Entered<'a> {
    running: &'a RunningFetches,
    wait: &'a Arc<Wait>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.running.0.lock().waits.retain(|other| !Arc::ptr_eq(other, self.wait));
    }
}

impl Fetcher {
    pub(crate) fn new(factory: AgentFactory, running: Arc<RunningFetches>) -> Fetcher {
        Fetcher { factory, running }
    }

    /// How far away what a server names may be: as near as the server itself is. None if the
    /// server's name leads nowhere at present.
    pub(crate) fn reach_of(&self, server: &WebUrl) -> Option<Reach> {
        if let Some(address) = server.address() {
            return Some(Reach::of_server([address]));
        }
        if server.is_loopback() {
            return Some(Reach::Loopback);
        }
        if self.factory.config.proxy().is_some() {
            // The proxy knows its addresses; this machine may not.
            return Some(Reach::PublicOnly);
        }
        let found = self.running.run(OAUTH_REQUEST_TIMEOUT, |wait| {
            let watch = InFlight::default();
            watch.begin(wait);
            self.factory.names.find(server.host(), &watch).unwrap_or_default()
        });
        let found = found.unwrap_or_default();
        (!found.is_empty()).then(|| Reach::of_server(found))
    }

    fn send(
        &self,
        request: &FetchRequest<'_>,
        wait: &Arc<Wait>,
    ) -> Result<FetchAnswer, FetchError> {
        let watch = Arc::new(InFlight::default());
        watch.begin(wait);
        let dial = SocketConnector {
            watch: watch.clone(),
            tls: self.factory.tls.clone(),
            connect_timeout: self.factory.connect_timeout,
            proxied: self.factory.config.proxy().is_some(),
        };
        let refused = Arc::new(Mutex::new(None));
        let resolver = GuardedResolver {
            inner: AgentResolver { names: self.factory.names.clone(), watch: watch.clone() },
            reach: request.reach,
            guarded: request.url.host().to_owned(),
            refused: refused.clone(),
        };
        let agent = Agent::with_parts(self.factory.config.clone(), dial, resolver);
        let answered = match request.content {
            FetchContent::Get => agent.run(made(request, Method::GET, None, ())?),
            FetchContent::Form(body) => {
                let kind = "application/x-www-form-urlencoded";
                agent.run(made(request, Method::POST, Some(kind), body.expose())?)
            }
            FetchContent::Json(body) => {
                let kind = "application/json";
                agent.run(made(request, Method::POST, Some(kind), body.expose())?)
            }
        };
        let response = answered.map_err(|error| match refused.lock().take() {
            Some(why) => FetchError::Refused(why),
            None => failed(request.url, &failure(&watch, &error)),
        })?;
        watch.set_stage(Stage::Read);
        read(request.url, response, watch)
    }
}

impl Fetch for Fetcher {
    fn fetch(&self, request: &FetchRequest<'_>) -> Result<FetchAnswer, FetchError> {
        let is_refused = match request.url.address() {
            Some(address) => !request.reach.allows(address),
            None => request.url.is_loopback() && request.reach != Reach::Loopback,
        };
        if is_refused {
            return Err(FetchError::Refused(out_of_reach(request.url.host())));
        }
        if let Some((_, time)) = BOUND.get().filter(|(until, _)| *until <= Instant::now()) {
            let what = format!(
                "{}: no time is left: all requests of a renewal, or of a step of a sign-in, may \
                 take {} s",
                request.url.origin(),
                time.as_secs()
            );
            return Err(FetchError::Failed(what));
        }
        let sent = self.running.run(request.timeout, |wait| self.send(request, wait));
        sent.unwrap_or_else(|error| Err(FetchError::Failed(error.to_string())))
    }
}

fn out_of_reach(host: &str) -> String {
    format!(
        "{host} is on this machine or in a private network, where a server that is not there \
         itself must not lead"
    )
}

fn failed(url: &WebUrl, failure: &Failure) -> FetchError {
    FetchError::Failed(format!("{}: {} ({})", url.origin(), failure.message, failure.stage))
}

/// The request as ureq wants it.
fn made<B>(
    request: &FetchRequest<'_>,
    method: Method,
    content_type: Option<&'static str>,
    body: B,
) -> Result<Request<B>, FetchError> {
    let refused = |what: &str| FetchError::Refused(format!("{what} cannot be sent"));
    let uri: Uri = request.url.as_str().parse().map_err(|_| refused("the URL"))?;
    let mut made = Request::new(body);
    *made.method_mut() = method;
    *made.uri_mut() = uri;
    let headers = made.headers_mut();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(kind) = content_type {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    for (name, value) in request.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused("a header"))?;
        let mut value =
            HeaderValue::from_str(value.expose()).map_err(|_| refused(name.as_str()))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(made)
}

fn read(
    url: &WebUrl,
    response: Response<Body>,
    watch: Arc<InFlight>,
) -> Result<FetchAnswer, FetchError> {
    let (parts, body) = response.into_parts();
    let mut response = HttpResponse {
        status: parts.status.as_u16(),
        uri: Uri::default(),
        length: body.content_length(),
        reader: body.into_reader(),
        headers: parts.headers,
        watch,
        on_bell: None,
    };
    let body = response
        .read_to_end(OAUTH_DOCUMENT_BYTES_MAX, "what such a document may have")
        .map_err(|failure| failed(url, &failure))?;
    let text = |name: HeaderName| {
        let value = response.headers.get(name)?.to_str().ok()?;
        Some(value.to_owned())
    };
    let challenges = response.headers.get_all(WWW_AUTHENTICATE).into_iter();
    let challenges = challenges.filter_map(|it| it.to_str().ok()).map(str::to_owned);
    Ok(FetchAnswer {
        status: response.status,
        content_type: text(CONTENT_TYPE),
        www_authenticate: challenges.collect(),
        dpop_nonce: text(HeaderName::from_static("dpop-nonce")),
        cache_control: text(CACHE_CONTROL),
        body,
    })
}

/// Resolves names as for every request, and refuses addresses out of reach.
#[derive(Debug)]
struct GuardedResolver {
    inner: AgentResolver,
    reach: Reach,
    /// The host of the request; a proxy's address is the operator's own choice.
    guarded: String,
    /// Why the request was refused, which ureq's errors cannot say.
    refused: Arc<Mutex<Option<String>>>,
}

impl Resolver for GuardedResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        let is_guarded =
            uri.host().is_some_and(|host| host.eq_ignore_ascii_case(&self.guarded));
        let is_out = |ip: IpAddr| !self.reach.allows(ip.to_canonical());
        if is_guarded && found.iter().any(|address| is_out(address.ip())) {
            *self.refused.lock() = Some(out_of_reach(&self.guarded));
            return Err(ureq::Error::HostNotFound);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::super::dns::DnsCache;
    use super::super::tls::Tls;
    use super::*;
    use crate::config::{HttpKind, HttpTarget};

    fn fetcher() -> Fetcher {
        let target = HttpTarget {
            kind: HttpKind::StreamableHttp,
            url: "http://127.0.0.1:1/mcp".to_owned(),
            headers: Vec::new(),
            forward_headers: Vec::new(),
            proxy: None,
            ca_file: None,
            oauth: None,
        };
        let (names, tls) = (DnsCache::start().unwrap(), Tls::Public(Arc::default()));
        let factory = AgentFactory::new(&target, names, &tls, Duration::from_secs(1)).unwrap();
        Fetcher::new(factory, Arc::default())
    }

    /// A server that answers each connection so. Gives its URL.
    fn server(answer: Vec<u8>) -> (WebUrl, crate::thread::Joined) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        let serving = crate::thread::spawn("serves", move || {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let n = stream.read(&mut [0; 4096]).unwrap_or_default();
            assert!(n > 0, "a request");
            stream.write_all(&answer).ok();
        });
        (WebUrl::parse(&url).unwrap(), serving.unwrap())
    }

    fn get(fetcher: &Fetcher, url: &WebUrl, reach: Reach) -> Result<FetchAnswer, FetchError> {
        fetcher.fetch(&FetchRequest {
            url,
            content: FetchContent::Get,
            headers: &[],
            reach,
            timeout: Duration::from_secs(3),
        })
    }

    #[test]
    fn an_address_out_of_reach_is_refused_by_number_and_by_name_before_anything_is_sent() {
        let fetcher = fetcher();
        for (url, reach) in [
            ("http://127.0.0.1:1/", Reach::PublicOnly),
            ("http://127.0.0.1:1/", Reach::PrivateNetworks),
            ("http://localhost:1/", Reach::PublicOnly),
            ("http://[::1]:1/", Reach::PublicOnly),
            ("https://10.0.0.1/", Reach::PublicOnly),
            ("http://169.254.169.254/", Reach::Loopback),
        ] {
            let answer = get(&fetcher, &WebUrl::parse(url).unwrap(), reach);
            assert!(matches!(answer, Err(FetchError::Refused(_))), "{url}: {answer:?}");
        }
    }

    #[test]
    fn a_redirect_is_an_answer_and_what_is_too_large_is_none() {
        let fetcher = fetcher();
        let redirect = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\
            Content-Length: 0\r\nConnection: close\r\n\r\n";
        let (url, _serving) = server(redirect.to_vec());
        let answer = get(&fetcher, &url, Reach::Loopback).unwrap();
        assert_eq!(answer.status, 302);
        let mut large = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
        large.extend(vec![b' '; OAUTH_DOCUMENT_BYTES_MAX + 2]);
        let (url, _serving) = server(large);
        let answer = get(&fetcher, &url, Reach::Loopback);
        assert!(
            matches!(&answer, Err(FetchError::Failed(what)) if what.contains("larger")),
            "{answer:?}"
        );
    }

    #[test]
    fn requests_have_a_time_that_is_for_all_of_them_together() {
        let fetcher = fetcher();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let url = WebUrl::parse(&url).unwrap();
        let began = Instant::now();
        let answers = within_time(Duration::from_millis(300), || {
            [(); 3].map(|()| get(&fetcher, &url, Reach::Loopback))
        });
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert!(answers.iter().all(Result::is_err));
        let last = answers.into_iter().next_back().unwrap();
        assert!(
            matches!(&last, Err(FetchError::Failed(what)) if what.contains("no time is left")),
            "{last:?}"
        );
        assert_eq!(time_left(Duration::from_secs(9)), Duration::from_secs(9));
    }

    #[test]
    fn a_stop_ends_what_is_waited_for() {
        let fetcher = Arc::new(fetcher());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let url = WebUrl::parse(&url).unwrap();
        let (asking, (tell, told)) = (fetcher.clone(), crossbeam_channel::bounded(1));
        let thread = crate::thread::spawn("asks", move || {
            tell.send(get(&asking, &url, Reach::Loopback)).unwrap();
        });
        let accepted = listener.accept().unwrap();
        fetcher.running.stop();
        let answer = told.recv_timeout(Duration::from_secs(2)).unwrap();
        assert!(matches!(answer, Err(FetchError::Failed(_))), "{answer:?}");
        drop((thread, accepted));
    }
}
