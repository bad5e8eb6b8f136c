//! What the gateway offers, and to whom it belongs: an immutable snapshot, swapped whole.
//! Lists are served from it and calls are routed by it; no list is asked for on a call's path.

pub mod merge;
pub mod name;
pub mod refresher;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::Stage;
use crate::limits::NEAR_NAMES_MAX;
use crate::protocol::raw::Raw;
use crate::protocol::server_name::ServerName;

/// One tool of one server.
#[derive(Debug)]
pub struct Tool {
    /// Whose it is.
    pub server: ServerName,
    /// What the server calls it.
    pub own: String,
    /// What clients call it.
    pub offered: String,
    /// What policies call it.
    pub qualified: String,
    /// The tool's object under its offered name.
    pub offered_object: Raw,
    /// The tool's object as its server wrote it.
    pub own_object: Raw,
}

/// How a server is, as far as lists tell.
#[derive(Debug, Clone, PartialEq)]
pub enum Health {
    /// It has not answered yet.
    Connecting,
    /// It has answered and lists.
    Well,
    /// It cannot be used at present; its last lists still stand.
    Failed {
        /// How far the last attempt came.
        stage: Stage,
        /// What was seen.
        message: String,
    },
}

/// What the catalogue knows of a server beside its tools.
#[derive(Debug, Clone)]
pub struct Server {
    /// How it is.
    pub health: Health,
    /// Whether it has ever answered.
    pub has_answered: bool,
    /// What its offered names begin with, where they are prefixed.
    pub prefix: String,
    /// What it said of how to use it.
    pub instructions: Option<String>,
    /// Tools of it that are not offered: over the bound, without a name, or named twice.
    pub left_out: usize,
}

impl Default for Server {
    fn default() -> Server {
        Server {
            health: Health::Connecting,
            has_answered: false,
            prefix: String::new(),
            instructions: None,
            left_out: 0,
        }
    }
}

/// The snapshot.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// All tools, sorted by offered name.
    pub tools: Vec<Arc<Tool>>,
    by_offered: HashMap<String, Arc<Tool>>,
    by_own: HashMap<String, Vec<Arc<Tool>>>,
    /// All servers.
    pub servers: BTreeMap<ServerName, Server>,
}

/// What a name leads to.
#[derive(Debug)]
pub enum Resolution {
    /// One tool.
    Found(Arc<Tool>),
    /// Several tools have this bare name; their offered names.
    Ambiguous(Vec<String>),
    /// None; offered names that are close to it.
    Unknown(Vec<String>),
}

impl Catalogue {
    /// The tool that `asked` means among those that `sees` admits: an offered name first, then
    /// a bare one that only one server has. A look-up, never a split.
    pub fn resolve(&self, asked: &str, sees: impl Fn(&Tool) -> bool) -> Resolution {
        if let Some(tool) = self.by_offered.get(asked).filter(|tool| sees(tool)) {
            return Resolution::Found(tool.clone());
        }
        let bare: Vec<&Arc<Tool>> =
            self.by_own.get(asked).into_iter().flatten().filter(|tool| sees(tool)).collect();
        match bare.as_slice() {
            [one] => Resolution::Found((*one).clone()),
            [] => {
                let visible = self.tools.iter().filter(|tool| sees(tool));
                let names = visible.map(|tool| tool.offered.as_str());
                Resolution::Unknown(name::near(asked, names, NEAR_NAMES_MAX))
            }
            several => {
                Resolution::Ambiguous(several.iter().map(|t| t.offered.clone()).collect())
            }
        }
    }

    /// The tool that one server calls `own`, if `sees` admits it.
    pub fn resolve_own(
        &self,
        server: &ServerName,
        own: &str,
        sees: impl Fn(&Tool) -> bool,
    ) -> Resolution {
        let of_server = |tool: &&Arc<Tool>| tool.server == *server && sees(tool);
        match self.by_own.get(own).into_iter().flatten().find(of_server) {
            Some(tool) => Resolution::Found(tool.clone()),
            None => {
                let names = self.tools.iter().filter(of_server).map(|tool| tool.own.as_str());
                Resolution::Unknown(name::near(own, names, NEAR_NAMES_MAX))
            }
        }
    }
}

/// The current snapshot, for everybody who reads it.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<RwLock<Arc<Catalogue>>>);

impl Shared {
    /// The snapshot as it is now; it stays what it is while it is held.
    pub fn current(&self) -> Arc<Catalogue> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn publish(&self, catalogue: Catalogue) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(catalogue);
    }
}
