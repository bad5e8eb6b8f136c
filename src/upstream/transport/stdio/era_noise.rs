//! What the question about its era makes a legacy server write to its standard error. It looks
//! like a fault of the server and is none, so it is not shown as what the server says.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::limits::ERA_NOISE_TIME;

/// Of one child.
#[derive(Debug, Default)]
pub(crate) struct EraNoise(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// It was asked.
    is_expected: bool,
    /// When contact was made; what it was asked before is answered then.
    contact_at: Option<Instant>,
    /// The last line belonged to a report about the question.
    is_inside: bool,
}

impl EraNoise {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The child is asked `server/discover`.
    pub(crate) fn expect(&self) {
        self.lock().is_expected = true;
    }

    /// The child has answered. Its two pipes are read apart, so what it says of the question may
    /// come a little later; from then on such lines are about calls.
    pub(crate) fn made_contact(&self, now: Instant) {
        self.lock().contact_at = Some(now);
    }

    /// Whether this line is about nothing but the question.
    pub(crate) fn is_noise(&self, line: &str, now: Instant) -> bool {
        let mut state = self.lock();
        let is_over = |at| now.saturating_duration_since(at) > ERA_NOISE_TIME;
        if state.contact_at.is_some_and(is_over) {
            state.is_expected = false;
        }
        state.is_expected && state.is_noise(line)
    }
}

impl State {
    /// A report is one line about the question, or one that begins so and goes on: with lines
    /// that are indented, and with the names of what was tried (Python SDK 1.x: a line a member
    /// of each request that it knows).
    fn is_noise(&mut self, line: &str) -> bool {
        let begins = line.contains("Failed to validate request: ");
        let goes_on = line.starts_with([' ', '\t'])
            || line.starts_with("Message that failed validation")
            || is_path_of_member(line);
        self.is_inside = begins || (self.is_inside && goes_on);
        self.is_inside || line.contains("server/discover")
    }
}

/// `InitializeRequest.params.protocolVersion`
fn is_path_of_member(line: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    line.contains("Request.") && line.split('.').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_about_the_question_are_told_from_what_the_server_says() {
        let (noise, now) = (EraNoise::default(), Instant::now());
        assert!(!noise.is_noise("Failed to validate request: 1", now), "it was not asked");
        noise.expect();
        for (line, is_noise) in [
            ("Starting up", false),
            ("  with an indented line", false),
            ("WARNING:root:Failed to validate request: 24 validation errors", true),
            ("PingRequest.method", true),
            ("  Input should be 'ping' [type=literal_error]", true),
            ("    For further information visit https://errors", true),
            ("InitializeRequest.params.protocolVersion", true),
            ("Message that failed validation: method='server/discover'", true),
            ("Database is connected", false),
            ("  Input should be 'ping' [type=literal_error]", false),
            (
                "[11/29/26 14:03:11] WARNING  Failed to validate request: 98   session.py:390",
                true,
            ),
            ("                             validation errors for", true),
            ("[11/29/26 14:03:12] INFO     Processing request", false),
            ("warn: Method 'server/discover' is not available.", true),
            ("PingRequest.method", false),
        ] {
            assert_eq!(noise.is_noise(line, now), is_noise, "{line}");
        }
    }

    #[test]
    fn a_report_about_a_call_is_no_noise() {
        let (noise, now) = (EraNoise::default(), Instant::now());
        let report = "Failed to validate request: 1";
        noise.expect();
        assert!(noise.is_noise(report, now + ERA_NOISE_TIME * 100), "it may be slow to start");
        noise.made_contact(now);
        assert!(noise.is_noise(report, now + ERA_NOISE_TIME), "its pipes are read apart");
        assert!(!noise.is_noise(report, now + ERA_NOISE_TIME + ERA_NOISE_TIME));
    }
}
