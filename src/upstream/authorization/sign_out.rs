//! The end of sign-ins: tokens are deleted, and revoked where the authorization server offers that.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::config::{Credentials, UpstreamConfig};
use crate::limits::{OAUTH_JOB_TIME, OAUTH_REQUEST_TIMEOUT};
use crate::oauth::token::RevokedToken;
use crate::protocol::credentials_id::CredentialsId;
use crate::protocol::server_name::ServerName;
use crate::upstream::http_client::fetcher::time_left;
use crate::wait::Wait;

use super::authorizations::Authorizations;
use super::flow_error::Remedy;
use super::holder::{Holder, UserSignIn};
use super::kept::Kept;
use super::registration::forget_registrations;
use super::server_authorization::ServerAuthorization;
use super::store::FileName;
use super::token_endpoint::with_configured_client;
use super::workers::Purpose;
use super::{Owner, SignInError};

/// What became of credentials at a sign-out. They are forgotten here in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignedOut {
    /// There were none.
    NothingThere,
    /// They are forgotten, and were revoked at the authorization server.
    Revoked,
    /// They are forgotten; the authorization server offers no revocation.
    Forgotten,
    /// They are forgotten, and the refresh token was revoked; the access token was not.
    AccessTokenLeft(NotRevoked),
    /// They are forgotten; the authorization server revoked nothing.
    NotRevoked(NotRevoked),
}

/// Why tokens are not revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotRevoked {
    /// The reason, without secrets.
    pub why: String,
    /// When the access token ends by itself, if that is known.
    pub until: Option<SystemTime>,
    /// True if the authorization server gave no answer: it will hardly answer the next request.
    pub is_silent: bool,
}

/// The part of the authorization server in a sign-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// It is asked to revoke the tokens, where it offers that.
    Asked,
    /// It is not asked: it has not answered a moment ago.
    LeftOut,
}

/// How far the ends of sign-ins without a key have come at one server.
struct Ends {
    revocation: Revocation,
    /// The last user whose sign-in was ended: they are in order.
    last: Option<CredentialsId>,
}

impl Default for Ends {
    fn default() -> Ends {
        Ends { revocation: Revocation::Asked, last: None }
    }
}

/// The time that the sign-out of one user may take: two tokens are revoked.
const SIGN_OUT_TIME: Duration = Duration::from_secs(2 * OAUTH_REQUEST_TIMEOUT.as_secs());
const _: () = assert!(SIGN_OUT_TIME.as_secs() < OAUTH_JOB_TIME.as_secs());

impl ServerAuthorization {
    /// Forgets the credentials here, in memory and on disk, and revokes them at the authorization
    /// server where that offers it.
    ///
    /// # Errors
    /// The file cannot be removed, or the wait ended first.
    pub fn sign_out(
        self: &Arc<ServerAuthorization>,
        revocation: Revocation,
        wait: &Arc<Wait>,
    ) -> Result<SignedOut, SignInError> {
        self.on_worker(Purpose::Person, wait, move |this| this.signed_out(revocation))?
            .map_err(|error| SignInError::Failed(error.to_string()))
    }

    fn signed_out(&self, revocation: Revocation) -> io::Result<SignedOut> {
        let store = &self.shared.store;
        let kept = {
            let _locked = store.lock(&self.file)?;
            // Also what was had with an earlier configuration of the server.
            let text = store.read(&self.file)?;
            store.remove(&self.file)?;
            text.as_deref().and_then(Kept::from_json)
        };
        if self.owner == Owner::Gateway {
            // An authorization server that has lost a registration shows people an error, and tells
            // nobody else.
            forget_registrations(store, &self.server)?;
        }
        self.shared.sign_ins.forget(self);
        self.forget();
        Ok(kept.map_or(SignedOut::NothingThere, |kept| self.revoked(&kept, revocation)))
    }

    fn revoked(&self, kept: &Kept, revocation: Revocation) -> SignedOut {
        let Some(endpoint) = &kept.grantor.revocation_endpoint else {
            return SignedOut::Forgotten;
        };
        let until = kept.expires_at.map(|at| SystemTime::UNIX_EPOCH + Duration::from_secs(at));
        if revocation == Revocation::LeftOut {
            let why = "it has not answered a moment ago".to_owned();
            return SignedOut::NotRevoked(NotRevoked { why, until, is_silent: true });
        }
        let asker = self.asker();
        let is_configured = self.config.client_id.as_ref() == Some(&kept.grantor.client.id);
        let grantor = match is_configured {
            true => with_configured_client(kept.grantor.clone(), &self.config),
            false => kept.grantor.clone(),
        };
        let revoke = |token, hint| {
            asker.revoke(endpoint, &grantor, token, hint).map_err(|error| NotRevoked {
                is_silent: error.remedy == Remedy::TryLater,
                why: error.to_string(),
                until,
            })
        };
        let refresh = kept.refresh_token.as_ref();
        let refresh = refresh.map(|token| revoke(token, RevokedToken::Refresh));
        let is_renewable = match refresh {
            Some(Err(why)) => return SignedOut::NotRevoked(why),
            Some(Ok(())) => true,
            None => false,
        };
        // With the refresh token its access tokens should end too (RFC 7009, section 2.1), which is
        // not certain.
        if kept.is_over(self.shared.now()) {
            return SignedOut::Revoked;
        }
        match revoke(&kept.access_token, RevokedToken::Access) {
            Ok(()) => SignedOut::Revoked,
            // Many authorization servers cannot revoke access tokens that are JWTs (section 2.2.1).
            Err(why) if is_renewable => SignedOut::AccessTokenLeft(why),
            Err(why) => SignedOut::NotRevoked(why),
        }
    }
}

impl Authorizations {
    /// The sign-ins of users at a server, as far as their files can be read.
    pub fn users_at(&self, server: &ServerName) -> Vec<UserSignIn> {
        let store = &self.shared.store;
        let users = store.users_at(server).into_iter();
        let read = users.filter_map(|user| {
            let name = FileName::of_credentials(server, Owner::User(user));
            let text = store.read(&name).ok()??;
            Some(UserSignIn { user, holder: Holder::read(&text) })
        });
        read.collect()
    }

    /// Forgets how the gateway is known to the authorization servers of a server.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn forget_registrations(&self, server: &ServerName) -> io::Result<()> {
        forget_registrations(&self.shared.store, server)
    }

    /// Ends the sign-ins of users whose key is not among `keys` (each the SHA-256 of one) any more:
    /// nobody can use these sign-ins, and their refresh tokens would be good for as long as the
    /// authorization server likes. Returns at once.
    pub fn end_without_key(
        self: &Arc<Authorizations>,
        servers: &[Arc<UpstreamConfig>],
        keys: HashSet<[u8; 32]>,
    ) {
        let is_own = |it: &&Arc<UpstreamConfig>| {
            it.oauth().is_some() && it.credentials == Credentials::PerUser
        };
        let keys = Arc::new(keys);
        for server in servers.iter().filter(is_own) {
            self.submit_ends(server.clone(), keys.clone(), Ends::default());
        }
    }

    fn submit_ends(
        self: &Arc<Authorizations>,
        server: Arc<UpstreamConfig>,
        keys: Arc<HashSet<[u8; 32]>>,
        so_far: Ends,
    ) {
        let (this, name) = (Arc::downgrade(self), server.name.clone());
        let job = Box::new(move || {
            let Some(this) = this.upgrade() else { return };
            if let Some(so_far) = this.end_at(&server, &keys, so_far) {
                this.submit_ends(server, keys, so_far);
            }
        });
        if !self.shared.workers.submit(&name, Purpose::Token, job) {
            log::warn!(target: "oauth", "{name}: too many sign-ins and renewals wait: the \
                sign-ins of users whose key has gone end with the next reload or start");
        }
    }

    /// Ends such sign-ins at one server, for as long as one job may take. Returns how far that has
    /// come, if there are more.
    fn end_at(
        self: &Arc<Authorizations>,
        server: &Arc<UpstreamConfig>,
        keys: &HashSet<[u8; 32]>,
        Ends { mut revocation, mut last }: Ends,
    ) -> Option<Ends> {
        for UserSignIn { user, holder } in self.users_at(&server.name) {
            let is_done = last.is_some_and(|last| user <= last);
            if is_done || holder.key.is_none_or(|key| keys.contains(&key)) {
                continue;
            }
            // Renewals for the server have their turn, too, and the rest its time.
            if time_left(OAUTH_JOB_TIME) < SIGN_OUT_TIME {
                return Some(Ends { revocation, last });
            }
            last = Some(user);
            // The rest ends with the next start: then there is time to revoke it.
            if self.shared.running.is_stopped() {
                return None;
            }
            let found = self.of(server, Owner::User(user), holder.clone());
            let Ok(Some(authorization)) = found else { return None };
            let name = &server.name;
            let told = match authorization.signed_out(revocation) {
                Ok(SignedOut::NothingThere) => continue,
                Ok(SignedOut::Revoked) => "its tokens are deleted and revoked".to_owned(),
                Ok(SignedOut::Forgotten) => "its tokens are deleted".to_owned(),
                Ok(SignedOut::AccessTokenLeft(NotRevoked { why, .. })) => {
                    format!(
                        "its tokens are deleted, and the access token is not revoked: {why}"
                    )
                }
                Ok(SignedOut::NotRevoked(NotRevoked { why, is_silent, .. })) => {
                    if is_silent {
                        revocation = Revocation::LeftOut;
                    }
                    format!("its tokens are deleted, and not revoked: {why}")
                }
                Err(error) => format!("its tokens cannot be deleted: {error}"),
            };
            log::info!(target: "oauth", "{name}: the sign-in of {holder} ends, whose key is not in \
                the configuration any more: {told}");
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::Setup;
    use super::super::kept::tests::kept;
    use super::*;
    use crate::config::{Config, Overrides};
    use crate::upstream::http_client::fetcher::within_time;

    #[test]
    fn the_sign_ins_for_which_a_job_has_no_time_are_left_to_the_next() {
        let path = std::env::temp_dir().join(format!("trunkline-ends-{}", std::process::id()));
        let text = format!(
            r#"{{"mcp_servers":{{"s":{{"url":"https://mcp.example/mcp","transport":"http",
                "oauth":true,"credentials":"per_user"}}}},"state_dir":{path:?},
                "api_keys":[{{"name":"a","key":"key-of-a-00000000"}}]}}"#
        );
        let config = Config::parse(&text, &|_| None, &Overrides::default()).unwrap();
        let server = config.upstreams[0].clone();
        let all = Authorizations::start(Setup::of(&config, None, None)).unwrap();
        let store = &all.shared.store;
        for user in ["1", "2", "3"] {
            let user = CredentialsId::parse(&user.repeat(32)).unwrap();
            let holder = Holder { name: None, key: Some([7; 32]) };
            let mut kept = kept(None);
            kept.grantor.revocation_endpoint = None;
            let name = FileName::of_credentials(&server.name, Owner::User(user));
            store.write(&name, &kept.to_json(&holder)).unwrap();
        }
        let keys = HashSet::new();
        let n_left = || store.users_at(&server.name).len();
        let left =
            within_time(SIGN_OUT_TIME / 2, || all.end_at(&server, &keys, Ends::default()));
        assert!(left.is_some_and(|left| left.last.is_none()));
        assert_eq!(n_left(), 3);
        // One that is done, or cannot be, is not tried again by the next job.
        let so_far =
            || Ends { last: store.users_at(&server.name).first().copied(), ..Ends::default() };
        assert!(all.end_at(&server, &keys, so_far()).is_none());
        assert_eq!(n_left(), 1);
        assert!(all.end_at(&server, &keys, Ends::default()).is_none());
        assert_eq!(n_left(), 0);
        std::fs::remove_dir_all(path).unwrap();
    }
}
