//! Tests of valid configurations.

use std::time::Duration;

use super::{
    Config, HttpKind, Listen, LogFormat, Overrides, Prefix, Problem, SessionSharing, Target,
    hash_key,
};
use crate::limits::Limits;

fn parse(text: &str) -> Result<Config, Vec<Problem>> {
    let environment = |name: &str| (name == "TOKEN").then(|| "hunter2-hunter2".to_owned());
    Config::parse(text, &environment, &Overrides::default())
}

#[track_caller]
fn listen(text: &str) -> Listen {
    let text = format!(r#"{{"listen":{text:?},"mcp_servers":{{}}}}"#);
    parse(&text).unwrap().listen
}

#[test]
fn the_smallest_configuration_has_the_defaults_of_the_documentation() {
    let config = parse(r#"{"mcp_servers":{}}"#).unwrap();
    assert_eq!(config.listen, Listen::Tcp(([127, 0, 0, 1], 4000).into()));
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.naming.prefix, Prefix::Auto);
    assert_eq!(config.naming.separator, "-");
    assert_eq!(config.log.level, log::LevelFilter::Info);
    assert_eq!(config.log.format, LogFormat::Text);
    assert!(!config.log.access && !config.log.bodies);
    assert!(config.transports.rest && config.transports.sse);
    assert!(config.transports.streamable_http);
    assert!(config.api_keys.is_empty() && config.upstreams.is_empty());
    assert!(config.allowed_hosts.is_none() && config.session_key.is_none());
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    let [nothing] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(nothing.starts_with("/mcp_servers: no server is configured"), "{nothing}");
}

#[test]
fn servers_come_in_order_have_defaults_and_leave_out_the_disabled() {
    let text = r#"{"mcpServers":{
        "z":{"command":"x"},"a":{"url":"http://a/"},"off":{"url":"http://b/","disabled":true},
        "m":{"url":"http://m/","transport":"sse","max_sessions":3,"session":"shared"}}}"#;
    let config = parse(text).unwrap();
    let [z, a, m] = config.upstreams.as_slice() else { panic!("{:?}", config.upstreams) };
    assert_eq!((z.name.as_str(), a.name.as_str(), m.name.as_str()), ("z", "a", "m"));
    assert!(config.naming.owners.server("off").is_some(), "it keeps its names");
    assert_eq!((a.max_sessions, m.max_sessions, z.max_sessions), (32, 3, 8));
    assert_eq!((a.max_in_flight, a.max_waiting), (32, 128));
    assert_eq!(a.start_timeout, Duration::from_secs(300));
    assert_eq!(a.timeout, Duration::from_secs(60));
    assert_eq!(a.timeout_max, Duration::from_secs(600));
    assert_eq!(a.connect_timeout, Duration::from_secs(5));
    assert_eq!((a.session, m.session), (SessionSharing::Auto, SessionSharing::Shared));
    assert!(matches!(&a.target, Target::Http(http) if http.kind == HttpKind::Auto));
    assert!(matches!(&m.target, Target::Http(http) if http.kind == HttpKind::HttpSse));
    assert!(matches!(&z.target, Target::Stdio(stdio) if stdio.command == "x"));
}

#[test]
fn every_form_of_an_address_is_read() {
    assert_eq!(listen("localhost:80"), Listen::Tcp(([127, 0, 0, 1], 80).into()));
    assert_eq!(listen("[::1]:0").to_string(), "[::1]:0");
    assert_eq!(listen("[::ffff:127.0.0.1]:1").to_string(), "[::ffff:127.0.0.1]:1");
    assert_eq!(listen("unix:/run/x.sock"), Listen::Unix("/run/x.sock".into()));
    for bad in ["", ":80", "localhost:", "localhost:99999", "unix:", "unix:x", "host:80"] {
        assert_eq!(Listen::parse(bad), None, "{bad}");
    }
}

#[test]
fn beyond_loopback_a_key_or_a_word_is_needed() {
    let key = r#"{"listen":"0.0.0.0:1","mcp_servers":{},"api_keys":[{"name":"a","key":"k"}]}"#;
    assert!(parse(key).is_ok());
    let word = r#"{"listen":"0.0.0.0:1","mcp_servers":{},"allow_anonymous":true}"#;
    assert!(parse(word).is_ok());
    // A value of the command line is checked in place of the file's.
    let open = Overrides { listen: Listen::parse("0.0.0.0:1") };
    let found = Config::parse(r#"{"mcp_servers":{}}"#, &|_| None, &open).unwrap_err();
    assert_eq!(found.first().map(|problem| problem.at.as_str()), Some("/listen"));
    let local = Overrides { listen: Listen::parse("127.0.0.1:1") };
    let text = r#"{"listen":"0.0.0.0:1","mcp_servers":{}}"#;
    assert!(Config::parse(text, &|_| None, &local).is_ok());
}

#[test]
fn a_key_is_kept_as_its_hash_alone() {
    let text = r#"{"mcp_servers":{},"api_keys":[{"name":"a","key":"${TOKEN}"}]}"#;
    let config = parse(text).unwrap();
    assert_eq!(Some(config.api_keys[0].sha256), hash_key("hunter2-hunter2"));
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn the_secrets_of_a_configuration_are_known_and_never_printed() {
    let text = r#"{"mcp_servers":{
        "a":{"url":"http://a/?k=${TOKEN}","headers":{"Authorization":"Bearer ${TOKEN}"},
             "proxy":"http://u:${TOKEN}@p:1"},
        "b":{"command":"x","env":{"KEY":"${TOKEN}","DEBUG":"true"}}}}"#;
    let config = parse(text).unwrap();
    let secrets = config.secrets();
    let exposed: Vec<_> = secrets.iter().map(|secret| secret.expose()).collect();
    let token = "hunter2-hunter2";
    let (header, query) = ("Bearer hunter2-hunter2", "k=hunter2-hunter2");
    let base64 = "aHVudGVyMi1odW50ZXIy";
    let readable: Vec<_> =
        exposed.iter().copied().filter(|form| form.contains(token)).collect();
    let (in_url, query_in_url) = ("Bearer%20hunter2-hunter2", "k%3Dhunter2-hunter2");
    assert_eq!(readable, [token, header, in_url, query, query_in_url, token]);
    assert_eq!(exposed.iter().filter(|form| **form == base64).count(), 2, "{exposed:?}");
    assert!(!format!("{secrets:?}").contains("hunter2"));
}

#[test]
fn a_server_that_nobody_can_call_is_told_of() {
    let server = |key: &str| {
        format!(
            r#""mcp_servers":{{"a":{{"url":"http://a/","headers":{{"X":"${{user.name}}"}}}},
            "b":{{"command":"x","env":{{"Y":"t=${{user.claims.tenant}}"}}}},
            "c":{{"url":"http://c/","forward_headers":["x-k"]}}}}{key}"#
        )
    };
    let warnings = |text: &str| -> Vec<String> {
        let warnings = parse(&format!("{{{text}}}")).unwrap().warnings;
        warnings.iter().map(ToString::to_string).collect()
    };
    let none = warnings(&server(""));
    assert_eq!(none.len(), 2, "{none:?}");
    assert!(none[0].starts_with("/mcp_servers/a/headers/X: names the user"), "{none:?}");
    assert!(none[1].starts_with("/mcp_servers/b/env/Y: names a claim"), "{none:?}");
    let keyed =
        warnings(&server(r#","api_keys":[{"name":"k","key":"0123456789abcdef01234"}]"#));
    assert_eq!(keyed.len(), 1, "{keyed:?}");
    let anonymous = warnings(&server(r#","allow_anonymous":true"#));
    assert!(anonymous[2].starts_with("/mcp_servers/c/forward_headers: "), "{anonymous:?}");
}

#[test]
fn an_audience_that_clients_do_not_ask_for_is_told_of() {
    let told = |more: &str| {
        let text = format!(
            r#"{{"oauth":{{"rules":[{{}}],"issuers":[{{"issuer":"https://idp.example"{more},
            "mcp_servers":{{"a":{{"url":"http://a/"}}}}}}"#
        );
        let warnings = parse(&text).unwrap().warnings;
        warnings.iter().filter(|it| it.to_string().contains("(RFC 8707)")).count()
    };
    assert_eq!(told(r#","audience":"a"}]}"#), 1);
    assert_eq!(told(r#","audience":"a"}]},"public_url":"https://x.example""#), 0);
    assert_eq!(told(r#"}]},"public_url":"https://x.example""#), 0);
}

#[test]
fn a_key_with_the_name_of_a_user_is_told_of() {
    let key =
        |name: &str, n: u8| format!(r#"{{"name":"{name}","key":"0123456789abcdef0123{n}"}}"#);
    let keys = [key("alice@idp.example:8443", 1), key("alice@idp.example", 2), key("ci", 3)];
    let text = format!(
        r#"{{"api_keys":[{}],"oauth":{{"rules":[{{}}],"issuers":[
        {{"issuer":"https://idp.example:8443","audience":"a"}},
        {{"issuer":"https://idp.example:9443","audience":"a"}}]}},
        "mcp_servers":{{"a":{{"url":"http://a/"}}}}}}"#,
        keys.join(",")
    );
    let warnings = parse(&text).unwrap().warnings;
    let told: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    let of_names: Vec<_> = told.iter().filter(|it| it.contains("/name: ")).collect();
    assert!(
        matches!(of_names[..], [one] if one.starts_with("/api_keys/0/name: is how a user")),
        "{told:?}"
    );
}

#[test]
fn users_are_named_in_headers_and_environments_alone() {
    for (server, at) in [
        (r#"{"url":"http://a/${user.name}"}"#, "/mcp_servers/a/url"),
        (r#"{"command":"x","args":["${user.name}"]}"#, "/mcp_servers/a/args/0"),
        (r#"{"url":"http://a/","headers":{"X":"${user.nam}"}}"#, "/mcp_servers/a/headers/X"),
        (
            r#"{"url":"http://a/","headers":{"X":"${user.claims.}"}}"#,
            "/mcp_servers/a/headers/X",
        ),
    ] {
        let problems = parse(&format!(r#"{{"mcp_servers":{{"a":{server}}}}}"#)).unwrap_err();
        assert!(problems.iter().any(|it| it.to_string().starts_with(at)), "{at}: {problems:?}");
    }
}

#[test]
fn a_client_cannot_be_let_say_who_its_user_is_or_where_its_requests_go() {
    let of = |headers: &str, forwarded: &str| {
        parse(&format!(
            r#"{{"api_keys":[{{"name":"k","key":"0123456789abcdef01234"}}],"mcp_servers":{{"a":{{
            "url":"http://a/","headers":{{{headers}}},"forward_headers":["x-b","{forwarded}"]}}}}}}"#
        ))
    };
    let at = "/mcp_servers/a/forward_headers/1: ";
    for (headers, forwarded) in [
        (r#""X-User":"${user.name}""#, "x-user"),
        (r#""X-Tenant":"t=${user.claims.tenant}""#, "X-TENANT"),
        ("", "host"),
        ("", "X-Forwarded-For"),
    ] {
        let problems = of(headers, forwarded).unwrap_err();
        let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert!(told.len() == 1 && told[0].starts_with(at), "{forwarded}: {told:?}");
    }
    // A value that is the same for everybody may be replaced.
    assert!(of(r#""X-User":"${user.name}","X-Tenant":"all""#, "x-tenant").is_ok());
}

#[test]
fn what_keys_do_not_get_is_told_at_the_start() {
    let text = r#"{"allow_anonymous":true,
        "limits":{"body_bytes":800,"buffered_bytes":1024,"upstream_result_bytes":1000},
        "api_keys":[
            {"name":"one","key":"hunter2-hunter2-hunter2","tools":["a-get_*","!*-x"]},
            {"name":"two","key":"hunter3-hunter3-hunter3","servers":["a"],"tools":["a-*"]},
            {"name":"all","key":"hunter4-hunter4-hunter4","tools":["!a-x"]}],
        "mcp_servers":{"a":{"url":"http://a/"},"b":{"url":"http://b/"},"c":{"url":"http://c/"}}}"#;
    let warnings = parse(text).unwrap().warnings;
    assert_eq!(
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "/api_keys/0/tools: without \"servers\", the key sees no prompts and resources \
             either of servers of which it may use no tool: b, c; \"servers\" says which it sees",
            "/limits/body_bytes: 800 is more than one of several keys may have of \
             /limits/buffered_bytes (1024): a body of more than 768 bytes is always refused (503)",
            "/allow_anonymous: has no effect where keys or issuers are configured: who has \
             neither a key nor a token is not admitted",
        ]
    );
    for (limits, keys) in [(768, r#"{"name":"b","sha256":"HASH"}"#), (800, "")] {
        let key = r#"{"name":"a","key":"hunter2-hunter2-hunter2"}"#;
        let keys = keys.replace("HASH", &"0".repeat(64));
        let keys = if keys.is_empty() { key.to_owned() } else { format!("{key},{keys}") };
        let text = format!(
            r#"{{"limits":{{"body_bytes":{limits},"buffered_bytes":1024,
            "upstream_result_bytes":1000}},"api_keys":[{keys}],"mcp_servers":{{"a":{{"command":"x"}}}}}}"#
        );
        assert!(parse(&text).unwrap().warnings.is_empty(), "{text}");
    }
}

#[test]
fn every_bound_goes_to_its_own_place() {
    let ms = Duration::from_millis;
    let expected = Limits {
        connections: 11,
        connections_per_address: 12,
        buffered_bytes: 70_000,
        head_bytes: 1300,
        headers: 14,
        body_bytes: 15,
        head: ms(16),
        body: ms(17),
        idle: ms(18),
        write: ms(19),
        sessions: 20,
        sessions_per_key: 21,
        session_idle: ms(22),
        parked: ms(30),
        parked_calls: 34,
        parked_calls_per_key: 35,
        page_items: 31,
        streams: 23,
        stream_queue_bytes: 5000,
        heartbeat: ms(24),
        event_log_events: 32,
        event_log_bytes: 33,
        upstream_result_bytes: 2500,
        upstream_event_bytes: 2600,
        upstream_tools: 27,
        child_stderr_lines: 28,
        drain: ms(29),
        views: 36,
    };
    let text = r#"{"mcp_servers":{},"limits":{"connections":11,"connections_per_address":12,
        "buffered_bytes":70000,"head_bytes":1300,"headers":14,"body_bytes":15,"head_ms":16,
        "body_ms":17,"idle_ms":18,"write_ms":19,"sessions":20,"sessions_per_key":21,
        "session_idle_ms":22,"streams":23,"stream_queue_bytes":5000,"heartbeat_ms":24,
        "upstream_result_bytes":2500,"upstream_event_bytes":2600,"upstream_tools":27,
        "child_stderr_lines":28,"drain_ms":29,"parked_ms":30,"page_items":31,
        "event_log_events":32,"event_log_bytes":33,"parked_calls":34,
        "parked_calls_per_key":35,"views":36}}"#;
    assert_eq!(parse(text).unwrap().limits, expected);
}

#[test]
fn a_session_key_is_read_and_hosts_have_no_case() {
    let text = format!(
        r#"{{"session_key":"{}=","allowed_origins":["https://A.example"],
            "allowed_hosts":["B.example:80"],"mcp_servers":{{}}}}"#,
        "A".repeat(43)
    );
    let config = parse(&text).unwrap();
    assert_eq!(config.session_key, Some([0; 32]));
    assert_eq!(config.allowed_origins, ["https://a.example"]);
    assert_eq!(config.allowed_hosts.as_deref(), Some(["b.example:80".to_owned()].as_slice()));
}

#[test]
fn a_byte_order_mark_is_no_problem() {
    assert!(parse("\u{feff}{\"mcp_servers\":{}}").is_ok());
}

#[test]
fn users_without_rules_and_rules_behind_one_for_all_are_told() {
    let of = |rules: &str| {
        let text = format!(
            r#"{{"oauth":{{"issuers":[{{"issuer":"https://i"}}],"rules":[{rules}]}},
                "public_url":"https://g/t/","listen":"0.0.0.0:1",
                "mcp_servers":{{"a":{{"command":"x"}},"b":{{"command":"x","disabled":true}}}}}}"#
        );
        let config = parse(&text).unwrap();
        let told = config.warnings.iter().map(ToString::to_string).collect::<Vec<_>>();
        (config.oauth.unwrap(), told)
    };
    let (oauth, told) = of("");
    assert_eq!(told, ["/oauth: has no rule, so that nobody who signs in may do anything"]);
    assert_eq!(oauth.issuers[0].audience, "https://g/t/mcp");
    assert_eq!(oauth.issuers[0].base.as_deref(), Some("https://g/t"));
    let (oauth, told) = of(r#"{"servers":["*"]},{"claim":"c","any":["v"],"tools":[]}"#);
    assert_eq!(oauth.rules[0].servers.as_ref().unwrap().len(), 2);
    assert_eq!(
        told,
        [
            "/oauth/rules/0: is about every token, so that no rule behind it ever counts",
            "/oauth/rules/1/tools: this rule may use no tool; without \"tools\" it may use all",
        ]
    );
}

#[test]
fn an_audience_takes_the_place_of_the_bare_origin_but_not_of_the_endpoints_below() {
    for (audience, path, base) in [
        ("", "", "https://g"),
        (r#","audience":"api""#, "", "https://g/"),
        (r#","audience":"api""#, "/t", "https://g/t"),
    ] {
        let text = format!(
            r#"{{"oauth":{{"issuers":[{{"issuer":"https://i"{audience}}}],"rules":[{{"servers":["*"]}}]}},
                "public_url":"https://g{path}","mcp_servers":{{"a":{{"command":"x"}}}}}}"#
        );
        let config = parse(&text).unwrap();
        assert_eq!(config.oauth.unwrap().issuers[0].base.as_deref(), Some(base), "{text}");
    }
}

#[test]
fn issuers_beyond_this_machine_without_an_address_to_know_the_gateway_by_are_warned_of() {
    for (more, is_warned) in [
        (r#""listen":"0.0.0.0:1""#, true),
        (r#""listen":"192.0.2.1:1""#, true),
        (r#""listen":"127.0.0.1:1""#, false),
        (r#""listen":"0.0.0.0:1","allowed_hosts":["g"]"#, false),
        (r#""listen":"0.0.0.0:1","public_url":"https://g""#, false),
    ] {
        let text = format!(
            r#"{{"oauth":{{"issuers":[{{"issuer":"https://i","audience":"a"}}],
                "rules":[{{"servers":["*"]}}]}},{more},"mcp_servers":{{"a":{{"command":"x"}}}}}}"#
        );
        let told = parse(&text).unwrap().warnings;
        let is_told = told.iter().any(|it| it.to_string().contains("DPoP"));
        assert_eq!(is_told, is_warned, "{more}: {told:?}");
    }
}
