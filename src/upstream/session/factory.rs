//! How the sessions with a server are made, the shared one and clients' own.

use std::sync::Arc;

use crate::config::{HttpKind, StdioTarget, Target};
use crate::protocol::revision::Era;

use super::Session;
use super::context::SessionContext;
use super::era::FoundEra;
use crate::upstream::http_client::dns::DnsCache;
use crate::upstream::http_client::tls::Tls;
use crate::upstream::transport::http::HttpContext;
use crate::upstream::transport::over_http::OverHttp;
use crate::upstream::transport::stdio::Stdio;
use crate::upstream::transport::stdio::stderr::StderrRing;
use crate::upstream::transport::{Transport, Unusable};

/// One server as it was configured.
pub(crate) struct SessionFactory {
    target: Configured,
    /// What it was found to speak.
    era: Arc<FoundEra>,
}

enum Configured {
    Stdio { target: StdioTarget, stderr: Arc<StderrRing> },
    Http { http: Box<HttpContext>, kind: HttpKind },
    Unusable(String),
}

impl SessionFactory {
    /// `era`: which one a child was of when it was last spoken with; it is asked for that first.
    pub(crate) fn new(
        context: &Arc<SessionContext>,
        stderr: &Arc<StderrRing>,
        names: Arc<DnsCache>,
        tls: &Tls,
        era: Option<Era>,
    ) -> SessionFactory {
        let (target, era) = match &context.config.target {
            Target::Stdio(target) => {
                let (target, stderr) = (target.clone(), stderr.clone());
                (Configured::Stdio { target, stderr }, FoundEra::assuming(era))
            }
            Target::Http(target) => {
                let era = match target.kind {
                    // No server without sessions speaks it.
                    HttpKind::HttpSse => FoundEra::fixed(Era::Legacy),
                    HttpKind::StreamableHttp | HttpKind::Auto => FoundEra::default(),
                };
                let http = HttpContext::new(context.clone(), target, names, tls);
                let configured = match http.map(Box::new) {
                    Ok(http) => Configured::Http { http, kind: target.kind },
                    Err(what) => Configured::Unusable(what),
                };
                (configured, era)
            }
        };
        SessionFactory { target, era: Arc::new(era) }
    }

    /// One session with it, which is not opened by that.
    pub(crate) fn session(&self, context: Arc<SessionContext>) -> Arc<Session> {
        let era = self.era.clone();
        let transport: Box<dyn Transport> = match &self.target {
            Configured::Stdio { target, stderr } => {
                let (target, stderr) = (target.clone(), stderr.clone());
                Box::new(Stdio { context: context.clone(), target, stderr, era: era.clone() })
            }
            Configured::Unusable(what) => Box::new(Unusable(what.clone())),
            Configured::Http { http, kind } => {
                let http = Arc::new(http.for_session(context.clone()));
                Box::new(OverHttp::new(http, *kind, era.clone()))
            }
        };
        Session::new(context, transport, era)
    }
}
