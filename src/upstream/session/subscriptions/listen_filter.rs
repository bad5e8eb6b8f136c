//! What a modern upstream is listened to for: changes of its lists, as far as it offers that,
//! and of the resources that somebody has subscribed to. How it is asked is the transports'
//! affair; the answer to it is heard here (2026-07-28, basic/patterns/subscriptions).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::error::Stage;
use crate::limits::CONTROL_TIMEOUT;
use crate::protocol::call::Outgoing;
use crate::protocol::jsonrpc::{RequestId, RpcError, code};
use crate::protocol::legacy::Initialized;
use crate::protocol::listening::Filter;
use crate::protocol::method::Method;
use crate::protocol::modern::key;
use crate::protocol::raw::{Raw, RawObject};
use crate::wait::{Wait, Woken};

use super::DesiredSubscriptions;
use crate::upstream::failure::Failure;

/// See above.
#[derive(Default)]
pub(crate) struct Subscriptions {
    desired: Arc<DesiredSubscriptions>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Without resources.
    lists: Filter,
    /// Whether single resources can be listened to.
    serves_resources: bool,
    /// Resources that somebody is about to subscribe to.
    coming: BTreeSet<String>,
    /// Counts what was wanted.
    version: u64,
    /// The resources of the version that was asked for last.
    asked: BTreeSet<String>,
    /// What the upstream has agreed to last, and to which version.
    agreed: Option<(u64, BTreeSet<String>)>,
    /// The last version that it has refused.
    refused: Option<u64>,
    /// Requests that the upstream has on a wire which all share, and their versions.
    requests: Vec<(u64, u64)>,
    /// The upstream has no such request.
    is_unserved: bool,
    waiting: Vec<Arc<Wait>>,
}

impl State {
    /// Whether the upstream tells of changes of the resource, once it has said so.
    fn answer(&self, version: u64, uri: &str) -> Option<bool> {
        match &self.agreed {
            Some((agreed, uris)) if *agreed >= version => Some(uris.contains(uri)),
            _ => self.refused.filter(|refused| *refused >= version).map(|_| false),
        }
    }

    /// Whoever is to be told.
    fn woken(&mut self) -> Vec<Arc<Wait>> {
        std::mem::take(&mut self.waiting)
    }
}

impl Subscriptions {
    pub(crate) fn new(desired: Arc<DesiredSubscriptions>) -> Subscriptions {
        Subscriptions { desired, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Contact was made anew: nothing is agreed on.
    pub(crate) fn begin(&self, initialized: &Initialized) {
        let (lists, serves_resources) = offered(initialized);
        // Whoever begins asks for what is wanted, so for these.
        let desired = self.desired.uris();
        let mut state = self.lock();
        state.asked = desired.into_iter().collect();
        state.version += 1;
        (state.lists, state.serves_resources) = (lists, serves_resources);
        (state.agreed, state.refused, state.is_unserved) = (None, None, false);
        state.requests.clear();
    }

    /// What is wanted now, and which version that is; none where there is nothing to listen to.
    pub(crate) fn wanted(&self) -> (u64, Option<Filter>) {
        let desired: BTreeSet<String> = self.desired.uris().into_iter().collect();
        let mut state = self.lock();
        state.coming.retain(|uri| !desired.contains(uri));
        let mut uris = desired;
        uris.extend(state.coming.iter().cloned());
        if !state.serves_resources {
            uris.clear();
        }
        state.asked.clone_from(&uris);
        let filter = Filter { uris: uris.into_iter().collect(), ..state.lists.clone() };
        (state.version, (filter != Filter::default()).then_some(filter))
    }

    /// Whether something else is wanted than in that version.
    pub(crate) fn has_changed(&self, version: u64) -> bool {
        self.lock().version > version
    }

    /// The upstream has agreed to listen to a version.
    pub(crate) fn agreed(&self, version: u64, filter: Filter) {
        let woken = {
            let mut state = self.lock();
            if state.agreed.as_ref().is_none_or(|(agreed, _)| *agreed <= version) {
                state.agreed = Some((version, filter.uris.into_iter().collect()));
            }
            state.woken()
        };
        woken.iter().for_each(|wait| wait.bell().ring());
    }

    /// The upstream has refused a version.
    pub(crate) fn refused(&self, version: u64) {
        let woken = {
            let mut state = self.lock();
            state.refused = state.refused.max(Some(version));
            state.woken()
        };
        woken.iter().for_each(|wait| wait.bell().ring());
    }

    /// Wants to hear of a resource; `renew` asks the upstream for what is wanted then. Waits
    /// for its word, for [`CONTROL_TIMEOUT`] at most. None if it was given; else why not.
    pub(crate) fn add(
        &self,
        uri: &str,
        wait: &Arc<Wait>,
        renew: &dyn Fn(),
    ) -> Result<Option<RpcError>, Failure> {
        let (version, is_new) = {
            let mut state = self.lock();
            if !state.serves_resources {
                let what = "The server does not tell of changes of resources.";
                return Ok(Some(RpcError::new(code::METHOD_NOT_FOUND, what)));
            }
            let is_new = !state.asked.contains(uri);
            if is_new {
                state.coming.insert(uri.to_owned());
                state.version += 1;
            }
            (state.version, is_new)
        };
        if is_new {
            renew();
        }
        match self.answer(version, uri, wait) {
            Ok(Some(true)) => Ok(None),
            other => {
                self.lock().coming.remove(uri);
                let what = match other? {
                    Some(_) => "The server does not tell of changes of this resource.",
                    None => "The server did not confirm the subscription in time.",
                };
                Ok(Some(RpcError::new(code::INVALID_PARAMS, what)))
            }
        }
    }

    fn answer(
        &self,
        version: u64,
        uri: &str,
        wait: &Arc<Wait>,
    ) -> Result<Option<bool>, Failure> {
        let _bound = wait.within(CONTROL_TIMEOUT.min(wait.left() / 2));
        loop {
            {
                let mut state = self.lock();
                if let Some(answer) = state.answer(version, uri) {
                    return Ok(Some(answer));
                }
                if !state.waiting.iter().any(|other| Arc::ptr_eq(other, wait)) {
                    state.waiting.push(wait.clone());
                }
            }
            match wait.until(None, Some(Duration::from_secs(1))) {
                Ok(Woken::Tick | Woken::Bell | Woken::Ready) => (),
                Err(reason) => {
                    self.lock().waiting.retain(|other| !Arc::ptr_eq(other, wait));
                    return match wait.interrupted() {
                        Some(_) => Err(Failure::interrupted(reason, Stage::Answer, true)),
                        None => Ok(None),
                    };
                }
            }
        }
    }

    /// Wants to hear of a resource no longer. Whoever wants it is no longer in [`DesiredSubscriptions`].
    pub(crate) fn remove(&self, uri: &str, renew: &dyn Fn()) {
        {
            let mut state = self.lock();
            state.coming.remove(uri);
            state.version += 1;
        }
        renew();
    }

    /// The upstream is asked for a version under this id, on a wire that all share.
    pub(crate) fn enter(&self, id: u64, version: u64) {
        self.lock().requests.push((id, version));
    }

    /// The upstream has no such request: it is not asked again in this contact.
    pub(crate) fn unserved(&self) {
        self.lock().is_unserved = true;
    }

    /// Whether the upstream has a request, or there is nothing to ask it for.
    pub(crate) fn is_served(&self) -> bool {
        let wants_resources = !self.desired.has_no_subscriptions();
        let state = self.lock();
        let is_wanted = state.lists != Filter::default()
            || (state.serves_resources && (wants_resources || !state.coming.is_empty()));
        !state.requests.is_empty() || state.is_unserved || !is_wanted
    }

    /// Whether the upstream has a request.
    pub(crate) fn is_asked(&self) -> bool {
        !self.lock().requests.is_empty()
    }

    /// The version asked for under this id, if it is one of these requests.
    pub(crate) fn version_of(&self, id: u64) -> Option<u64> {
        self.lock().requests.iter().find(|(known, _)| *known == id).map(|(_, version)| *version)
    }

    /// The request of this id is over.
    pub(crate) fn leave(&self, id: u64) {
        self.lock().requests.retain(|(known, _)| *known != id);
    }

    /// Takes out the requests before the one of this id, which are not needed any more.
    pub(crate) fn older(&self, id: u64) -> Vec<u64> {
        let mut state = self.lock();
        let (old, rest) = state.requests.iter().partition(|(known, _)| *known < id);
        state.requests = rest;
        let old: Vec<(u64, u64)> = old;
        old.into_iter().map(|(id, _)| id).collect()
    }
}

/// What the upstream tells of: changes of lists, and whether of single resources.
pub(crate) fn offered(initialized: &Initialized) -> (Filter, bool) {
    let capabilities: Value =
        serde_json::from_str(initialized.capabilities.get()).unwrap_or_default();
    let has = |what: &str, how: &str| {
        let flag = capabilities.get(what).and_then(|it| it.get(how));
        flag.and_then(Value::as_bool).unwrap_or_default()
    };
    let lists = Filter {
        tools: has("tools", "listChanged"),
        prompts: has("prompts", "listChanged"),
        resources: has("resources", "listChanged"),
        uris: Vec::new(),
    };
    (lists, has("resources", "subscribe"))
}

/// `subscriptions/listen` as the gateway sends it.
pub(crate) fn listen(filter: &Filter) -> Outgoing<'static> {
    let mut params = RawObject::default();
    params.set("notifications", filter.to_text());
    Outgoing::own(Method::SubscriptionsListen, params)
}

/// What the upstream agrees to, and to the request of which id; none if it says neither.
pub(crate) fn acknowledged(params: Option<&Raw>) -> Option<(u64, Filter)> {
    let fields = RawObject::parse(params?.get()).ok()?;
    let filter = Filter::read(&fields).ok()?;
    let meta = RawObject::parse(fields.get("_meta")?).ok()?;
    let id = RequestId::parse(meta.get(key::SUBSCRIPTION_ID)?)?;
    let id = id.as_u64().or_else(|| id.as_json().trim_matches('"').parse().ok())?;
    Some((id, filter))
}

/// The parameters of a notification without the request that they belong to: that is the
/// gateway's own.
pub(crate) fn without_id(params: Raw) -> Raw {
    let Ok(mut fields) = RawObject::parse(params.get()) else { return params };
    let Some(meta) = fields.get("_meta").map(str::to_owned) else { return params.clone() };
    let Ok(mut meta) = RawObject::parse(&meta) else { return params.clone() };
    meta.remove(key::SUBSCRIPTION_ID);
    if meta.is_empty() {
        fields.remove("_meta");
        return Raw::from_valid(fields.to_text());
    }
    let meta = meta.to_text();
    fields.set("_meta", meta);
    Raw::from_valid(fields.to_text())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriptions(capabilities: &str) -> Subscriptions {
        let subscriptions = Subscriptions::default();
        subscriptions.begin(&Initialized {
            revision: crate::protocol::revision::Revision::LATEST_MODERN,
            capabilities: Raw::from_valid(capabilities.to_owned()),
            server_info: None,
            instructions: None,
            cut: Vec::new(),
        });
        subscriptions
    }

    #[test]
    fn only_what_is_offered_is_wanted() {
        let (_, filter) =
            subscriptions(r#"{"tools":{},"resources":{"subscribe":true}}"#).wanted();
        assert_eq!(filter, None);
        let some = r#"{"tools":{"listChanged":true},"prompts":{"listChanged":false}}"#;
        let (_, filter) = subscriptions(some).wanted();
        assert_eq!(filter, Some(Filter { tools: true, ..Filter::default() }));
    }

    #[test]
    fn a_resource_is_added_when_the_upstream_says_so() {
        let subscriptions = subscriptions(r#"{"resources":{"subscribe":true}}"#);
        let wait = Wait::plain(Duration::from_secs(60)).unwrap();
        let answer = |uris: &[&str]| {
            let uris = uris.iter().map(|uri| (*uri).to_owned()).collect();
            let (version, filter) = subscriptions.wanted();
            assert!(filter.is_some());
            subscriptions.agreed(version, Filter { uris, ..Filter::default() });
        };
        let added = |uri: &str, agreed: &[&str]| {
            subscriptions.add(uri, &wait, &|| answer(agreed)).unwrap().is_none()
        };
        assert!(added("a:", &["a:"]));
        assert!(!added("b:", &["a:"]));
        // Refused ones are not asked for again by the way.
        assert_eq!(subscriptions.wanted().1.unwrap().uris, ["a:"]);
        let short = Wait::plain(Duration::from_secs(3)).unwrap();
        let silent = subscriptions.add("c:", &short, &|| ()).unwrap().unwrap();
        assert!(silent.message.contains("in time"));
        assert_eq!(short.interrupted(), None);
    }

    #[test]
    fn the_request_of_a_notification_is_not_passed_on() {
        let params = |text: &str| Raw::from_valid(text.to_owned());
        let id = r#""io.modelcontextprotocol/subscriptionId":7"#;
        let stripped = without_id(params(&format!(r#"{{"uri":"a:","_meta":{{{id}}}}}"#)));
        assert_eq!(stripped.get(), r#"{"uri":"a:"}"#);
        let stripped = without_id(params(&format!(r#"{{"_meta":{{"x":1,{id}}},"uri":"a:"}}"#)));
        assert_eq!(stripped.get(), r#"{"_meta":{"x":1},"uri":"a:"}"#);
        let ack = params(&format!(r#"{{"notifications":{{}},"_meta":{{{id}}}}}"#));
        assert_eq!(acknowledged(Some(&ack)), Some((7, Filter::default())));
        assert_eq!(acknowledged(None), None);
    }
}
