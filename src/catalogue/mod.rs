//! The catalogue: the offered items and their servers, an immutable snapshot that is swapped
//! whole. Lists are served from it and calls are routed by it.

mod clashes;
mod differing;
mod held;
pub mod left_out;
pub mod merge;
pub mod name;
pub mod pages;
pub mod pins;
mod published;
pub mod refresher;
mod seen;
mod steps;
pub mod store;
pub mod template;
pub mod template_set;
#[cfg(test)]
mod tests;
mod uri;
pub mod views;
mod waiting;
mod withheld;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use crate::config::Pin;
use crate::error::{HttpRefusal, PinCause, Stage};
use crate::limits::NEAR_NAMES_MAX;
use crate::protocol::call::Kind;
use crate::protocol::for_revision::Output;
use crate::protocol::legacy::Initialized;
use crate::protocol::mirror::Mirror;
use crate::protocol::modern::Freshness;
use crate::protocol::owners::Owners;
use crate::protocol::raw::{Raw, RawObject};
use crate::protocol::server_name::ServerName;
use left_out::LeftOut;
use merge::ServerLabel;
use pins::Subject;
use seen::SeenItems;
use template_set::TemplateSet;
use withheld::Guarded;

/// The memory of a snapshot.
pub use held::HeldBytes;
/// The snapshot that is served at present.
pub use published::{Shared, ViewOf};
/// The servers and items that a client sees.
pub use seen::Sight;
/// The bound on the cost of a look-up.
pub use steps::Steps;
/// The views of a server for `/status`.
pub use views::ViewsTold;

/// A tool, prompt, resource or template of a server.
#[derive(Debug)]
pub struct Item {
    /// The item's kind.
    pub kind: Kind,
    /// The item's server.
    pub server: ServerName,
    /// The name or URI that the server gives the item.
    pub own: String,
    /// The name or URI that clients use.
    pub offered: String,
    /// The name that policies match.
    pub qualified: String,
    /// The item's object with its offered name.
    pub offered_object: Raw,
    /// The item's object as its server wrote it.
    pub own_object: Raw,
    /// True if the item has changed since it was pinned, or waits to be pinned: then it is
    /// neither listed nor usable.
    pub is_withheld: bool,
    /// The parameters that a tool wants mirrored into headers, or the fault in its annotations.
    pub mirrors: Result<Vec<Mirror>, String>,
    /// The type of a tool's structured result.
    pub output: Output,
    /// The server's description and alias.
    pub label: Arc<ServerLabel>,
    /// The item for clients that see no other server, where it differs: its URIs, and names
    /// without a prefix, need not name the server, and so tell of no other server.
    pub alone: Option<Arc<Item>>,
}

impl Item {
    fn is_same(&self, other: &Item) -> bool {
        self.server == other.server
            && self.own == other.own
            && self.is_withheld == other.is_withheld
            && self.own_object == other.own_object
            && self.offered_object == other.offered_object
            && self.label == other.label
    }

    /// True if the tool's server says that calling the tool twice does no more than calling it
    /// once.
    pub fn is_safe_to_repeat(&self) -> bool {
        let fields = RawObject::parse(self.own_object.get()).ok();
        let annotations = fields.as_ref().and_then(|fields| fields.get("annotations"));
        let hints = annotations.and_then(|hints| RawObject::parse(hints).ok());
        hints.is_some_and(|hints| {
            ["readOnlyHint", "idempotentHint"].iter().any(|it| hints.get(it) == Some("true"))
        })
    }
}

/// The state of a server, as far as its lists are concerned.
#[derive(Debug, Clone, PartialEq)]
pub enum Health {
    /// The server has not answered yet.
    Connecting,
    /// The server has answered and lists.
    Well,
    /// The server cannot be used at present; its last lists still stand.
    Failed {
        /// The stage at which the last attempt failed.
        stage: Stage,
        /// The failure.
        message: String,
        /// The details of a refusal over HTTP.
        refusal: Option<Box<HttpRefusal>>,
    },
}

/// The state of a server's pins.
#[derive(Debug, Clone, PartialEq)]
pub struct Pinned {
    /// The treatment of a change.
    pub pin: Pin,
    /// The number of pinned tools.
    pub n_pinned: usize,
    /// Tools that have changed, by their own names, and the time at which that was noticed, in
    /// seconds since the epoch.
    pub changed: BTreeMap<String, u64>,
    /// Changed items of other kinds, and instructions, in the same way.
    pub others: BTreeMap<Subject, BTreeMap<String, u64>>,
    /// Items among `changed` and `others` that have no pin, and the reason why each has none.
    pub causes: BTreeMap<(Subject, String), PinCause>,
}

impl Pinned {
    /// The reason why an item is withheld.
    pub fn cause(&self, subject: Subject, own: &str) -> PinCause {
        if self.causes.is_empty() {
            return PinCause::Changed;
        }
        let cause = self.causes.get(&(subject, own.to_owned()));
        cause.copied().unwrap_or(PinCause::Changed)
    }

    fn changed(&self, subject: Subject) -> Option<&BTreeMap<String, u64>> {
        if subject == Subject::Tool { Some(&self.changed) } else { self.others.get(&subject) }
    }

    fn changed_mut(&mut self, subject: Subject) -> &mut BTreeMap<String, u64> {
        match subject {
            Subject::Tool => &mut self.changed,
            Subject::Prompt | Subject::Resource | Subject::Template | Subject::Instructions => {
                self.others.entry(subject).or_default()
            }
        }
    }

    /// True if the item must be neither used nor listed.
    pub fn withholds(&self, subject: Subject, own: &str) -> bool {
        self.pin.withholds()
            && self.changed(subject).is_some_and(|changed| changed.contains_key(own))
    }
}

/// A server's state, without its items.
#[derive(Debug, Clone)]
pub struct Server {
    /// The connection's state.
    pub health: Health,
    /// True if the server has ever answered.
    pub has_answered: bool,
    /// The server's last introduction.
    pub initialized: Option<Arc<Initialized>>,
    /// Items of the server that are not offered.
    pub left_out: LeftOut,
    /// The lists that an earlier process has stored: the server has not given them anew yet.
    pub stale: HashSet<Kind>,
    /// The server's pins, where it has any.
    pub pinned: Option<Pinned>,
    /// The freshness that the server gave its lists, and the time at which they were read.
    pub read: HashMap<Kind, (Freshness, Instant)>,
    /// The time since when its lists are awaited, until it has answered or failed.
    pub connecting_since: Instant,
    /// The time at which each list was requested last, with or without success.
    pub asked: HashMap<Kind, Instant>,
}

impl Server {
    /// True if one of its lists is old: of an earlier process, or from before the server failed
    /// or was configured anew.
    pub fn is_stale(&self) -> bool {
        !self.stale.is_empty() || (self.has_answered && self.health != Health::Well)
    }

    /// The freshness of its list of that kind: the time that is left of it. An unknown freshness
    /// is stale and private.
    pub fn freshness(&self, kind: Kind) -> Freshness {
        let Some((said, read_at)) = self.read.get(&kind) else { return Freshness::UNKNOWN };
        let age = u64::try_from(read_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        Freshness { ttl_ms: said.ttl_ms.saturating_sub(age), ..*said }
    }
}

impl Default for Server {
    fn default() -> Server {
        Server {
            health: Health::Connecting,
            has_answered: false,
            initialized: None,
            left_out: LeftOut::default(),
            stale: HashSet::new(),
            pinned: None,
            read: HashMap::new(),
            connecting_since: Instant::now(),
            asked: HashMap::new(),
        }
    }
}

/// The items of one kind.
#[derive(Debug, Default)]
struct List {
    /// The items, sorted by offered name.
    items: Vec<Arc<Item>>,
    /// The items in the order of the configuration, those of one server in that server's own
    /// order.
    in_order: Vec<Arc<Item>>,
    by_offered: HashMap<String, Arc<Item>>,
    by_own: HashMap<String, Vec<Arc<Item>>>,
    /// Resources whose servers do not spell them as URIs are spelled, by the right spelling.
    by_spelling: HashMap<String, Vec<Arc<Item>>>,
    /// The templates of each server, in the order of the configuration.
    sets: Vec<(ServerName, Arc<TemplateSet>)>,
    /// The servers of which some template is withheld.
    guarded: Vec<(ServerName, Guarded)>,
}

impl List {
    /// The items come in the order of the configuration.
    fn new(mut items: Vec<Arc<Item>>) -> List {
        let mut list = List::default();
        for item in &items {
            // A withheld item keeps its names, so that no other tool gets them.
            list.by_offered.insert(item.offered.clone(), item.clone());
            list.by_own.entry(item.own.clone()).or_default().push(item.clone());
            if item.kind == Kind::Resource
                && let Cow::Owned(spelled) = template::spelled(&item.own)
                && spelled != item.own
            {
                let items = list.by_spelling.entry(spelled).or_default();
                // Of several of one server, the first counts.
                if items.last().is_none_or(|last| last.server != item.server) {
                    items.push(item.clone());
                }
            }
        }
        let templates: Vec<&Arc<Item>> =
            items.iter().filter(|item| item.kind == Kind::Template).collect();
        list.sets = templates
            .chunk_by(|a, b| a.server == b.server)
            .filter_map(|of_server| {
                let set = TemplateSet::new(of_server.iter().map(|item| item.own.as_str()));
                Some((of_server.first()?.server.clone(), Arc::new(set)))
            })
            .collect();
        list.guarded = templates
            .chunk_by(|a, b| a.server == b.server)
            .filter_map(|them| Some((them.first()?.server.clone(), Guarded::new(them)?)))
            .collect();
        items.retain(|item| !item.is_withheld);
        list.in_order = items.clone();
        items.sort_by(|a, b| a.offered.cmp(&b.offered));
        List { items, ..list }
    }

    /// Shares the items that are the same in another list.
    fn share(&mut self, other: &List) {
        let share = |item: &mut Arc<Item>| {
            let known = other.by_offered.get(&item.offered);
            if let Some(known) = known.filter(|known| known.is_same(item)) {
                *item = known.clone();
            }
        };
        self.items.iter_mut().for_each(share);
        self.in_order.iter_mut().for_each(share);
        self.by_offered.values_mut().for_each(share);
        self.by_own.values_mut().flatten().for_each(share);
        self.by_spelling.values_mut().flatten().for_each(share);
        for (server, set) in &mut self.sets {
            let known = other.sets.iter().find(|(of, known)| of == server && known == set);
            if let Some((_, known)) = known {
                *set = known.clone();
            }
        }
    }
}

/// The catalogue: one snapshot.
#[derive(Debug, Default)]
pub struct Catalogue {
    tools: List,
    prompts: List,
    resources: List,
    templates: List,
    /// The owners of names.
    pub owners: Arc<Owners>,
    /// All servers, by NAME.
    pub servers: BTreeMap<ServerName, Server>,
    /// The servers' NAMEs in the order of the configuration.
    pub order: Vec<ServerName>,
    /// The servers that may have resources, as far as is known.
    having_resources: Vec<ServerName>,
    /// The text between a server's name and an item's.
    pub separator: String,
    /// Names that were refused to items.
    pub clashes: Clashes,
    seen: SeenItems,
}

/// Refused names, the first in the order of the lists.
#[derive(Debug, Clone, Default)]
pub struct Clashes {
    /// At most [`CLASHES_TOLD_MAX`](crate::limits::CLASHES_TOLD_MAX).
    pub told: Vec<Clash>,
    /// The number of further refused names.
    pub n_further: usize,
}

/// A name that is refused to a server, because another server owns it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Clash {
    /// The kind of the item.
    pub kind: Kind,
    /// The server to which the name is refused.
    pub server: ServerName,
    /// The name that this server gives the item.
    pub own: String,
    /// The refused name, with the server's in front where names are prefixed.
    pub name: String,
    /// The server that owns the name.
    pub owner: ServerName,
    /// The name that is offered instead.
    pub offered: String,
}

/// The result of looking up a name.
#[derive(Debug)]
pub enum Resolution {
    /// The name leads to one item.
    Found(Arc<Item>),
    /// Several items have this bare name; these are their offered names.
    Ambiguous(Vec<String>),
    /// The name leads to no item; these offered names are close to it.
    Unknown(Vec<String>),
}

impl Catalogue {
    fn list(&self, kind: Kind) -> &List {
        match kind {
            Kind::Tool => &self.tools,
            Kind::Prompt => &self.prompts,
            Kind::Resource => &self.resources,
            Kind::Template => &self.templates,
        }
    }

    /// Shares the items that are the same in another catalogue.
    fn sharing(mut self, other: &Catalogue) -> Catalogue {
        self.tools.share(&other.tools);
        self.prompts.share(&other.prompts);
        self.resources.share(&other.resources);
        self.templates.share(&other.templates);
        self
    }

    /// All items of a kind without withheld ones, sorted by offered name.
    pub fn items(&self, kind: Kind) -> &[Arc<Item>] {
        &self.list(kind).items
    }

    /// As `items`, in the order of the configuration, those of one server in that server's own
    /// order.
    pub fn in_order(&self, kind: Kind) -> &[Arc<Item>] {
        &self.list(kind).in_order
    }

    /// The items with the own name `own`, in the order of the configuration.
    pub fn called(&self, kind: Kind, own: &str) -> &[Arc<Item>] {
        self.list(kind).by_own.get(own).map_or(&[], Vec::as_slice)
    }

    /// The first resource in the order of the configuration, among those that `sees` admits, that
    /// a server lists under this URI, or else under another spelling of it.
    fn listed(&self, uri: &str, sees: impl Fn(&Item) -> bool) -> Option<&Arc<Item>> {
        let seen = |item: &&Arc<Item>| sees(item);
        let called = |uri: &str| self.called(Kind::Resource, uri).iter().find(seen);
        called(uri).or_else(|| {
            let spelled = template::spelled(uri);
            let other = || self.resources.by_spelling.get(&*spelled)?.iter().find(seen);
            called(&spelled).or_else(other)
        })
    }

    /// The item that the name `asked` means, among those that `sees` admits: an offered name
    /// first, then a name that belongs to a server, full or bare, at that server alone, then a
    /// bare name that only one server has.
    pub fn resolve(&self, kind: Kind, asked: &str, sees: impl Fn(&Item) -> bool) -> Resolution {
        self.meant(kind, asked, &sees).unwrap_or_else(|| {
            let visible = self.list(kind).items.iter().filter(|item| sees(item));
            let names = visible.map(|item| (self.name_seen(item, &sees), item.own.as_str()));
            Resolution::Unknown(name::near_by_either(asked, names, NEAR_NAMES_MAX))
        })
    }

    /// As [`Catalogue::resolve`], without the names that are close, which cost a look at all
    /// items.
    pub fn find(
        &self,
        kind: Kind,
        asked: &str,
        sees: impl Fn(&Item) -> bool,
    ) -> Option<Arc<Item>> {
        match self.meant(kind, asked, &sees)? {
            Resolution::Found(item) => Some(item),
            Resolution::Ambiguous(_) | Resolution::Unknown(_) => None,
        }
    }

    /// None where no item has that name.
    fn meant(
        &self,
        kind: Kind,
        asked: &str,
        sees: &impl Fn(&Item) -> bool,
    ) -> Option<Resolution> {
        let list = self.list(kind);
        // An item may have its name because of items that are not seen; then the name does not
        // count.
        let is_seen = |item: &&Arc<Item>| sees(item) && self.name_seen(item, sees) == asked;
        if let Some(item) = list.by_offered.get(asked).filter(is_seen) {
            return Some(Resolution::Found(item.clone()));
        }
        if let Some(owner) = self.owners.of(asked) {
            let called = |own: &str| {
                let mut items = self.called(kind, own).iter();
                items.find(|item| item.server == *owner && sees(item))
            };
            let is_bare = self.owners.other(owner, asked).is_none();
            let bare = || called(asked).filter(|_| is_bare);
            let item = self.owners.rests(owner, asked).find_map(called).or_else(bare);
            return item.map(|item| Resolution::Found(item.clone()));
        }
        let bare: Vec<&Arc<Item>> =
            self.called(kind, asked).iter().filter(|item| sees(item)).collect();
        match bare.as_slice() {
            [one] => Some(Resolution::Found((*one).clone())),
            [] => None,
            [first, ..] if self.name_seen(first, sees) == asked => {
                Some(Resolution::Found((*first).clone()))
            }
            several => {
                let named = |item: &&Arc<Item>| self.name_seen(item, sees).to_owned();
                let mut names: Vec<_> = several.iter().map(named).collect();
                names.sort();
                Some(Resolution::Ambiguous(names))
            }
        }
    }

    /// The type of a tool's structured result, as its server announces it; `own` is the JSON text
    /// of the tool's own name.
    pub fn output_of(&self, server: &ServerName, own: &str) -> Output {
        let own: String = serde_json::from_str(own).unwrap_or_default();
        let mut items = self.called(Kind::Tool, &own).iter();
        items.find(|item| item.server == *server).map_or(Output::Object, |item| item.output)
    }

    /// The item with the own name `own` at one server, if `sees` admits it.
    pub fn resolve_own(
        &self,
        kind: Kind,
        server: &ServerName,
        own: &str,
        sees: impl Fn(&Item) -> bool,
    ) -> Resolution {
        let list = self.list(kind);
        let of_server = |item: &&Arc<Item>| item.server == *server && sees(item);
        match list.by_own.get(own).into_iter().flatten().find(of_server) {
            Some(item) => Resolution::Found(item.clone()),
            None => {
                let names = list.items.iter().filter(of_server).map(|item| item.own.as_str());
                Resolution::Unknown(name::near(own, names, NEAR_NAMES_MAX))
            }
        }
    }
}
