//! The pages about the configuration against the program: keys, defaults, whole configurations.

use trunkline::config::{
    ACCESS_TOKEN_KEYS, API_KEY_KEYS, Config, INTROSPECTION_KEYS, ISSUER_KEYS, KEYS, LOG_KEYS,
    OAUTH_KEYS, OTLP_KEYS, Overrides, RULE_KEYS, SERVER_KEYS, TRANSPORT_KEYS, limit_keys,
};
use trunkline::limits::Limits;

use crate::support::pages::{page, quoted, source, table};

const PAGE: &str = "configuration.md";
const LIMITS: &str = "limits.md";

/// The keys that a table names in its first column.
fn keys_in(table: &[Vec<String>]) -> Vec<String> {
    table.iter().flat_map(|row| quoted(&row[0])).map(str::to_owned).collect()
}

#[track_caller]
fn check_keys(mut told: Vec<String>, accepted: &[&str]) {
    let mut accepted = accepted.to_vec();
    told.sort_unstable();
    accepted.sort_unstable();
    assert_eq!(told, accepted);
}

#[test]
fn every_key_is_in_the_tables_and_no_other() {
    let mut top = keys_in(&table(PAGE, "key"));
    for key in &mut top {
        let name = key.trim_end_matches("[]").trim_end_matches(".NAME").to_owned();
        *key = name;
    }
    check_keys(top, KEYS);
    check_keys(keys_in(&table(PAGE, "`api_keys[].`")), API_KEY_KEYS);
    check_keys(keys_in(&table(PAGE, "`oauth.`")), ACCESS_TOKEN_KEYS);
    check_keys(keys_in(&table(PAGE, "`oauth.issuers[].`")), ISSUER_KEYS);
    check_keys(keys_in(&table(PAGE, "`introspection.`")), INTROSPECTION_KEYS);
    check_keys(keys_in(&table(PAGE, "`oauth.rules[].`")), RULE_KEYS);
    check_keys(keys_in(&table(PAGE, "`mcp_servers.NAME.`")), SERVER_KEYS);
    check_keys(keys_in(&table(PAGE, "`mcp_servers.NAME.oauth.`")), OAUTH_KEYS);
    check_keys(keys_in(&table(LIMITS, "`limits.`")), limit_keys());
}

#[test]
fn the_keys_inside_of_keys_are_named() {
    let rows = table(PAGE, "key");
    let inside = [("transports", TRANSPORT_KEYS), ("log", LOG_KEYS), ("otlp", OTLP_KEYS)];
    for (name, keys) in inside {
        let row = rows.iter().find(|row| quoted(&row[0]).contains(&name)).unwrap().join(" ");
        for key in keys {
            assert!(row.contains(&format!("\"{key}\"")), "{name}: {key}");
        }
    }
}

/// The default of a bound, by its key.
fn default_of(key: &str) -> u128 {
    let limits = Limits::default();
    let counts = [
        ("connections", limits.connections),
        ("connections_per_address", limits.connections_per_address),
        ("buffered_bytes", limits.buffered_bytes),
        ("head_bytes", limits.head_bytes),
        ("headers", limits.headers),
        ("body_bytes", limits.body_bytes),
        ("sessions", limits.sessions),
        ("sessions_per_key", limits.sessions_per_key),
        ("page_items", limits.page_items),
        ("parked_calls", limits.parked_calls),
        ("parked_calls_per_key", limits.parked_calls_per_key),
        ("streams", limits.streams),
        ("stream_queue_bytes", limits.stream_queue_bytes),
        ("event_log_events", limits.event_log_events),
        ("event_log_bytes", limits.event_log_bytes),
        ("upstream_result_bytes", limits.upstream_result_bytes),
        ("upstream_event_bytes", limits.upstream_event_bytes),
        ("upstream_tools", limits.upstream_tools),
        ("views", limits.views),
        ("child_stderr_lines", limits.child_stderr_lines),
    ];
    let times = [
        ("head_ms", limits.head),
        ("body_ms", limits.body),
        ("idle_ms", limits.idle),
        ("write_ms", limits.write),
        ("session_idle_ms", limits.session_idle),
        ("parked_ms", limits.parked),
        ("heartbeat_ms", limits.heartbeat),
        ("drain_ms", limits.drain),
    ];
    let count = counts.into_iter().find(|(name, _)| *name == key);
    let time = times.into_iter().find(|(name, _)| *name == key);
    match (count, time) {
        (Some((_, count)), None) => u128::try_from(count).unwrap(),
        (None, Some((_, time))) => time.as_millis(),
        _ => panic!("no bound {key:?}"),
    }
}

#[test]
fn the_bounds_have_the_defaults_that_are_told() {
    for row in table(LIMITS, "`limits.`") {
        let told: Vec<u128> =
            row[1].split(", ").map(|number| number.parse().unwrap()).collect();
        let keys = quoted(&row[0]);
        let defaults: Vec<u128> = keys.iter().map(|key| default_of(key)).collect();
        assert_eq!(told, defaults, "{keys:?}");
    }
}

#[test]
fn the_file_has_the_defaults_that_are_told() {
    let config = check(r#"{"mcp_servers":{}}"#).unwrap();
    let rows = table(PAGE, "key");
    let told = |key: &str| {
        let row = rows.iter().find(|row| quoted(&row[0])[0] == key).unwrap();
        row[1].trim_matches('`').to_owned()
    };
    assert_eq!(told("listen"), config.listen.to_string());
    assert_eq!(told("socket_mode"), format!("{:04o}", config.socket_mode));
    assert_eq!(told("first_list_ms"), config.first_list.as_millis().to_string());
    assert_eq!(told("allow_anonymous"), config.allow_anonymous.to_string());
    assert_eq!(told("watch"), config.watch.to_string());
    assert_eq!(told("prefix"), format!("auto`, `{}", config.naming.separator));
    let log: serde_json::Value = serde_json::from_str(&told("log")).unwrap();
    assert_eq!(log["level"], config.log.level.to_string().to_lowercase());
    assert_eq!((&log["access"], &log["bodies"]), (&false.into(), &false.into()));
    assert!(!config.log.access && !config.log.bodies);
}

fn check(config: &str) -> Result<Config, String> {
    let any = |_: &str| Some("v".repeat(32));
    Config::parse(config, &any, &Overrides::default())
        .map_err(|problems| format!("{config}: {problems:#?}"))
}

#[test]
fn a_server_has_the_defaults_that_are_told() {
    let config = r#"{"mcp_servers":{
        "h":{"url":"http://h/mcp"},
        "s":{"command":"c"}
    }}"#;
    let config = check(config).unwrap();
    let (http, stdio) = (&config.upstreams[0], &config.upstreams[1]);
    let rows = table(PAGE, "`mcp_servers.NAME.`");
    let told = |key: &str| {
        let row = rows.iter().find(|row| quoted(&row[0])[0] == key).unwrap();
        row[1].clone()
    };
    let times = [http.timeout, http.timeout_max, http.connect_timeout].map(|t| t.as_millis());
    assert_eq!(told("timeout_ms"), times.map(|time| time.to_string()).join(", "));
    assert_eq!(told("start_timeout_ms"), stdio.start_timeout.as_millis().to_string());
    let calls = format!("{}, {}", http.max_in_flight, http.max_waiting);
    assert_eq!(told("max_in_flight"), calls);
    let sessions = format!("{} (stdio {})", http.max_sessions, stdio.max_sessions);
    assert_eq!(told("max_sessions"), sessions);
    assert_eq!(told("session"), format!("`{}`", format!("{:?}", http.session).to_lowercase()));
    assert_eq!(told("pin"), format!("`{}`", http.pin.as_str()));
    assert_eq!(told("required"), http.required.to_string());
}

#[test]
fn the_keys_that_wait_for_the_next_start_are_told() {
    let code = source("src/config/diff.rs");
    let kept = code.split("keep(\"/").skip(1).map(|rest| rest.split_once('"').unwrap().0);
    let mut kept: Vec<_> = kept.map(|key| key.replace('/', ".")).collect();
    let text = page(PAGE);
    let sentence = text.lines().find(|line| line.contains("take effect at the next start"));
    let mut told = quoted(sentence.unwrap());
    kept.sort_unstable();
    told.sort_unstable();
    assert_eq!(told, kept);
}

#[test]
fn every_variable_of_traces_is_told() {
    let code = source("src/config/file/otlp.rs");
    let text = page("observability.md");
    let variables = code.split("\"OTEL_").skip(1).map(|rest| rest.split_once('"').unwrap().0);
    for variable in variables {
        assert!(text.contains(&format!("`OTEL_{variable}`")), "OTEL_{variable}");
    }
}
