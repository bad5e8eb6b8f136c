//! The resources to which a session is subscribed.

use std::collections::HashMap;
use std::sync::MutexGuard;

use super::Refused;
use crate::limits::SUBSCRIPTIONS_PER_SESSION_MAX;
use crate::protocol::server_name::ServerName;
use crate::protocol::session_route::SessionKind;
use crate::sync::Mutex;

/// A server, and its own URI of a resource.
pub(super) type Resource = (ServerName, String);

/// The resources, each with the URI that the client wrote, and the session with the server over
/// which the subscription goes: with a session of the client's own the subscription ends. None
/// once the session has ended: by this one lock a subscription is either collected at the end or
/// refused.
pub(super) struct Subscriptions(Mutex<Option<HashMap<Resource, (String, SessionKind)>>>);

impl Subscriptions {
    pub(super) fn new() -> Subscriptions {
        Subscriptions(Mutex::new(Some(HashMap::new())))
    }

    fn lock(&self) -> MutexGuard<'_, Option<HashMap<Resource, (String, SessionKind)>>> {
        self.0.lock()
    }

    pub(super) fn add(
        &self,
        resource: Resource,
        asked: &str,
        over: SessionKind,
        is_heard: impl Fn(&ServerName) -> bool,
    ) -> Result<(), Refused> {
        let mut resources = self.lock();
        let resources = resources.as_mut().ok_or(Refused::Ended)?;
        // This check holds the lock, so that a change of rights, which then takes subscriptions
        // away, misses none.
        if !is_heard(&resource.0) {
            return Err(Refused::NotHeard);
        }
        let is_new = !resources.contains_key(&resource);
        if is_new && resources.len() >= SUBSCRIPTIONS_PER_SESSION_MAX {
            return Err(Refused::TooMany);
        }
        resources.insert(resource, (asked.to_owned(), over));
        Ok(())
    }

    pub(super) fn has(&self, resource: &Resource) -> bool {
        self.lock().as_ref().is_some_and(|resources| resources.contains_key(resource))
    }

    /// The URI with which the client subscribed over such a session, if it has.
    pub(super) fn asked(&self, resource: &Resource, over: SessionKind) -> Option<String> {
        let resources = self.lock();
        let (asked, mine) = resources.as_ref()?.get(resource)?;
        (*mine == over).then(|| asked.clone())
    }

    pub(super) fn remove(&self, resource: &Resource) -> bool {
        self.lock().as_mut().is_some_and(|resources| resources.remove(resource).is_some())
    }

    /// Removes subscriptions at servers that the session may not see. Returns those that it had
    /// on shared sessions.
    pub(super) fn narrow(&self, is_heard: impl Fn(&ServerName) -> bool) -> Vec<Resource> {
        let mut resources = self.lock();
        let Some(resources) = resources.as_mut() else { return Vec::new() };
        let gone = resources.extract_if(|(server, _), _| !is_heard(server));
        let shared = gone.filter(|(_, (_, over))| *over == SessionKind::Shared);
        shared.map(|(resource, _)| resource).collect()
    }

    /// The URIs of a server's resources to which the session is subscribed over a shared session.
    pub(super) fn shared_at(&self, server: &ServerName) -> Vec<String> {
        let resources = self.lock();
        let all = resources.iter().flatten();
        let here =
            all.filter(|((of, _), (_, over))| of == server && *over == SessionKind::Shared);
        here.map(|((_, uri), _)| uri.clone()).collect()
    }

    /// Removes all subscriptions; none can be added from here on. Returns those that it had on
    /// shared sessions.
    pub(super) fn end(&self) -> Vec<Resource> {
        let all = self.lock().take().unwrap_or_default();
        let shared = all.into_iter().filter(|(_, (_, over))| *over == SessionKind::Shared);
        shared.map(|(resource, _)| resource).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(uri: &str) -> Resource {
        (ServerName::parse("a").unwrap(), uri.to_owned())
    }

    #[test]
    fn what_comes_after_the_end_is_refused() {
        let subscriptions = Subscriptions::new();
        subscriptions.add(resource("x:"), "x:", SessionKind::Shared, |_| true).unwrap();
        subscriptions.add(resource("o:"), "o:", SessionKind::Own, |_| true).unwrap();
        assert_eq!(subscriptions.asked(&resource("o:"), SessionKind::Shared), None);
        assert_eq!(subscriptions.end(), [resource("x:")]);
        assert_eq!(
            subscriptions.add(resource("y:"), "y:", SessionKind::Shared, |_| true),
            Err(Refused::Ended)
        );
        assert_eq!(subscriptions.asked(&resource("x:"), SessionKind::Shared), None);
        assert!(!subscriptions.remove(&resource("x:")));
        assert!(subscriptions.end().is_empty());
    }

    #[test]
    fn at_the_bound_what_is_there_can_be_added_again() {
        let subscriptions = Subscriptions::new();
        for n in 0..SUBSCRIPTIONS_PER_SESSION_MAX {
            subscriptions
                .add(resource(&format!("x:{n}")), "x:", SessionKind::Own, |_| true)
                .unwrap();
        }
        assert_eq!(
            subscriptions.add(resource("y:"), "y:", SessionKind::Own, |_| true),
            Err(Refused::TooMany)
        );
        subscriptions.add(resource("x:0"), "x:", SessionKind::Own, |_| true).unwrap();
    }
}
