//! Pins as whoever runs the gateway reviews them while it runs.

use std::path::Path;

use super::Subject;
use super::command::{self, Changes, Unusable};
use crate::protocol::server_name::ServerName;
use crate::state::StateDir;

/// What waits to be accepted, as it is written, and where it is accepted. It is on the disk: only
/// the request that asks for it waits for that.
#[derive(Debug)]
pub struct Review(Option<StateDir>);

impl Review {
    /// Of the pins in this `state_dir`; without one there are none.
    pub fn of(directory: Option<&Path>) -> Review {
        Review(directory.map(StateDir::of_another))
    }

    /// What has changed of a server.
    ///
    /// # Errors
    /// Its file cannot be read.
    pub fn changes(&self, server: &ServerName) -> Result<Vec<Changes>, Unusable> {
        self.0.as_ref().map_or(Ok(Vec::new()), |it| command::diff(it, server, None))
    }

    /// Accepts what has changed of a server: the items of a name, or all. Gives them; they are
    /// in use once the catalogue has looked for them.
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
