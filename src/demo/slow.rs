//! The tool `slow` as a value: the messages of each step. The transports do the waiting.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::arguments::Arguments;
use super::{Answer, refusal, text_result, wrong};
use crate::protocol::jsonrpc::{self, RequestId, RpcError};
use crate::protocol::method::notification;

/// The longest slow call, in seconds.
pub(super) const SECONDS_MAX: f64 = 600.0;
/// The most steps of one slow call.
pub(super) const STEPS_MAX: u32 = 1000;

/// A call that takes time.
#[derive(Debug, Clone, PartialEq)]
pub struct SlowCall {
    id: RequestId,
    progress_token: Option<Value>,
    step_time: Duration,
    steps: u32,
}

impl SlowCall {
    pub(super) fn read(
        id: &RequestId,
        params: &Map<String, Value>,
    ) -> Result<SlowCall, RpcError> {
        let arguments = Arguments::read("slow", params, &["seconds", "steps"])?;
        let seconds = arguments.seconds("seconds", SECONDS_MAX)?;
        let steps = arguments.count("steps", STEPS_MAX)?.unwrap_or(1);
        let time = Duration::try_from_secs_f64(seconds)
            .map_err(|error| wrong(format!("slow: \"seconds\": {error}.")))?;
        let progress_token = params.get("_meta").and_then(|meta| meta.get("progressToken"));
        let valid = |token: &&Value| token.is_string() || token.is_i64() || token.is_u64();
        if !progress_token.as_ref().is_none_or(valid) {
            return Err(wrong("tools/call: \"progressToken\" must be a string or an integer."));
        }
        Ok(SlowCall {
            id: id.clone(),
            progress_token: progress_token.cloned(),
            step_time: time / steps,
            steps,
        })
    }

    /// The id of the request that is answered at the end.
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// The number of the call's steps.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// The time of each step.
    pub fn step_time(&self) -> Duration {
        self.step_time
    }

    /// The time of the whole call.
    pub fn time(&self) -> Duration {
        self.step_time * self.steps
    }

    /// True if the client has asked for progress.
    pub fn wants_progress(&self) -> bool {
        self.progress_token.is_some()
    }

    /// The message after the given step, the first being 1; none where the client wants no
    /// progress.
    pub fn progress(&self, step: u32) -> Option<String> {
        let token = self.progress_token.as_ref()?;
        let params = json!({
            "progressToken": token,
            "progress": step,
            "total": self.steps,
            "message": format!("Step {step} of {}", self.steps),
        });
        Some(jsonrpc::notification(notification::PROGRESS, Some(&params.to_string())))
    }

    /// The message after the last step.
    pub fn result(&self) -> String {
        let steps = if self.steps == 1 { "step" } else { "steps" };
        let total = self.time().as_secs_f64();
        let text = format!("Done: {} {steps} in {total:.3} seconds.", self.steps);
        jsonrpc::response(&self.id, &text_result(&text).to_string())
    }

    /// The answer where the call cannot run.
    pub fn refuse(&self, code: i64, what: &str) -> Answer {
        refusal(Some(&self.id), code, what)
    }
}
