//! Refusals of requests without a key or an access token, or with one that does not help.

use std::time::Duration;

use super::status_codes::Problem;
use crate::error::whole_seconds;
use crate::protocol::jsonrpc::code;
use crate::telemetry;
use crate::telemetry::rejected::Reason;

impl Problem {
    /// The request has no key, and needs one.
    pub fn no_key() -> Problem {
        Problem::bad_key("missing_key", "This needs a key")
    }

    /// The request has an unknown key.
    pub fn wrong_key() -> Problem {
        Problem::bad_key("wrong_key", "The key that came with this is none of the gateway's")
    }

    fn bad_key(word: &'static str, what: &str) -> Problem {
        let message = format!("{what}: \"Authorization: Bearer KEY\" or \"x-api-key: KEY\".");
        telemetry::request::turned_away(Reason::Unauthorized, Some(word), "");
        Problem::new(401, "unauthorized", code::BAD_REQUEST, message)
            .header("WWW-Authenticate", "Bearer")
    }

    /// There is neither a key nor an access token. `challenge` says where to get one.
    pub fn no_token(challenge: &str) -> Problem {
        let message = "This needs an access token of one of the gateway's authorization servers, \
                       or a key: \"Authorization: Bearer TOKEN\".";
        telemetry::request::turned_away(Reason::Unauthorized, Some("missing_token"), "");
        Problem::new(401, "unauthorized", code::BAD_REQUEST, message)
            .header("WWW-Authenticate", challenge)
    }

    /// The access token, or its proof, is not good (RFC 6750, section 3.1). `told` is for
    /// operators.
    pub fn bad_token(
        challenge: &str,
        word: &'static str,
        what: &'static str,
        told: &str,
    ) -> Problem {
        telemetry::request::turned_away(Reason::Unauthorized, Some(word), told);
        Problem::new(401, word, code::BAD_REQUEST, format!("{what}."))
            .header("WWW-Authenticate", challenge)
    }

    /// The access token is good, and gives no rights.
    pub fn insufficient_scope(challenge: &str, what: &'static str, told: &str) -> Problem {
        let reason = Reason::Unauthorized;
        telemetry::request::turned_away(reason, Some("insufficient_scope"), told);
        Problem::new(403, "insufficient_scope", code::BAD_REQUEST, format!("{what}."))
            .header("WWW-Authenticate", challenge)
    }

    /// The issuer of the access token cannot be asked.
    pub fn issuer_unavailable(
        what: &'static str,
        told: &str,
        retry_after: Duration,
    ) -> Problem {
        let reason = Reason::Overloaded;
        telemetry::request::turned_away(reason, Some("issuer_unavailable"), told);
        let seconds = whole_seconds(retry_after);
        Problem::new(503, "issuer_unavailable", code::INTERNAL_ERROR, format!("{what}."))
            .with("retry_after_s", seconds)
            .header("Retry-After", seconds.to_string())
    }
}
