//! What requests to a server with OAuth carry, and what is done where the server refuses that.

use std::sync::Arc;

use ureq::http::{HeaderMap, Method, Uri};

use super::HttpResponse;
use crate::upstream::failure::Failure;
use crate::wait::Wait;

/// An access token that a request carries, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenNumber(pub(crate) u64);

/// What a refused request is sent again for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Demand {
    /// The proof must have another nonce, which is known by now.
    Nonce,
    /// There must be an access token, or another one than the request has.
    Token,
    /// The access token must be good for more scopes.
    Scopes(String),
}

/// The credentials of all requests to one server.
pub(crate) trait RequestCredentials: Send + Sync {
    /// The access token for the next request. None while it is not known that one is needed.
    ///
    /// # Errors
    /// There is none, or the wait ended first.
    fn token(&self, wait: &Arc<Wait>) -> Result<Option<TokenNumber>, Failure>;

    /// Writes that token into the headers of a request, with a proof where it is bound to a key.
    ///
    /// # Errors
    /// The proof cannot be made.
    fn write(
        &self,
        token: TokenNumber,
        method: &Method,
        uri: &Uri,
        headers: &mut HeaderMap,
    ) -> Result<(), Failure>;

    /// What an answer demands before the request is sent again; none if it is the answer.
    fn demand(&self, token: Option<TokenNumber>, answer: &HttpResponse<'_>) -> Option<Demand>;

    /// Has what was demanded, or waits until somebody else has had it.
    ///
    /// # Errors
    /// It cannot be had, or the wait ended first.
    fn satisfy(
        &self,
        demand: &Demand,
        token: Option<TokenNumber>,
        wait: &Arc<Wait>,
    ) -> Result<(), Failure>;
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    use super::super::dns::DnsCache;
    use super::super::redirect::{Endpoint, Redirected};
    use super::super::tls::Tls;
    use super::super::{AgentFactory, HttpRequest};
    use super::*;
    use crate::config::{HttpKind, HttpTarget};
    use crate::protocol::server_name::ServerName;

    /// Has a token once one was demanded.
    #[derive(Default)]
    struct OneToken(crate::sync::Mutex<Option<TokenNumber>>);

    impl RequestCredentials for OneToken {
        fn token(&self, _: &Arc<Wait>) -> Result<Option<TokenNumber>, Failure> {
            Ok(*self.0.lock())
        }

        fn write(
            &self,
            _: TokenNumber,
            _: &Method,
            _: &Uri,
            headers: &mut HeaderMap,
        ) -> Result<(), Failure> {
            headers.insert("authorization", "Bearer x".parse().unwrap());
            Ok(())
        }

        fn demand(&self, _: Option<TokenNumber>, answer: &HttpResponse<'_>) -> Option<Demand> {
            (answer.status == 401).then_some(Demand::Token)
        }

        fn satisfy(
            &self,
            _: &Demand,
            _: Option<TokenNumber>,
            _: &Arc<Wait>,
        ) -> Result<(), Failure> {
            *self.0.lock() = Some(TokenNumber(1));
            Ok(())
        }
    }

    #[test]
    fn a_refusal_whose_body_does_not_end_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let serving = crate::thread::spawn("serves", move || {
            let mut open = Vec::new();
            for head in ["401 Unauthorized\r\nContent-Length: 9", "200 OK\r\nContent-Length: 0"]
            {
                let (mut stream, _) = listener.accept().unwrap();
                let mut bytes = vec![0; 4096];
                let n = stream.read(&mut bytes).unwrap();
                let has_token = String::from_utf8_lossy(&bytes[..n]).contains("Bearer x");
                assert_eq!(has_token, head.starts_with("200"));
                write!(stream, "HTTP/1.1 {head}\r\n\r\n").unwrap();
                open.push(stream);
            }
        });
        let target = HttpTarget {
            kind: HttpKind::StreamableHttp,
            url: url.clone(),
            headers: Vec::new(),
            forward_headers: Vec::new(),
            proxy: None,
            ca_file: None,
            oauth: None,
        };
        let (names, tls) = (DnsCache::start().unwrap(), Tls::Public(Arc::default()));
        let factory = AgentFactory::new(&target, names, &tls, Duration::from_secs(1)).unwrap();
        let factory = factory.with_credentials(Some(Arc::new(OneToken::default())));
        let redirected = Redirected::new(ServerName::parse("s").unwrap(), Arc::default());
        let endpoint = Endpoint::new(url.parse().unwrap(), Arc::new(redirected));
        let (method, headers) = (&Method::POST, &HeaderMap::new());
        let ask = HttpRequest { method, endpoint: &endpoint, headers, body: Some("{}") };
        let (wait, began) = (Wait::plain(Duration::from_secs(20)).unwrap(), Instant::now());
        let answer = factory.client().run(&wait, ask).unwrap();
        assert_eq!(answer.status, 200);
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        drop(serving);
    }
}
