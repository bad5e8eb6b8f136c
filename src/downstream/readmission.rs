//! Changes of the admission while the gateway runs: who may come, and what becomes of those who are
//! there.

use std::sync::Arc;

use super::Front;
use super::admission::Admission;
use super::stateless::parked_calls::ParkedCalls;
use crate::access::policy::Scope;
use crate::error::CallError;
use crate::session::{Owner, Rescope, Rescoped};

/// The changes of a reload to the admission, before sessions have them.
#[derive(Debug)]
pub struct Readmitted {
    admission: Arc<Admission>,
    /// The names of keys whose rights differ.
    differ: Vec<Arc<str>>,
}

impl Front {
    /// Sets the admission; requests that were admitted before go on. Tasks and parked calls of
    /// keys for which `ends` is true are forgotten.
    pub fn readmit(
        &self,
        mut admission: Admission,
        ends: impl Fn(Option<&str>) -> bool,
    ) -> Readmitted {
        let mut current = self.admission.write();
        // This comes before another client can get the name of a key that has ended.
        let names = current.keys.iter().filter_map(|key| key.principal.id.as_ref());
        let ended: Vec<Arc<str>> = names.filter(|name| ends(Some(name))).cloned().collect();
        ended.iter().for_each(|name| self.pipeline.forget_tasks_of(name));
        ended.iter().for_each(|name| self.pipeline.end_users_of(name));
        let parked = self.parked.take_all_of(&ended);
        admission.generation = current.generation + 1;
        let admission = Arc::new(admission);
        let old = std::mem::replace(&mut *current, admission.clone());
        self.tokens.set(admission.verifier.clone());
        drop(current);
        // A request that was admitted before may have made another one.
        ended.iter().for_each(|name| self.pipeline.end_users_of(name));
        self.pipeline.end_users_without_rights();
        ParkedCalls::cancel(parked);
        ParkedCalls::cancel(self.parked.take_without_rights());
        self.watchers.end_before(admission.generation);
        let differ = admission.differing_from(&old);
        Readmitted { admission, differ }
    }

    /// Gives sessions the present servers, as far as their keys may see them, and ends those of
    /// keys for which `ends` is true.
    ///
    /// # Errors
    /// The session thread takes no more commands; sessions are as they were.
    pub fn rescope(
        &self,
        readmitted: Readmitted,
        ends: impl Fn(Option<&str>) -> bool + Send + 'static,
    ) -> Result<(), CallError> {
        let Readmitted { admission, differ } = readmitted;
        // So may one that was admitted before the users' were ended.
        self.pipeline.end_users_without_rights();
        // The references are weak, because the session thread keeps the last of these closures.
        let (pipeline, anonymous) = (Arc::downgrade(&self.pipeline), self.anonymous.clone());
        let generation = admission.generation;
        let sees = move |owner: &Owner| {
            let name = owner.principal.as_deref();
            // A session that this admission let in belongs to the present key.
            if owner.admission < generation && ends(name) {
                return None;
            }
            let (principal, differs, policy) = match (name, &owner.lease) {
                // Another token of the user may have other rights: those of the one with which
                // the client came last decide what the session is told.
                (Some(_), Some(lease)) => {
                    let present = lease.present()?;
                    let policy = Some(present.policy.clone());
                    (present, false, policy)
                }
                (Some(name), None) => {
                    let principal = admission.principal_named(name)?.clone();
                    (principal, differ.iter().any(|it| **it == *name), None)
                }
                (None, _) => (anonymous.clone(), false, None),
            };
            let (only, narrowed) = (owner.only.clone(), owner.narrowed.clone());
            let charged = match &principal.id {
                Some(id) => admission.charged_identity(id),
                None => owner.charged.clone(),
            };
            let (of_scope, lease) = (charged.clone(), owner.lease.clone());
            let scope = Scope {
                principal,
                only,
                narrowed,
                admission: generation,
                charged: of_scope,
                lease,
                user: None,
            };
            let servers = pipeline.upgrade()?.servers(&scope);
            Some(Rescoped { servers, differs, policy, charged })
        };
        self.sessions.rescope(Rescope { admission: generation, sees: Box::new(sees) })
    }
}
