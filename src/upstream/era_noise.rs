//! What the question about its era makes a legacy server write to its standard error. It looks
//! like a fault of the server and is none, so it is not shown as what the server says.

use std::sync::{Mutex, PoisonError};

/// Of one child.
#[derive(Debug, Default)]
pub(super) struct EraNoise(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// It was asked.
    is_expected: bool,
    /// The last line belonged to a report about the question.
    is_inside: bool,
}

impl EraNoise {
    /// The child is asked `server/discover`.
    pub(super) fn expect(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_expected = true;
    }

    /// Whether this line is about nothing but the question.
    pub(super) fn is_noise(&self, line: &str) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
        let noise = EraNoise::default();
        assert!(!noise.is_noise("Failed to validate request: 1"), "it was not asked");
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
            assert_eq!(noise.is_noise(line), is_noise, "{line}");
        }
    }
}
