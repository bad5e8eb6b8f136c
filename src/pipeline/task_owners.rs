//! The owners of tasks. Servers see one gateway behind all its clients, so the gateway binds each
//! task to the principal that began it (2025-11-25, basic/utilities/tasks, Task Isolation and
//! Access Control). The bindings end with the process. Time is an argument.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use crate::limits::{TASK_ID_BYTES_MAX, TASKS_MAX};
use crate::protocol::call::PrincipalId;
use crate::protocol::for_revision::Output;
use crate::protocol::server_name::ServerName;
use crate::protocol::session_route::SessionKind;
use crate::sync::Mutex;

/// A server's task by the server's own id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TaskKey {
    pub(super) server: ServerName,
    pub(super) id: String,
}

#[derive(Debug)]
struct Binding {
    principal: PrincipalId,
    /// The session with the server in which the task is named. Ids are unique within a session at
    /// least: the children of a server over stdio may all count from 1.
    session: SessionKind,
    /// The time at which the server may delete the task; none if it keeps the task.
    until: Option<Instant>,
    /// The announced type of the task's result.
    output: Output,
}

impl Binding {
    fn holds(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// The tasks that were begun through the gateway, and their principals. At the bound, expired
/// tasks are forgotten first, then the oldest of the principal that has most, so that none can
/// crowd out the others.
#[derive(Debug)]
pub(super) struct TaskOwners {
    tasks_max: usize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_task: HashMap<Arc<TaskKey>, Vec<Binding>>,
    /// The tasks of each principal, in the order in which they were begun.
    by_principal: HashMap<PrincipalId, VecDeque<Arc<TaskKey>>>,
    /// The number of bindings.
    count: usize,
}

impl Default for TaskOwners {
    fn default() -> TaskOwners {
        TaskOwners::bounded(TASKS_MAX)
    }
}

impl TaskOwners {
    fn bounded(tasks_max: usize) -> TaskOwners {
        TaskOwners { tasks_max, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }

    /// Binds a task that has begun. A task whose id is too long is not remembered, and so unknown
    /// from then on.
    pub(super) fn bind(
        &self,
        now: Instant,
        principal: &PrincipalId,
        key: TaskKey,
        session: SessionKind,
        ttl: Option<Duration>,
        output: Output,
    ) {
        if key.id.len() > TASK_ID_BYTES_MAX {
            return;
        }
        let until = ttl.and_then(|ttl| now.checked_add(ttl));
        let mut known = self.known();
        let key = Arc::new(key);
        // A server that counts anew has forgotten the task that had this id before.
        known.forget(&key, |old| {
            old.principal == *principal
                || (session == SessionKind::Shared && old.session == SessionKind::Shared)
        });
        if known.count >= self.tasks_max {
            known.make_room(now);
        }
        known.count += 1;
        known.by_principal.entry(principal.clone()).or_default().push_back(key.clone());
        let binding = Binding { principal: principal.clone(), session, until, output };
        known.by_task.entry(key).or_default().push(binding);
    }

    /// True if a task that is named in such a session belongs to this principal.
    pub(super) fn owns(
        &self,
        now: Instant,
        principal: &PrincipalId,
        key: &TaskKey,
        session: SessionKind,
    ) -> bool {
        let known = self.known();
        let mut bindings = known.of(now, key);
        // On the shared session the server would take the id for the task that another principal
        // has there.
        let shadows = |it: &Binding| {
            session == SessionKind::Shared
                && it.session == session
                && it.principal != *principal
        };
        bindings.clone().any(|it| it.principal == *principal) && !bindings.any(shadows)
    }

    /// The announced type of the result of a principal's task.
    pub(super) fn output(
        &self,
        now: Instant,
        principal: &PrincipalId,
        key: &TaskKey,
    ) -> Option<Output> {
        let known = self.known();
        let binding = known.of(now, key).find(|it| it.principal == *principal)?;
        Some(binding.output)
    }

    /// True if a task belongs to other principals and not to this one.
    pub(super) fn is_of_others(
        &self,
        now: Instant,
        principal: &PrincipalId,
        key: &TaskKey,
    ) -> bool {
        let known = self.known();
        let mut bindings = known.of(now, key).peekable();
        bindings.peek().is_some() && bindings.all(|it| it.principal != *principal)
    }

    /// The owner of a task that the server names on its shared session.
    pub(super) fn of_shared(&self, now: Instant, key: &TaskKey) -> Option<PrincipalId> {
        let known = self.known();
        let binding = known.of(now, key).find(|it| it.session == SessionKind::Shared)?;
        Some(binding.principal.clone())
    }

    /// Forgets the tasks of a principal that will not come again.
    pub(super) fn forget_all_of(&self, principal: &PrincipalId) {
        let mut known = self.known();
        while let Some(key) = known.oldest_of(principal) {
            known.forget(&key, |it| it.principal == *principal);
        }
    }

    /// Forgets the tasks of a server that was removed.
    pub(super) fn forget_all_at(&self, server: &ServerName) {
        let mut known = self.known();
        let theirs = |key: &&Arc<TaskKey>| key.server == *server;
        let keys: Vec<_> = known.by_task.keys().filter(theirs).cloned().collect();
        for key in &keys {
            known.forget(key, |_| true);
        }
    }
}

impl Known {
    fn of(&self, now: Instant, key: &TaskKey) -> impl Iterator<Item = &Binding> + Clone {
        let bindings = self.by_task.get(key).map(Vec::as_slice).unwrap_or_default();
        bindings.iter().filter(move |it| it.holds(now))
    }

    fn oldest_of(&self, principal: &PrincipalId) -> Option<Arc<TaskKey>> {
        self.by_principal.get(principal)?.front().cloned()
    }

    fn forget(&mut self, key: &Arc<TaskKey>, which: impl Fn(&Binding) -> bool) {
        let Some(bindings) = self.by_task.get_mut(key) else { return };
        for gone in bindings.extract_if(.., |it| which(it)) {
            self.count -= 1;
            if let Some(keys) = self.by_principal.get_mut(&gone.principal) {
                keys.retain(|it| it != key);
                if keys.is_empty() {
                    self.by_principal.remove(&gone.principal);
                }
            }
        }
        if bindings.is_empty() {
            self.by_task.remove(key);
        }
    }

    fn make_room(&mut self, now: Instant) {
        let is_over = |bindings: &Vec<Binding>| bindings.iter().any(|it| !it.holds(now));
        let over: Vec<_> = self
            .by_task
            .iter()
            .filter(|(_, bindings)| is_over(bindings))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &over {
            self.forget(key, |it| !it.holds(now));
        }
        if !over.is_empty() {
            return;
        }
        let most = self.by_principal.iter().max_by_key(|(_, keys)| keys.len());
        let Some(principal) = most.map(|(principal, _)| principal.clone()) else { return };
        if let Some(key) = self.oldest_of(&principal) {
            self.forget(&key, |it| it.principal == principal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> TaskKey {
        TaskKey { server: ServerName::parse("s").unwrap(), id: id.to_owned() }
    }

    fn named(name: &str) -> PrincipalId {
        PrincipalId::Key(name.into())
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_tasks_of_a_server_that_is_no_more_are_forgotten() {
        let (owners, now, a) = (TaskOwners::default(), Instant::now(), named("a"));
        let other = TaskKey { server: ServerName::parse("t").unwrap(), id: "1".to_owned() };
        owners.bind(now, &a, key("1"), SessionKind::Shared, None, Output::Object);
        owners.bind(now, &a, other.clone(), SessionKind::Shared, None, Output::Object);
        owners.forget_all_at(&ServerName::parse("s").unwrap());
        assert!(!owners.owns(now, &a, &key("1"), SessionKind::Shared));
        assert!(owners.owns(now, &a, &other, SessionKind::Shared));
    }

    #[test]
    fn the_result_of_a_task_is_announced_as_its_call_s() {
        let (owners, now, a) = (TaskOwners::default(), Instant::now(), named("a"));
        owners.bind(now, &a, key("1"), SessionKind::Shared, None, Output::Any);
        assert_eq!(owners.output(now, &a, &key("1")), Some(Output::Any));
        assert_eq!(owners.output(now, &named("b"), &key("1")), None);
    }

    #[test]
    fn a_task_is_its_principals_alone_until_its_time_is_over() {
        let (owners, now) = (TaskOwners::default(), Instant::now());
        let (a, b) = (named("a"), named("b"));
        owners.bind(now, &a, key("1"), SessionKind::Shared, Some(SECOND), Output::Object);
        for session in [SessionKind::Shared, SessionKind::Own] {
            assert!(owners.owns(now, &a, &key("1"), session));
            assert!(!owners.owns(now, &b, &key("1"), session));
            assert!(!owners.owns(now, &a, &key("2"), session));
            assert!(!owners.owns(now + SECOND, &a, &key("1"), session));
        }
        let other = TaskKey { server: ServerName::parse("t").unwrap(), id: "1".to_owned() };
        assert!(!owners.owns(now, &a, &other, SessionKind::Shared));
        assert!(owners.is_of_others(now, &b, &key("1")));
        assert!(!owners.is_of_others(now, &a, &key("1")));
        assert!(!owners.is_of_others(now, &b, &key("2")));
        assert_eq!(owners.of_shared(now, &key("1")), Some(a.clone()));
        assert_eq!(owners.of_shared(now + SECOND, &key("1")), None);
        // A session's id never counts as a key's name.
        let session = PrincipalId::Session("a".into());
        assert!(!owners.owns(now, &session, &key("1"), SessionKind::Shared));
    }

    #[test]
    fn equal_ids_of_two_sessions_are_told_apart() {
        let (owners, now) = (TaskOwners::default(), Instant::now());
        let (a, b) = (named("a"), named("b"));
        owners.bind(now, &a, key("1"), SessionKind::Own, None, Output::Object);
        owners.bind(now, &b, key("1"), SessionKind::Own, None, Output::Object);
        assert!(owners.owns(now, &a, &key("1"), SessionKind::Own));
        assert!(owners.owns(now, &b, &key("1"), SessionKind::Own));
        assert_eq!(owners.of_shared(now, &key("1")), None);
        // On the shared session the id means b's task from here on.
        owners.bind(now, &b, key("1"), SessionKind::Shared, None, Output::Object);
        assert!(owners.owns(now, &a, &key("1"), SessionKind::Own));
        assert!(!owners.owns(now, &a, &key("1"), SessionKind::Shared));
        assert!(owners.owns(now, &b, &key("1"), SessionKind::Shared));
        // And then a's task, when the server counts anew.
        owners.bind(now, &a, key("1"), SessionKind::Shared, None, Output::Object);
        assert!(owners.owns(now, &a, &key("1"), SessionKind::Shared));
        assert!(!owners.owns(now, &b, &key("1"), SessionKind::Shared));
    }

    #[test]
    fn the_bound_costs_what_is_over_and_then_the_oldest_of_whoever_has_most() {
        let (owners, now) = (TaskOwners::bounded(4), Instant::now());
        let (a, b) = (named("a"), named("b"));
        owners.bind(now, &b, key("b1"), SessionKind::Shared, None, Output::Object);
        owners.bind(now, &a, key("a1"), SessionKind::Shared, None, Output::Object);
        owners.bind(now, &a, key("a2"), SessionKind::Shared, Some(SECOND), Output::Object);
        owners.bind(now, &a, key("a3"), SessionKind::Shared, None, Output::Object);
        let kept = |at: Instant| {
            let keys = [(&b, "b1"), (&a, "a1"), (&a, "a2"), (&a, "a3"), (&a, "a4"), (&a, "a5")];
            keys.map(|(whose, id)| owners.owns(at, whose, &key(id), SessionKind::Shared))
        };
        owners.bind(now + SECOND, &a, key("a4"), SessionKind::Shared, None, Output::Object);
        assert_eq!(kept(now), [true, true, false, true, true, false]);
        owners.bind(now + SECOND, &a, key("a5"), SessionKind::Shared, None, Output::Object);
        assert_eq!(kept(now), [true, false, false, true, true, true]);
        assert_eq!(owners.known().count, 4);
        owners.forget_all_of(&a);
        assert_eq!(kept(now), [true, false, false, false, false, false]);
        owners.forget_all_of(&b);
        let known = owners.known();
        assert!(known.by_task.is_empty() && known.by_principal.is_empty() && known.count == 0);
    }

    #[test]
    fn a_task_with_an_endless_id_is_not_remembered() {
        let (owners, now) = (TaskOwners::default(), Instant::now());
        let id = "x".repeat(TASK_ID_BYTES_MAX + 1);
        owners.bind(now, &named("a"), key(&id), SessionKind::Shared, None, Output::Object);
        assert!(!owners.owns(now, &named("a"), &key(&id), SessionKind::Shared));
        // A time beyond the clock's range sets no end.
        owners.bind(
            now,
            &named("a"),
            key("1"),
            SessionKind::Shared,
            Some(Duration::MAX),
            Output::Object,
        );
        assert!(owners.owns(now, &named("a"), &key("1"), SessionKind::Shared));
    }
}
