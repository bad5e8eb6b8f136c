//! How the link of a session is made, of the shared one and of clients' own.

pub(super) mod get_stream;
pub(super) mod http;
pub(super) mod http_sse;
pub(super) mod listen_stream;
pub(super) mod message_bytes;
pub(super) mod post_stream;
pub(super) mod refused_status;
pub(super) mod stateless_http;
pub(super) mod stdio;
pub(super) mod streamable_http;
pub(super) mod superseded_stream;
pub(super) mod throttle;
pub(super) mod unusable;

use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use crate::config::{HttpKind, StdioTarget, Target};
use crate::protocol::revision::Era;

use super::http_client::dns::DnsCache;
use super::http_client::tls::Tls;
use super::session::auto_transport::Auto;
use super::session::context::{SessionContext, Transport};
use super::session::either_era::EitherEra;
use super::session::era::Found;
use http::HttpContext;
use http_sse::HttpSse;
use stdio::Stdio;
use stdio::stderr::StderrRing;
use streamable_http::StreamableHttp;
use unusable::Unusable;

/// One upstream as it was configured.
pub(super) enum Transports {
    Stdio { target: StdioTarget, stderr: Arc<StderrRing>, era: Arc<Found> },
    Http { http: Box<HttpContext>, kind: HttpKind, transport: Arc<AtomicU8>, era: Arc<Found> },
    Unusable(String),
}

impl Transports {
    /// `era`: which one a child was of when it was last spoken with; it is asked for that first.
    pub(super) fn new(
        context: &Arc<SessionContext>,
        stderr: &Arc<StderrRing>,
        names: Arc<DnsCache>,
        tls: &Tls,
        era: Option<Era>,
    ) -> Transports {
        match &context.config.target {
            Target::Stdio(target) => Transports::Stdio {
                target: target.clone(),
                stderr: stderr.clone(),
                era: Arc::new(Found::assuming(era)),
            },
            Target::Http(target) => match HttpContext::new(context.clone(), target, names, tls)
            {
                Ok(http) => Transports::Http {
                    http: Box::new(http),
                    kind: target.kind,
                    transport: Arc::default(),
                    era: Arc::default(),
                },
                Err(what) => Transports::Unusable(what),
            },
        }
    }

    /// The link of one session.
    pub(super) fn transport(&self, context: Arc<SessionContext>) -> Arc<dyn Transport> {
        let (http, kind, transport, era) = match self {
            Self::Stdio { target, stderr, era } => {
                let (target, stderr, era) = (target.clone(), stderr.clone(), era.clone());
                return Arc::new(Stdio::new(context, target, stderr, era));
            }
            Self::Unusable(what) => return Arc::new(Unusable(what.clone())),
            Self::Http { http, kind, transport, era } => (http, kind, transport, era),
        };
        let http = Arc::new(http.for_session(context));
        let legacy: Arc<dyn Transport> = match kind {
            // No modern server speaks it.
            HttpKind::HttpSse => return Arc::new(HttpSse::new(http)),
            HttpKind::StreamableHttp => Arc::new(StreamableHttp::new(http.clone())),
            HttpKind::Auto => Arc::new(Auto::new(http.clone(), transport.clone())),
        };
        Arc::new(EitherEra::new(http, legacy, era.clone()))
    }
}
