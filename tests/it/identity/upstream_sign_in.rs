//! The gateway as OAuth client of a server: the person at its machine signs in, and tokens are
//! renewed.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::authorization_server::{AuthorizationServer, Browser, Consent};
use crate::support::gateway::{Builder, Directory, Gateway};
use crate::support::http::{Request, exchange};
use crate::support::upstream_http::HttpUpstream;
use crate::support::{wait_for, wait_until};

/// A gateway before a server with this `oauth`; its credentials are kept in the folder.
pub(super) fn configured(url: &str, oauth: Value, state: &Directory) -> Builder {
    let server = json!({ "url": url, "transport": "http", "oauth": oauth });
    let config = json!({
        "mcp_servers": { "s": server },
        "state_dir": state.path(),
        "first_list_ms": 100,
        "log": { "level": "debug" },
    });
    Gateway::with(config)
}

/// The same, with a person who agrees to everything.
pub(super) fn signing_in(
    url: &str,
    oauth: Value,
    state: &Directory,
    browser: &Browser,
) -> Gateway {
    configured(url, oauth, state).env("BROWSER", &browser.command()).start()
}

/// Calls a tool, which must go well.
#[track_caller]
pub(super) fn call(gateway: &Gateway) {
    gateway.call("echo", &json!({ "text": "hi" })).expect(200);
}

#[test]
fn the_page_is_opened_once_calls_wait_and_the_sign_in_outlives_the_gateway() {
    let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
    let protection = auth.protect(&upstream);
    protection.need("basic");
    let (state, browser) = (Directory::new(), Browser::start());
    let gateway = signing_in(&upstream.url(), json!(true), &state, &browser);
    gateway.wait_until_well(&["s"]);
    call(&gateway);
    let page = &auth.seen_of("GET /authorize")[0];
    assert_eq!(page.field("resource"), upstream.url());
    assert_eq!(page.field("scope"), "basic");
    assert_eq!(page.field("code_challenge_method"), "S256");
    let redirect = format!("http://{}/oauth/callback", gateway.address());
    assert_eq!(page.field("redirect_uri"), redirect);
    let token = &auth.seen_of("POST /token")[0];
    assert_eq!(token.field("resource"), upstream.url());
    assert_eq!(browser.pages().len(), 1);
    assert_eq!(gateway.status_of("s")["state"], "ready");
    gateway.stop();
    // Another process finds what is kept.
    let gateway = configured(&upstream.url(), json!(true), &state).start();
    gateway.wait_until_well(&["s"]);
    call(&gateway);
    assert_eq!(auth.seen_of("GET /authorize").len(), 1);
}

#[test]
fn without_a_browser_the_state_says_which_command_and_the_others_serve_on() {
    let (auth, upstream, other) =
        (AuthorizationServer::start(), HttpUpstream::start(), HttpUpstream::labelled("o"));
    auth.protect(&upstream);
    let state = Directory::new();
    let gateway = Gateway::with(json!({
        "mcp_servers": {
            "s": { "url": upstream.url(), "transport": "http", "oauth": true },
            "o": { "url": other.url(), "transport": "http" },
        },
        "state_dir": state.path(),
        "first_list_ms": 100,
    }))
    .start();
    gateway.wait_until_well(&["o"]);
    let told = wait_for("it needs a sign-in", || {
        let told = gateway.status_of("s");
        (told["state"] == "needs_sign_in").then_some(told)
    });
    assert!(told.to_string().contains("trunkline login s"), "{told}");
    gateway.call("o-echo", &json!({ "text": "hi" })).expect(200);
    assert!(auth.seen_of("GET /authorize").is_empty());
}

#[test]
fn a_token_is_renewed_in_advance_and_after_a_refusal_without_the_person() {
    let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
    let protection = auth.protect(&upstream);
    auth.set_lifetime(Some(Duration::from_secs(8)));
    let (state, browser) = (Directory::new(), Browser::start());
    let gateway = signing_in(&upstream.url(), json!(true), &state, &browser);
    gateway.wait_until_well(&["s"]);
    let refreshes = || {
        let of = auth.seen_of("POST /token");
        of.iter().filter(|it| it.field("grant_type") == "refresh_token").count()
    };
    let n_metadata = || auth.seen_of("GET /.well-known/oauth-authorization-server").len();
    let before = n_metadata();
    // Nobody calls meanwhile.
    wait_until("it is renewed in advance", || refreshes() > 0);
    assert_eq!(n_metadata(), before, "what was read just now is used again");
    auth.set_lifetime(None);
    wait_until("the token in use is renewed no more in advance", || {
        call(&gateway);
        protection.is_used_without_end()
    });
    let before = refreshes();
    auth.end_access_tokens();
    call(&gateway);
    assert_eq!(refreshes(), before + 1);
    assert_eq!((auth.n_reused(), browser.pages().len()), (0, 1));
}

#[test]
fn calls_at_once_are_one_refresh() {
    let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
    auth.protect(&upstream);
    let (state, browser) = (Directory::new(), Browser::start());
    let gateway = signing_in(&upstream.url(), json!(true), &state, &browser);
    gateway.wait_until_well(&["s"]);
    auth.end_access_tokens();
    auth.be_slow(Duration::from_millis(200));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| call(&gateway));
        }
    });
    let of = auth.seen_of("POST /token");
    assert_eq!(of.iter().filter(|it| it.field("grant_type") == "refresh_token").count(), 1);
    assert_eq!(auth.n_reused(), 0);
}

#[test]
fn a_refresh_token_that_has_ended_leads_to_another_sign_in() {
    let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
    auth.protect(&upstream);
    let (state, browser) = (Directory::new(), Browser::start());
    let gateway = signing_in(&upstream.url(), json!(true), &state, &browser);
    gateway.wait_until_well(&["s"]);
    auth.end_access_tokens();
    auth.end_refresh_tokens();
    call(&gateway);
    assert_eq!(browser.pages().len(), 2);
    assert_eq!(auth.seen_of("POST /register").len(), 1, "the registration is kept");
}

#[test]
fn a_call_that_needs_more_rights_asks_for_both_once() {
    let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
    let protection = auth.protect(&upstream);
    protection.need("basic");
    protection.need_for_calls("write");
    let (state, browser) = (Directory::new(), Browser::start());
    let gateway = signing_in(&upstream.url(), json!(true), &state, &browser);
    gateway.wait_until_well(&["s"]);
    call(&gateway);
    let pages = auth.seen_of("GET /authorize");
    assert_eq!(pages.len(), 2);
    assert_eq!(pages[1].field("scope"), "basic write");
    // What was asked for and is not enough is not asked for again.
    protection.need_for_calls("never");
    let pages = |n: usize| assert_eq!(auth.seen_of("GET /authorize").len(), n);
    gateway.call("echo", &json!({ "text": "hi" })).expect(200);
    pages(3);
}

#[test]
fn a_sign_in_that_is_refused_ends_the_calls_that_wait() {
    for (consent, said) in [
        (Consent::Denies, "access_denied"),
        (Consent::AsIssuer("https://evil.example".to_owned()), "refused"),
        (Consent::WithoutIssuer, "refused"),
    ] {
        let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
        auth.protect(&upstream);
        auth.consent(consent.clone());
        let (state, browser) = (Directory::new(), Browser::start());
        let gateway = signing_in(&upstream.url(), json!(true), &state, &browser);
        let told = wait_for("it was refused", || {
            let told = gateway.status_of("s");
            (told["state"] == "needs_sign_in" && told.to_string().contains(said))
                .then_some(told)
        });
        assert!(!told.to_string().contains("evil"), "{told}");
        assert!(auth.seen_of("POST /token").is_empty(), "{consent:?}");
        assert_eq!(browser.pages().len(), 1, "{consent:?}");
    }
}

#[test]
fn a_client_credentials_token_is_had_without_a_person() {
    let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
    auth.protect(&upstream).need("batch");
    auth.set_metadata("token_endpoint_auth_methods_supported", json!(["client_secret_basic"]));
    let state = Directory::new();
    let oauth = json!({ "grant": "client_credentials", "client_id": "me", "client_secret": "hush hush" });
    let gateway = configured(&upstream.url(), oauth, &state).start();
    gateway.wait_until_well(&["s"]);
    call(&gateway);
    auth.end_access_tokens();
    call(&gateway);
    let asked = auth.seen_of("POST /token");
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].field("scope"), "batch");
    assert!(asked[0].authorization.as_ref().unwrap().starts_with("Basic "));
    assert!(auth.seen_of("POST /register").is_empty());
    assert!(!gateway.stderr().contains("hush"));
}

#[test]
fn a_renewal_follows_the_authorization_server_where_it_has_moved_its_token_endpoint() {
    let machine = json!({
        "grant": "client_credentials", "client_id": "me", "client_secret": "hush hush",
    });
    for oauth in [json!(true), machine] {
        let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
        auth.protect(&upstream);
        if oauth.is_object() {
            let methods = json!(["client_secret_basic"]);
            auth.set_metadata("token_endpoint_auth_methods_supported", methods);
        }
        let (state, browser) = (Directory::new(), Browser::start());
        let gateway = signing_in(&upstream.url(), oauth.clone(), &state, &browser);
        gateway.wait_until_well(&["s"]);
        // The tokens of the next process end soon, and it knows the old endpoint from its files.
        auth.set_lifetime(Some(Duration::from_secs(4)));
        auth.end_access_tokens();
        call(&gateway);
        gateway.stop();
        let moved = format!("{}/moved/token", auth.issuer());
        auth.set_metadata("token_endpoint", json!(moved));
        let n_old = auth.seen_of("POST /token").len();
        let gateway = configured(&upstream.url(), oauth.clone(), &state).start();
        wait_until("it is renewed", || !auth.seen_of("POST /moved/token").is_empty());
        gateway.wait_until_well(&["s"]);
        call(&gateway);
        gateway.stop();
        // What calls itself another issuer moves nothing.
        auth.set_metadata("issuer", json!("https://evil.example"));
        auth.set_metadata("token_endpoint", json!(format!("{}/evil", auth.issuer())));
        let n_moved = auth.seen_of("POST /moved/token").len();
        let gateway = configured(&upstream.url(), oauth, &state).start();
        wait_until("it is renewed", || auth.seen_of("POST /moved/token").len() > n_moved);
        gateway.wait_until_well(&["s"]);
        call(&gateway);
        assert!(auth.seen_of("POST /evil").is_empty());
        assert_eq!(auth.seen_of("POST /token").len(), n_old);
    }
}

#[test]
fn a_server_that_wants_ever_more_scopes_gets_none_beside_the_configured_and_few_otherwise() {
    for (scopes, n_most) in [(json!(["read"]), 1), (json!(null), 9)] {
        let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
        let protection = auth.protect(&upstream);
        let state = Directory::new();
        let mut oauth = json!({
            "grant": "client_credentials", "client_id": "me", "client_secret": "hush hush",
        });
        if !scopes.is_null() {
            oauth["scopes"] = scopes.clone();
        }
        let gateway = configured(&upstream.url(), oauth, &state).start();
        gateway.wait_until_well(&["s"]);
        let mut told = String::new();
        for n in 0..14 {
            protection.need_for_calls(&format!("admin{n}"));
            told = gateway.call("echo", &json!({ "text": "hi" })).text().to_owned();
        }
        assert!(told.contains("admin13"), "{told}");
        let asked = auth.seen_of("POST /token");
        assert!(asked.len() <= n_most, "{}", asked.len());
        if !scopes.is_null() {
            assert!(asked.iter().all(|it| it.field("scope") == "read"), "{asked:?}");
            assert!(told.contains("configured"), "{told}");
        }
    }
}

/// The list of processes shows the page of the authorization server to every user of the system.
#[test]
#[cfg(target_os = "linux")]
fn a_page_that_the_gateway_has_opened_is_answered_by_a_live_process_of_its_own_user() {
    use std::io::{Read as _, Write as _};
    let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
    auth.protect(&upstream);
    // This browser only notes the page.
    let state = Directory::new();
    let script = state.path().join("browser.sh");
    std::fs::write(&script, "#!/bin/sh\nprintf '%s\\n' \"$1\" > \"$0.page\"\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).unwrap();
    let command = format!("{} %s", script.display());
    let gateway =
        configured(&upstream.url(), json!(true), &state).env("BROWSER", &command).start();
    let page = wait_for("a page is opened", || {
        let noted = std::fs::read_to_string(state.path().join("browser.sh.page")).ok()?;
        noted.strip_suffix('\n').map(str::to_owned)
    });
    let (address, target) = page.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let answer = exchange(address, &Request::get(&format!("/{target}"))).expect(302);
    let back = answer.header("Location").unwrap().to_owned();
    let (_, path) = back.strip_prefix("http://").unwrap().split_once('/').unwrap();
    // The system does not name the user of a connection that its process has closed.
    let mut stream = std::net::TcpStream::connect(gateway.address()).unwrap();
    let head = format!("GET /{path} HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.address());
    stream.write_all(head.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut refused = String::new();
    stream.read_to_string(&mut refused).unwrap();
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    assert!(auth.seen_of("POST /token").is_empty());
    exchange(gateway.address(), &Request::get(&format!("/{path}"))).expect(200);
    gateway.wait_until_well(&["s"]);
}

/// Servers' authorization servers are told the address at which browsers find the gateway now.
#[test]
fn a_reload_with_another_public_url_moves_what_browsers_come_back_to() {
    let upstream = HttpUpstream::start();
    let whole = |public_url: Option<&str>| {
        let mut config = json!({
            "listen": "127.0.0.1:0",
            "mcp_servers": { "s": { "url": upstream.url(), "transport": "http" } },
        });
        if let Some(url) = public_url {
            config["public_url"] = json!(url);
        }
        config
    };
    let gateway = Gateway::with(whole(None)).start();
    gateway.get("/oauth/client.json").expect(404);
    for url in ["https://one.example.org", "https://two.example.org/trunk"] {
        gateway.reload(&whole(Some(url)));
        let document = gateway.get("/oauth/client.json").expect(200).json();
        assert_eq!(document["client_id"], format!("{url}/oauth/client.json"));
        assert_eq!(document["redirect_uris"], json!([format!("{url}/oauth/callback")]));
    }
}
