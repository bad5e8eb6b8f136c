//! The HTTP by which one issuer of clients' access tokens is asked.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{HttpKind, HttpTarget};
use crate::limits::KEYS_FETCH_TIMEOUT;
use crate::oauth::fetch::{Fetch, FetchAnswer, FetchError, FetchRequest};
use crate::sync::Mutex;
use crate::upstream::http_client::AgentFactory;
use crate::upstream::http_client::dns::DnsCache;
use crate::upstream::http_client::fetcher::{Fetcher, RunningFetches};
use crate::upstream::http_client::tls::Tls;

/// Asks one issuer.
pub(super) struct IssuerFetcher {
    /// Certificates that are trusted besides. A file that is of no use is read again with the next
    /// request, so that it can be mended while the gateway runs.
    pub(super) ca_file: Option<PathBuf>,
    pub(super) names: Arc<DnsCache>,
    pub(super) tls: Tls,
    pub(super) running: Arc<RunningFetches>,
    /// None before the first request.
    pub(super) fetcher: Mutex<Option<Arc<Fetcher>>>,
}

impl IssuerFetcher {
    fn fetcher(&self) -> Result<Arc<Fetcher>, String> {
        if let Some(fetcher) = &*self.fetcher.lock() {
            return Ok(fetcher.clone());
        }
        let target = HttpTarget {
            kind: HttpKind::Auto,
            url: String::new(),
            headers: Vec::new(),
            forward_headers: Vec::new(),
            proxy: None,
            ca_file: self.ca_file.clone(),
            oauth: None,
        };
        let (names, timeout) = (self.names.clone(), KEYS_FETCH_TIMEOUT);
        let factory = AgentFactory::new(&target, names, &self.tls, timeout)?;
        let fetcher = Arc::new(Fetcher::new(factory, self.running.clone()));
        *self.fetcher.lock() = Some(fetcher.clone());
        Ok(fetcher)
    }
}

impl Fetch for IssuerFetcher {
    fn fetch(&self, request: &FetchRequest<'_>) -> Result<FetchAnswer, FetchError> {
        self.fetcher().map_err(FetchError::Failed)?.fetch(request)
    }
}
