//! The review of pins by an operator of the running gateway.

use std::path::Path;

use super::Subject;
use super::command::{self, Changes, Unusable};
use crate::protocol::server_name::ServerName;
use crate::state::StateDir;

/// The changes that wait to be accepted, and their acceptance. They are read from the disk: only
/// the request that asks for them waits for the disk.
#[derive(Debug)]
pub struct Review(Option<StateDir>);

impl Review {
    /// The review of the pins in this `state_dir`; without one there are none.
    pub fn of(directory: Option<&Path>) -> Review {
        Review(directory.map(StateDir::of_another))
    }

    /// The changes of a server.
    ///
    /// # Errors
    /// The server's file of pins cannot be read.
    pub fn changes(&self, server: &ServerName) -> Result<Vec<Changes>, Unusable> {
        self.0.as_ref().map_or(Ok(Vec::new()), |it| command::diff(it, server, None))
    }

    /// Accepts changes of a server: the items with a name, or all. Returns them; they are in use
    /// once the catalogue has looked for accepted items.
    ///
    /// # Errors
    /// There is no such item, or the directory cannot be used.
    pub fn accept(
        &self,
        server: &ServerName,
        item: Option<&str>,
    ) -> Result<Vec<(Subject, String)>, Unusable> {
        self.0.as_ref().map_or(Ok(Vec::new()), |it| command::accept(it, server, item))
    }
}
