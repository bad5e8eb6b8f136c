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
    let made = per_user.credentials(principal.user(), |name| principal.claim(name), []);
    made.unwrap_or_else(|| principal.user())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use crossbeam_channel::bounded;

    use super::*;
    use crate::access::policy::{Nearness, Principal};
    use crate::budget::Budget;
    use crate::catalogue;
    use crate::config::{Config, Overrides};
    use crate::limits::Limits;
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
