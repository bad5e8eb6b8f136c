//! The authorizations of all servers, and what they share.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Weak};

use crate::config::{Config, Target, UpstreamConfig};
use crate::oauth::authorization::AuthorizationAnswer;
use crate::oauth::fetch::Fetch;
use crate::protocol::server_name::ServerName;
use crate::sync::Mutex;
use crate::upstream::http_client::AgentFactory;
use crate::upstream::http_client::dns::DnsCache;
use crate::upstream::http_client::fetcher::Fetcher;
use crate::upstream::http_client::tls::Tls;
use crate::wait::Wait;

use super::holder::Holder;
use super::issuer_fetcher::IssuerFetcher;
use super::shared::Shared;
use super::sign_ins::begun_by;
use super::{FinishedSignIn, Owner, ServerAuthorization, Setup, SignInError};

/// The authorizations of all servers: the sign-ins under way, the threads that ask authorization
/// servers, and the files in which credentials are kept.
pub struct Authorizations {
    pub(super) shared: Arc<Shared>,
    names: Arc<DnsCache>,
    tls: Tls,
    known: Mutex<HashMap<(ServerName, Owner), Weak<ServerAuthorization>>>,
}

impl fmt::Debug for Authorizations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorizations")
            .field("setup", &self.shared.setup())
            .finish_non_exhaustive()
    }
}

impl Authorizations {
    /// Starts no thread but one that resolves names. A gateway has one, which its
    /// [`Upstreams`](crate::upstream::Upstreams) end; a command that signs in by itself starts its
    /// own.
    ///
    /// # Errors
    /// The process has no thread or descriptor left.
    pub fn start(setup: Setup) -> std::io::Result<Arc<Authorizations>> {
        Ok(Arc::new(Authorizations {
            shared: Arc::new(Shared::new(setup)),
            names: DnsCache::start()?,
            tls: Tls::Public(Arc::default()),
            known: Mutex::default(),
        }))
    }

    /// The facts that all sign-ins share.
    pub fn setup(&self) -> Arc<Setup> {
        self.shared.setup()
    }

    /// Follows a changed configuration: browsers come back to its address from sign-ins that begin
    /// from now on.
    pub fn follow(&self, config: &Config) {
        self.shared.set_up(self.setup().following(config));
    }

    /// The credentials of `owner` at a server that has `oauth` in its configuration: the same value
    /// each time as long as somebody holds it and the configuration is the same. Nothing is asked
    /// or read by that. None if the server has no `oauth`. `holder`: the user as files name it, where
    /// somebody may sign in.
    ///
    /// # Errors
    /// The configuration is not usable after all; the text says why.
    pub fn of(
        self: &Arc<Authorizations>,
        config: &Arc<UpstreamConfig>,
        owner: Owner,
        holder: Holder,
    ) -> Result<Option<Arc<ServerAuthorization>>, String> {
        let Target::Http(target) = &config.target else { return Ok(None) };
        if target.oauth.is_none() {
            return Ok(None);
        }
        let key = (config.name.clone(), owner);
        let same = |known: &HashMap<_, Weak<ServerAuthorization>>| {
            let same = known.get(&key).and_then(Weak::upgrade);
            same.filter(|it| it.is_for(target))
        };
        if let Some(same) = same(&self.known.lock()) {
            return Ok(Some(same));
        }
        // Nothing is locked while files are read: another one may be faster.
        let factory =
            AgentFactory::new(target, self.names.clone(), &self.tls, config.connect_timeout)?;
        let fetcher = Fetcher::new(factory, self.shared.running.clone());
        let made = ServerAuthorization::new(
            self.shared.clone(),
            &config.name,
            (owner, holder),
            target,
            fetcher,
        )?;
        let mut known = self.known.lock();
        if let Some(same) = same(&known) {
            return Ok(Some(same));
        }
        known.retain(|_, it| it.strong_count() > 0);
        known.insert(key, Arc::downgrade(&made));
        Ok(Some(made))
    }

    /// What asks an issuer of clients' access tokens: no server's settings count for it. The
    /// certificates of `ca_file` are trusted besides; while they cannot be read, every request
    /// fails with the reason.
    pub fn fetch_from_issuer(&self, ca_file: Option<&Path>) -> Arc<dyn Fetch> {
        Arc::new(IssuerFetcher {
            ca_file: ca_file.map(Path::to_owned),
            names: self.names.clone(),
            tls: self.tls.clone(),
            running: self.shared.running.clone(),
            fetcher: Mutex::default(),
        })
    }

    /// Finishes a sign-in with the query of the request to the callback (without its `?`): checks
    /// `state` and `iss`, and exchanges the code for tokens, which are kept before this returns.
    /// Each state is good once. Calls that wait go on.
    ///
    /// # Errors
    /// It is no answer to a sign-in under way, is a refusal, or the exchange failed.
    pub fn finish_sign_in(
        self: &Arc<Authorizations>,
        query: &str,
        wait: &Arc<Wait>,
    ) -> Result<FinishedSignIn, SignInError> {
        let answer = AuthorizationAnswer::read(query)
            .map_err(|error| SignInError::Refused(error.to_string()))?;
        let begun = self.shared.sign_ins.take(answer.state().expose());
        let begun = begun.ok_or(SignInError::UnknownState)?;
        let finished =
            FinishedSignIn { server: begun.whose.server.clone(), owner: begun.whose.owner };
        let whose = begun.whose.clone();
        whose.finish(begun, &answer, wait).map(|()| finished)
    }

    /// The server and the owner whose sign-in has this state, while it is under way; for a page
    /// that shows what is being signed in to. It does not use the state up.
    pub fn sign_in_of(&self, state: &str) -> Option<FinishedSignIn> {
        self.shared.sign_ins.look(state, begun_by)
    }

    /// Opens a page by the program of `$BROWSER`. None where that is not set.
    pub fn open_page(&self, url: &str) -> Option<Result<(), String>> {
        let setup = self.shared.setup();
        Some(self.shared.browsers.open(setup.browser.as_deref()?, url))
    }

    /// Ends the threads and every sign-in that is under way, in bounded time.
    pub fn stop(&self) {
        self.shared.stop();
    }
}

impl Drop for Authorizations {
    fn drop(&mut self) {
        self.stop();
    }
}
