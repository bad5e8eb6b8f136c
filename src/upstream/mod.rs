//! Faces MCP servers: the only folder that names ureq and `std::process`.
//!
//! A call's thread enters through [`Upstream::request`] and makes the upstream call itself,
//! holding one of that upstream's bounded slots. Everything else that must happen to an
//! upstream (connecting, reading its lists, restarting its child) is done by its supervisor's
//! thread, which tells of it by [`Event`]s.

use std::time::{Duration, SystemTime};

use crate::error::Stage;
use crate::protocol::legacy::Initialized;
use crate::protocol::raw::Raw;
use crate::protocol::revision::Revision;
use crate::protocol::server_name::ServerName;

/// What a supervisor tells.
#[derive(Debug)]
pub enum Event {
    /// The upstream has answered `initialize`.
    Ready {
        /// Which one.
        server: ServerName,
        /// What it said.
        initialized: Initialized,
    },
    /// The upstream's tools, whole; also sent when they are the same as before but the upstream
    /// has said that they changed.
    Tools {
        /// Which one.
        server: ServerName,
        /// Each tool's object as the upstream wrote it, in its order.
        tools: Vec<Raw>,
        /// Tools left out at `limits.upstream_tools`.
        left_out: usize,
    },
    /// The upstream cannot be used at present. What it listed last is still known.
    Failed {
        /// Which one.
        server: ServerName,
        /// Why.
        failure: Failure,
    },
}

/// A failure as `/status` tells it. The message never holds a secret.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// How far the attempt came.
    pub stage: Stage,
    /// What was seen.
    pub message: String,
    /// When.
    pub at: SystemTime,
}

/// How an upstream is at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// First contact is being made.
    Probing,
    /// It has answered and can be called.
    Ready,
    /// It failed; the next attempt comes by itself.
    BackingOff {
        /// Time until then.
        next_try: Duration,
    },
}

/// What `/status` tells of an upstream.
#[derive(Debug, Clone)]
pub struct Status {
    /// At present.
    pub state: State,
    /// `http`, `sse` or `stdio`; for `auto` what was found, or `auto`.
    pub transport: &'static str,
    /// Spoken with it, once it has answered.
    pub revision: Option<Revision>,
    /// Its name and version, an object's text.
    pub server_info: Option<Raw>,
    /// The last failure, although it may be well by now.
    pub last_failure: Option<Failure>,
    /// Of the last answer.
    pub latency: Option<Duration>,
    /// Calls that hold a slot.
    pub in_flight: usize,
    /// Calls that wait for one.
    pub waiting: usize,
    /// How often its child was started again, or its session opened again.
    pub restarts: u64,
    /// The last lines of its standard error.
    pub stderr: Vec<String>,
}
/// stub
#[derive(Debug)]
pub struct Upstreams;
/// stub
#[derive(Debug)]
pub struct Upstream;
#[allow(missing_docs)]
impl Upstreams {
    pub fn start(
        _: Vec<crate::config::UpstreamConfig>,
        _: std::sync::Arc<crate::limits::Limits>,
        _: crossbeam_channel::Sender<Event>,
    ) -> std::io::Result<Upstreams> {
        Ok(Upstreams)
    }
    pub fn get(&self, _: &ServerName) -> Option<&std::sync::Arc<Upstream>> {
        None
    }
    pub fn iter(&self) -> impl Iterator<Item = &std::sync::Arc<Upstream>> {
        std::iter::empty()
    }
    pub fn interrupt(&self) {}
    pub fn kill(&self) {}
}
#[allow(missing_docs)]
impl Upstream {
    pub fn name(&self) -> &ServerName {
        loop {}
    }
    pub fn config(&self) -> &crate::config::UpstreamConfig {
        loop {}
    }
    pub fn request(
        &self,
        _: &crate::protocol::call::Outgoing<'_>,
        _: &std::sync::Arc<crate::wait::Wait>,
        _: &mut dyn crate::protocol::call::CallSink,
    ) -> Result<crate::protocol::call::Outcome, crate::error::CallError> {
        loop {}
    }
    pub fn status(&self) -> Status {
        loop {}
    }
}
