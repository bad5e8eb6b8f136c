//! Which upstream serves a caller: the one that all share, or its user's own.

use std::sync::Arc;

use super::Pipeline;
use crate::access::policy::Scope;
use crate::config::user::per_user;
use crate::error::CallError;
use crate::protocol::credentials::UserCredentials;
use crate::protocol::server_name::ServerName;
use crate::upstream::Upstream;

impl Pipeline {
    /// The upstream that serves the caller: its user's own, where the server's credentials are
    /// each user's own.
    ///
    /// # Errors
    /// There is no such server, or it cannot be reached for that user.
    pub(super) fn upstream_for(
        &self,
        scope: &Scope,
        server: &ServerName,
    ) -> Result<Arc<Upstream>, CallError> {
        let base = self.upstream(server)?;
        if !base.may_be_per_user() {
            return Ok(base);
        }
        let charged = scope.charged.as_ref();
        match scope.user.as_ref().filter(|user| user.own_id(server).is_some()) {
            Some(user) => self.upstreams.of_user(base, user, charged, &scope.lease),
            None if base.config().is_per_user() => {
                let user = Arc::new(made_anew(scope, &base));
                self.upstreams.of_user(base, &user, charged, &scope.lease)
            }
            None => Ok(base),
        }
    }
}

/// The credentials of the scope's principal at a server whose credentials have become each user's
/// own since the request came: those that the request has do not speak of that server. Whatever is
/// made with them belongs to the principal and to nobody else.
fn made_anew(scope: &Scope, base: &Upstream) -> UserCredentials {
    let per_user = per_user([base.config()]);
    let principal = &scope.principal;
    let made = per_user.credentials(principal.credentials(), |name| principal.claim(name), []);
    made.unwrap_or_else(|| principal.credentials())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use crossbeam_channel::bounded;

    use super::*;
    use crate::access::policy::{Lease, Nearness, Principal};
    use crate::budget::Budget;
    use crate::catalogue;
    use crate::config::{Config, Overrides};
    use crate::limits::{Limits, USER_UPSTREAMS_SWEEP};
    use crate::pipeline::{AccessLog, Owners, ToSessions};
    use crate::session::{self, Left, SessionsConfig};
    use crate::upstream::Upstreams;
    use crate::upstream::authorization::{Authorizations, Setup};

    const TIME: Duration = Duration::from_secs(60);

    /// A scope that was made before any server's credentials were each user's own.
    fn early(name: Option<&str>) -> Scope {
        let name: Option<Arc<str>> = name.map(Into::into);
        let without = Principal::without_key(Nearness::Remote);
        let principal = Arc::new(Principal { id: name.clone(), name, ..without });
        let (only, narrowed, charged, lease, user) = (None, None, None, None, None);
        Scope { principal, only, narrowed, admission: 0, charged, lease, user }
    }

    fn pipeline(config: &str) -> Pipeline {
        let config = Config::parse(config, &|_: &str| None, &Overrides::default()).unwrap();
        let limits = Arc::new(Limits::default());
        let (stop, _) = bounded(1);
        let sessions = SessionsConfig {
            key: [0; 32],
            sessions: 8,
            sessions_per_key: 8,
            idle: TIME,
            parked: TIME,
            events: Arc::new(std::sync::Mutex::new(Vec::<Left>::new())),
            ended: Vec::new(),
            writer: None,
        };
        let (sessions, thread) = session::start(sessions, stop).unwrap();
        thread.detach();
        let (owners, budget) = (Owners::default(), Budget::new(limits.buffered_bytes));
        let (tell, _) = bounded(100);
        let upstreams = Upstreams::start(
            &config.upstreams,
            limits,
            budget.clone(),
            tell,
            Arc::new(ToSessions::new(sessions.clone(), owners.clone())),
            BTreeMap::new(),
            Authorizations::start(Setup::default()).unwrap(),
        );
        let catalogue = catalogue::Shared::new(8, budget);
        let (upstreams, told) = (Arc::new(upstreams.unwrap()), AccessLog { bodies: false });
        Pipeline::new(catalogue, upstreams, [], owners, sessions, told, TIME)
    }

    /// A token whose user has rights for a while.
    #[derive(Debug)]
    struct Token(Arc<Principal>, AtomicBool);

    impl Lease for Token {
        fn principal(&self) -> &Arc<Principal> {
            &self.0
        }
        fn present(&self) -> Option<Arc<Principal>> {
            self.1.load(Ordering::Relaxed).then(|| self.0.clone())
        }
        fn is_good(&self) -> bool {
            true
        }
        fn ends(&self) -> Instant {
            Instant::now()
        }
    }

    #[test]
    fn what_a_user_has_at_a_server_ends_once_the_last_token_gives_no_rights() {
        let pipeline = pipeline(
            r#"{"api_keys":[{"name":"k","key":"0123456789abcdef01234"}],"mcp_servers":{"a":{
                "url":"http://127.0.0.1:9/","headers":{"X-User":"${user.name}"}}}}"#,
        );
        let server = ServerName::parse("a").unwrap();
        let scope = early(Some("alice"));
        let token = || Arc::new(Token(scope.principal.clone(), AtomicBool::new(true)));
        let come = |token: &Arc<Token>| {
            let scope = Scope { lease: Some(token.clone()), ..scope.clone() };
            pipeline.upstream_for(&scope, &server).unwrap();
        };
        let count = || pipeline.upstreams.count_users().0;
        let end = |token: &Token| token.1.store(false, Ordering::Relaxed);
        let (old, new) = (token(), token());
        come(&old);
        come(&new);
        end(&old);
        pipeline.end_users_without_rights();
        assert_eq!(count(), 1, "the user came last with the other token");
        end(&new);
        pipeline.end_users_without_rights();
        assert_eq!(count(), 0);
        // A call that came before the reload may make it late.
        come(&new);
        assert_eq!(count(), 1);
        let deadline = Instant::now() + 4 * USER_UPSTREAMS_SWEEP;
        while count() > 0 {
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    #[test]
    fn whoever_came_before_a_server_was_each_user_s_own_is_nobody_else_there() {
        let pipeline = pipeline(
            r#"{"api_keys":[{"name":"k","key":"0123456789abcdef01234"}],"mcp_servers":{"a":{
                "url":"http://127.0.0.1:9/","headers":{"X-User":"${user.name}"}}}}"#,
        );
        let server = ServerName::parse("a").unwrap();
        let of = |name| pipeline.upstream_for(&early(name), &server);
        let (alice, bob) = (of(Some("alice")).unwrap(), of(Some("bob")).unwrap());
        assert!(!Arc::ptr_eq(&alice, &bob));
        assert!(Arc::ptr_eq(&alice, &of(Some("alice")).unwrap()));
        assert_eq!(alice.name_of_user().as_deref(), Some("alice"));
        // Only a caller without a name is nobody.
        assert!(of(None).unwrap_err().to_string().contains("the caller has no name"));
    }
}
