//! How the link of a session is made, of the shared one and of clients' own.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use ureq::unversioned::transport::RustlsConnector;

use crate::config::{HttpKind, StdioTarget, Target};

use super::auto::Auto;
use super::child::StderrRing;
use super::http::HttpCore;
use super::http_sse::HttpSse;
use super::link::{Core, Link};
use super::resolve::Names;
use super::stdio::Stdio;
use super::streamable_http::StreamableHttp;
use super::unusable::Unusable;

/// One upstream as it was configured.
pub(super) enum Links {
    Stdio { target: StdioTarget, stderr: Arc<StderrRing> },
    Http { http: Box<HttpCore>, kind: HttpKind, found: Arc<AtomicU8> },
    Unusable(String),
}

impl Links {
    pub(super) fn new(
        core: &Arc<Core>,
        stderr: &Arc<StderrRing>,
        names: Arc<Names>,
        tls: &Arc<RustlsConnector>,
    ) -> Links {
        match &core.config.target {
            Target::Stdio(target) => {
                Links::Stdio { target: target.clone(), stderr: stderr.clone() }
            }
            Target::Http(target) => match HttpCore::new(core.clone(), target, names, tls) {
                Ok(http) => Links::Http {
                    http: Box::new(http),
                    kind: target.kind,
                    found: Arc::default(),
                },
                Err(what) => Links::Unusable(what),
            },
        }
    }

    /// The link of one session.
    pub(super) fn link(&self, core: Arc<Core>) -> Arc<dyn Link> {
        let (http, kind, found) = match self {
            Self::Stdio { target, stderr } => {
                return Arc::new(Stdio::new(core, target.clone(), stderr.clone()));
            }
            Self::Unusable(what) => return Arc::new(Unusable(what.clone())),
            Self::Http { http, kind, found } => (http, kind, found),
        };
        let http = Arc::new(http.for_session(core));
        match kind {
            HttpKind::StreamableHttp => Arc::new(StreamableHttp::new(http)),
            HttpKind::HttpSse => Arc::new(HttpSse::new(http)),
            HttpKind::Auto => Arc::new(Auto::new(http, found.clone())),
        }
    }
}
