//! Sends spans to a collector, over HTTP.

use std::time::Duration;

use ureq::Agent;
use ureq::http::Request;

use crate::config::OtlpConfig;
use crate::limits::UPSTREAM_ERROR_CHARS_MAX;
use crate::telemetry::otlp::{Export, Exported, OTLP_TIMEOUT};
use crate::telemetry::redact::{excerpt, url};

/// See above.
#[derive(Debug)]
pub struct Collector {
    agent: Agent,
    config: OtlpConfig,
}

impl Collector {
    /// Nothing is sent yet.
    pub fn new(config: OtlpConfig) -> Collector {
        let agent = Agent::config_builder()
            .timeout_global(Some(OTLP_TIMEOUT))
            .max_idle_age(Duration::from_secs(60))
            .max_redirects(0)
            .http_status_as_error(false)
            .build();
        Collector { agent: agent.into(), config }
    }
}

impl Export for Collector {
    fn export(&self, body: &str) -> Exported {
        let place = url(&self.config.endpoint);
        let mut request = Request::post(&self.config.endpoint);
        request = request.header("Content-Type", "application/json");
        for (name, value) in &self.config.headers {
            request = request.header(name, value.expose());
        }
        let Ok(request) = request.body(body.to_owned()) else {
            return Exported::Refused(format!("{place} or a header cannot be sent"));
        };
        let mut answer = match self.agent.run(request) {
            Ok(answer) => answer,
            Err(error) => return Exported::NotNow(format!("{place}: {error}")),
        };
        let status = answer.status().as_u16();
        let said = answer.body_mut().with_config().limit(64 * 1024).read_to_string();
        if (200..300).contains(&status) {
            return Exported::Taken;
        }
        let said = excerpt(&said.unwrap_or_default(), UPSTREAM_ERROR_CHARS_MAX);
        let what = format!("{place} answered {status} {said}");
        // What may be tried again (OTLP, section "Failures", Retryable Response Codes).
        match status {
            429 | 502 | 503 | 504 => Exported::NotNow(what),
            _ => Exported::Refused(what),
        }
    }
}
