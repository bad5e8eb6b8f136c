//! What outlives the gateway: it is killed in the middle of things and started again on the same
//! `state_dir`.

mod catalogue;
mod damage;
mod killed;
mod lost;
mod sessions;
mod told;

use std::path::Path;

use serde_json::{Value, json};

use crate::support::gateway::{Directory, Gateway};
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_until;

/// A `state_dir` that does not exist yet, and goes with the test.
struct State(Directory);

impl State {
    fn new() -> State {
        State(Directory::new())
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("state")
    }

    /// A gateway that is to keep its state here.
    fn config(&self, servers: &Value, extra: &Value) -> Value {
        let mut config = json!({ "mcp_servers": servers, "state_dir": self.path() });
        for (key, value) in extra.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        config
    }

    /// One in front of a server called `s`, over Streamable HTTP.
    fn before(&self, url: &str) -> Value {
        self.config(&server(url), &json!({}))
    }

    fn names(&self) -> Vec<String> {
        names_in(&self.path())
    }

    /// Waits until what the server listed is on the disk: something else than `before`.
    #[track_caller]
    fn wait_stored(&self, server: &str, before: Option<&[u8]>) -> Vec<u8> {
        let path = self.path().join(format!("catalogue.{server}"));
        crate::support::wait_for("the lists are stored", || {
            std::fs::read(&path).ok().filter(|file| Some(file.as_slice()) != before)
        })
    }
}

fn server(url: &str) -> Value {
    json!({ "s": { "url": url, "transport": "http" } })
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A gateway that hears what the server says of itself.
#[track_caller]
fn listening(upstream: &HttpUpstream, config: Value) -> Gateway {
    let n_streams = upstream.n_streams();
    let gateway = Gateway::started(config);
    wait_until("it hears the server", || upstream.n_streams() > n_streams);
    gateway
}

/// How the REST list says a server is.
#[track_caller]
fn outcome(gateway: &Gateway, server: &str) -> Value {
    crate::support::gateway::entry_of(&gateway.list()["upstreams"], server).unwrap()
}
