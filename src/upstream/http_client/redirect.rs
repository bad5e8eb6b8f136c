//! Where requests go: to a URL as it was configured or given, or to where the server itself has
//! redirected them. Only 307 and 308 are followed, because they alone keep the method and the
//! body (RFC 9110, section 15.4), and only within the origin, because what a request carries was
//! configured for that one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ureq::http::header::LOCATION;
use ureq::http::{HeaderMap, Uri};

use crate::error::Stage;
use crate::limits::UPSTREAM_REDIRECTS_MAX;
use crate::protocol::server_name::ServerName;
use crate::telemetry::Seldom;
use crate::telemetry::redact::{self, Secrets};

use super::reference::{is_same_origin, resolve};
use crate::upstream::failure::{Failure, FailureKind, Refusal, cut};

/// Where a URL was redirected to, for all requests to it.
pub(crate) struct Redirected {
    server: ServerName,
    secrets: Arc<Secrets>,
    to: Mutex<Option<Uri>>,
    /// Lines about what was learned.
    lines: Seldom,
}

impl Redirected {
    pub(crate) fn new(server: ServerName, secrets: Arc<Secrets>) -> Redirected {
        Redirected { server, secrets, to: Mutex::default(), lines: Seldom::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Uri>> {
        self.to.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As `/status` tells it.
    pub(crate) fn told(&self) -> Option<String> {
        let to = self.lock().clone()?;
        Some(self.secrets.scrub_for_operator(&named(&to.to_string())).into_owned())
    }

    /// The server may be another one: requests go to the URL itself again.
    pub(crate) fn forget(&self) {
        *self.lock() = None;
    }

    fn learn(&self, to: &Uri) {
        if self.lock().replace(to.clone()).as_ref() == Some(to) {
            return;
        }
        if let (Some(more), Some(told)) = (self.lines.turn(), self.told()) {
            log::info!(target: "upstream", "{}: it redirects to {told}, where requests go from \
                now on{more}", self.server);
        }
    }
}

/// A URL that requests go to.
pub(crate) struct Endpoint {
    uri: Uri,
    redirected: Arc<Redirected>,
}

impl Endpoint {
    pub(crate) fn new(uri: Uri, redirected: Arc<Redirected>) -> Endpoint {
        Endpoint { uri, redirected }
    }

    /// The way of one request.
    pub(crate) fn way(&self) -> Way<'_> {
        let remembered = self.redirected.lock().clone();
        let is_remembered = remembered.is_some();
        let uri = remembered.unwrap_or_else(|| self.uri.clone());
        Way { endpoint: self, uri, is_remembered, been: Vec::new() }
    }
}

/// One request on its way.
pub(crate) struct Way<'a> {
    endpoint: &'a Endpoint,
    uri: Uri,
    /// It was sent to where an earlier one was redirected.
    is_remembered: bool,
    /// Where it was redirected from.
    been: Vec<Uri>,
}

/// What an answer means for the request's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is the answer.
    Arrived,
    /// The request is to be sent again, to where the way leads now.
    Again,
}

impl Way<'_> {
    /// Where the request goes next.
    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// # Errors
    /// It is redirected to where it must not go.
    pub(crate) fn take(&mut self, status: u16, headers: &HeaderMap) -> Result<Turn, Failure> {
        let is_redirect = (300..400).contains(&status) && status != 304;
        let location = headers.get(LOCATION).filter(|_| is_redirect);
        if self.is_remembered && (is_redirect || status == 404) {
            // What was learned does not hold any more: it is learned anew, by later requests. This
            // one has been answered, and what it was for may have been done.
            self.endpoint.redirected.forget();
            self.is_remembered = false;
        }
        let Some(location) = location else {
            // Only what a request of MCP's has arrived at is worth remembering.
            if (200..300).contains(&status)
                && !self.is_remembered
                && self.uri != self.endpoint.uri
            {
                self.endpoint.redirected.learn(&self.uri);
            }
            return Ok(Turn::Arrived);
        };
        let location = String::from_utf8_lossy(location.as_bytes());
        let to = resolve(&self.uri, &location);
        let told = to.as_ref().map_or_else(|| location.into_owned(), Uri::to_string);
        let refused = |why: &str| refused(status, &told, why);
        if !matches!(status, 307 | 308) {
            return Err(refused("only 307 and 308 are followed"));
        }
        let Some(to) = to else { return Err(refused("which is no URL")) };
        if !is_same_origin(&to, &self.endpoint.uri) {
            return Err(refused("which is another origin, and is not followed"));
        }
        self.been.push(self.uri.clone());
        if self.been.contains(&to) {
            return Err(refused("which is a loop"));
        }
        if self.been.len() > UPSTREAM_REDIRECTS_MAX {
            return Err(refused(&format!("after {UPSTREAM_REDIRECTS_MAX} others")));
        }
        self.uri = to;
        Ok(Turn::Again)
    }
}

fn refused(status: u16, to: &str, why: &str) -> Failure {
    let what = format!("it redirects (status {status}) to {}, {why}", named(to));
    Failure {
        sent: true,
        ..Failure::new(FailureKind::Refused(Refusal::Plain), Stage::Answer, what)
    }
}

/// A target as people are told it: without what may be a secret.
fn named(to: &str) -> String {
    cut(&redact::url(to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn endpoint(uri: &str) -> Endpoint {
        let secrets = Secrets::new(&[Secret::new("hush".to_owned())]);
        let server = ServerName::parse("s").unwrap();
        let redirected = Redirected::new(server, Arc::new(secrets));
        Endpoint::new(uri.parse().unwrap(), Arc::new(redirected))
    }

    fn take(way: &mut Way<'_>, status: u16, location: &str) -> Result<Turn, Failure> {
        let mut headers = HeaderMap::new();
        if !location.is_empty() {
            headers.insert(LOCATION, location.parse().unwrap());
        }
        way.take(status, &headers)
    }

    #[test]
    fn what_was_arrived_at_is_remembered_until_it_fails() {
        let endpoint = endpoint("http://h/mcp");
        let mut way = endpoint.way();
        assert_eq!(take(&mut way, 307, "/hush/mcp/?token=x"), Ok(Turn::Again));
        assert_eq!(way.uri(), "http://h/hush/mcp/?token=x");
        assert_eq!(take(&mut way, 400, ""), Ok(Turn::Arrived));
        assert_eq!(endpoint.redirected.told(), None);
        assert_eq!(take(&mut way, 200, ""), Ok(Turn::Arrived));
        assert_eq!(endpoint.redirected.told().as_deref(), Some("http://h/[secret]/mcp/"));
        let remembered = || {
            endpoint.redirected.learn(&"http://h/mcp/".parse().unwrap());
            let way = endpoint.way();
            assert_eq!(way.uri(), "http://h/mcp/");
            way
        };
        // What was answered is not sent again.
        assert_eq!(take(&mut remembered(), 404, ""), Ok(Turn::Arrived));
        assert_eq!(endpoint.redirected.told(), None);
        for (status, location) in [(301, "/mcp"), (302, "http://elsewhere/"), (303, "/mcp")] {
            assert!(take(&mut remembered(), status, location).is_err());
            assert_eq!(endpoint.redirected.told(), None);
        }
        assert!(take(&mut remembered(), 308, "http://elsewhere/").is_err());
        let mut way = remembered();
        assert_eq!(take(&mut way, 308, "/other"), Ok(Turn::Again));
        assert_eq!(way.uri(), "http://h/other");
        assert_eq!(endpoint.redirected.told(), None);
        assert_eq!(take(&mut way, 200, ""), Ok(Turn::Arrived));
        assert_eq!(endpoint.redirected.told().as_deref(), Some("http://h/other"));
        endpoint.redirected.forget();
        assert_eq!(take(&mut endpoint.way(), 200, ""), Ok(Turn::Arrived));
        assert_eq!(endpoint.redirected.told(), None);
    }

    #[test]
    fn every_other_redirect_names_its_target() {
        let endpoint = endpoint("http://h/mcp");
        for (status, location, told) in [
            (301, "/mcp/", "http://h/mcp/"),
            (302, "https://login.example/in?state=s", "https://login.example/in,"),
            (303, "/x", "http://h/x"),
            (307, "https://h/mcp", "https://h/mcp"),
            (307, "http://h:81/mcp", "http://h:81/mcp"),
            (308, "http://u:p@h/mcp", "http://h/mcp"),
            (307, "/mcp", "a loop"),
            (307, "http://h:x/", "http://h:x/"),
        ] {
            let failure = take(&mut endpoint.way(), status, location).unwrap_err();
            assert!(failure.message.contains(told), "{status} {location}: {}", failure.message);
            assert!(!failure.message.contains("state=s"), "{}", failure.message);
        }
        for (status, location) in [(307, ""), (304, "/mcp/"), (200, "/mcp/"), (201, "/x")] {
            assert_eq!(take(&mut endpoint.way(), status, location), Ok(Turn::Arrived));
        }
    }

    #[test]
    fn a_way_without_end_ends() {
        let endpoint = endpoint("http://h/0");
        let mut way = endpoint.way();
        for n in 1..=UPSTREAM_REDIRECTS_MAX {
            assert_eq!(take(&mut way, 308, &format!("/{n}")), Ok(Turn::Again));
        }
        assert!(take(&mut way, 308, "/last").unwrap_err().message.contains("others"));
        let mut way = endpoint.way();
        assert_eq!(take(&mut way, 307, "/1"), Ok(Turn::Again));
        assert!(take(&mut way, 307, "/0").unwrap_err().message.contains("loop"));
    }
}
