//! `otlp`: the destination of spans. The standard variables of OpenTelemetry give values that the
//! file does not (opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables).

use super::json::Json;
use super::reader::{Fields, Reader};
use crate::config::secrets::forms::percent_decoded;
use crate::config::{Secret, syntax};

/// The keys of `otlp`.
pub const OTLP_KEYS: &[&str] = &["endpoint", "headers", "sampling"];

/// The path below a collector's address.
const TRACES_PATH: &str = "/v1/traces";
const MILLION: f64 = 1_000_000.0;

/// The destination of spans, and the rate of sampling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpConfig {
    /// The whole URL of the collector.
    pub endpoint: String,
    /// Headers of each request.
    pub headers: Vec<(String, Secret)>,
    /// The number of traces that are recorded of a million that begin here.
    pub sampling: u32,
    /// The name of the program at the collector.
    pub service: String,
}

/// Reads and checks `otlp`. None where no spans are wanted.
pub(crate) fn read(file: &Fields<'_>) -> Option<OtlpConfig> {
    let reader = file.reader;
    let fields = file.object("otlp", OTLP_KEYS);
    let variable = |name: &str| reader.variable(name).filter(|text| !text.is_empty());
    let in_file = fields.as_ref().and_then(|fields| {
        let text = fields.text("endpoint")?;
        if let Err(what) =
            syntax::url(&text.value, &["http://", "https://"], syntax::Userinfo::Refused)
        {
            reader.problem(fields.at("endpoint"), what);
        }
        Some(with_path(text.value))
    });
    if let Some(fields) = fields.as_ref().filter(|fields| !fields.has("endpoint")) {
        reader.problem(fields.at.as_str(), "has no \"endpoint\"");
    }
    let is_off =
        variable("OTEL_SDK_DISABLED").is_some_and(|it| it.eq_ignore_ascii_case("true"));
    let usable = |url: &String| {
        syntax::url(url, &["http://", "https://"], syntax::Userinfo::Refused).is_ok()
    };
    let in_environment = || {
        let of_traces = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let base = || variable("OTEL_EXPORTER_OTLP_ENDPOINT");
        let url = of_traces.or_else(|| {
            base().map(|url| format!("{}{TRACES_PATH}", url.trim_end_matches('/')))
        });
        url.filter(|url| !is_off && usable(url))
    };
    Some(OtlpConfig {
        endpoint: in_file.or_else(in_environment)?,
        headers: headers(reader, fields.as_ref()),
        sampling: fields.as_ref().and_then(sampling).unwrap_or_else(|| of_sampler(&variable)),
        service: variable("OTEL_SERVICE_NAME").unwrap_or_else(|| "trunkline".to_owned()),
    })
}

/// The address of a collector, with the path on which it takes spans.
fn with_path(url: String) -> String {
    let after = url.split_once("://").map_or("", |(_, rest)| rest);
    match after.split_once('/') {
        Some((_, path)) if !path.is_empty() => url,
        _ => format!("{}{TRACES_PATH}", url.trim_end_matches('/')),
    }
}

fn headers(reader: &Reader<'_>, fields: Option<&Fields<'_>>) -> Vec<(String, Secret)> {
    let mut headers = Vec::new();
    for (at, name, value) in fields.and_then(|it| it.string_map("headers")).unwrap_or_default()
    {
        if !syntax::is_header_name(&name) || syntax::is_own_header(&name) {
            reader.problem(&at, "not a header that can be set");
        }
        if !syntax::is_header_value(&value) {
            reader.problem(&at, "the value has characters that a header must not have");
        }
        headers.push((name, Secret::new(value)));
    }
    let listed = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
    let listed = listed.into_iter().find_map(|name| reader.variable(name));
    if headers.is_empty() {
        let pairs = listed.as_deref().unwrap_or_default().split(',');
        let pairs = pairs.filter_map(|pair| pair.split_once('='));
        // Values are percent-encoded (OpenTelemetry, Protocol Exporter, Specifying headers).
        let pairs = pairs.map(|(name, value)| {
            let value = value.trim();
            let decoded = percent_decoded(value).unwrap_or_else(|| value.to_owned());
            (name.trim(), decoded)
        });
        let usable = |(name, value): &(&str, String)| {
            syntax::is_header_name(name)
                && !syntax::is_own_header(name)
                && syntax::is_header_value(value)
        };
        let secret = |(name, value): (&str, String)| (name.to_owned(), Secret::new(value));
        headers.extend(pairs.filter(usable).map(secret));
    }
    headers
}

fn sampling(fields: &Fields<'_>) -> Option<u32> {
    let ratio = match fields.get("sampling")? {
        Json::Whole(0) => Some(0.0),
        Json::Whole(1) => Some(1.0),
        Json::Number(ratio) => Some(*ratio),
        Json::Null
        | Json::Bool(_)
        | Json::Whole(_)
        | Json::Text(_)
        | Json::Array(_)
        | Json::Object(_) => None,
    };
    let millionths = ratio.and_then(millionths);
    if millionths.is_none() {
        fields.reader.problem(fields.at("sampling"), "must be a number from 0 to 1");
    }
    millionths
}

fn millionths(ratio: f64) -> Option<u32> {
    let is_ratio = (0.0..=1.0).contains(&ratio);
    // The number is printed without its fraction and read back: without `as` there is no other
    // way.
    is_ratio.then(|| format!("{:.0}", ratio * MILLION).parse().ok()).flatten()
}

/// The sampling rate: all, unless the environment names a sampler with a ratio, or none.
fn of_sampler(variable: &impl Fn(&str) -> Option<String>) -> u32 {
    let all = 1_000_000;
    let ratio = || variable("OTEL_TRACES_SAMPLER_ARG").and_then(|text| text.parse().ok());
    match variable("OTEL_TRACES_SAMPLER").as_deref() {
        Some("always_off" | "parentbased_always_off") => 0,
        Some("traceidratio" | "parentbased_traceidratio") => {
            ratio().and_then(millionths).unwrap_or(all)
        }
        Some(_) | None => all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};

    fn parsed(otlp: &str, environment: &[(&str, &str)]) -> Option<OtlpConfig> {
        let text = format!(r#"{{ "mcp_servers": {{}}{otlp} }}"#);
        let variable = |name: &str| {
            let found = environment.iter().find(|(it, _)| *it == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Config::parse(&text, &variable, &Overrides::default()).unwrap().otlp
    }

    #[test]
    fn the_file_comes_before_the_environment() {
        assert_eq!(parsed("", &[]), None);
        let otlp = r#", "otlp": { "endpoint": "http://c:4318", "sampling": 0.1, "headers": { "x-k": "v" } }"#;
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://other:4318/"),
            ("OTEL_SERVICE_NAME", "edge-7"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=b%20e, c=d"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ];
        let config = parsed(otlp, &environment).unwrap();
        assert_eq!(config.endpoint, "http://c:4318/v1/traces");
        assert_eq!((config.sampling, config.service.as_str()), (100_000, "edge-7"));
        assert_eq!(config.headers.len(), 1);
        let config = parsed("", &environment).unwrap();
        assert_eq!(config.endpoint, "http://other:4318/v1/traces");
        assert_eq!((config.sampling, config.headers.len()), (250_000, 2));
        assert_eq!(config.headers[0].1.expose(), "b e");
        let off = [&environment[..], &[("OTEL_SDK_DISABLED", "true")]].concat();
        assert_eq!(parsed("", &off), None);
        let whole = r#", "otlp": { "endpoint": "https://h/api/otlp", "sampling": 1 }"#;
        assert_eq!(parsed(whole, &[]).unwrap().endpoint, "https://h/api/otlp");
    }
}
