//! An authorization server that does not answer, beside others that do.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::support::authorization_server::{AuthorizationServer, Browser};
use crate::support::gateway::{Directory, Gateway};
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_until;

/// More servers than there once were threads for all.
const N_HANGING: usize = 6;

#[test]
fn one_that_hangs_holds_up_nobody_elses_renewals_and_sign_ins() {
    let (hung, good) = (AuthorizationServer::start(), AuthorizationServer::start());
    let machine = json!({
        "grant": "client_credentials", "client_id": "me", "client_secret": "a secret of mine",
    });
    for auth in [&hung, &good] {
        auth.set_metadata(
            "token_endpoint_auth_methods_supported",
            json!(["client_secret_basic", "none"]),
        );
    }
    let behind_hung: Vec<_> = (0..N_HANGING).map(|_| HttpUpstream::start()).collect();
    let (of_machine, of_person) =
        (HttpUpstream::labelled("machine"), HttpUpstream::labelled("person"));
    let mut servers = Map::new();
    let entry = |upstream: &HttpUpstream, oauth: Value| json!({ "url": upstream.url(), "transport": "http", "oauth": oauth });
    for (n, upstream) in behind_hung.iter().enumerate() {
        hung.protect(upstream);
        servers.insert(format!("hung-{n}"), entry(upstream, machine.clone()));
    }
    for (upstream, name, oauth) in
        [(&of_machine, "machine", machine.clone()), (&of_person, "person", json!(true))]
    {
        good.protect(upstream);
        servers.insert(name.to_owned(), entry(upstream, oauth));
    }
    let (state, browser) = (Directory::new(), Browser::start());
    hung.listener.hang();
    let config = json!({
        "mcp_servers": servers, "state_dir": state.path(), "first_list_ms": 100,
    });
    let gateway = Gateway::with(config).env("BROWSER", &browser.command()).start();
    wait_until("all that can wait for it do", || hung.listener.n_requests() >= 4);
    let began = Instant::now();
    // The page, its callback and a machine's token, all beside it.
    gateway.wait_until_well(&["machine", "person"]);
    for (name, auth) in [("machine", &good), ("person", &good)] {
        auth.end_access_tokens();
        gateway.call(&format!("{name}-echo"), &json!({ "text": "hi" })).expect(200);
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(browser.pages().len(), 1);
    let of_hung = gateway.status_of("hung-0");
    assert_ne!(of_hung["state"], "ready", "{of_hung}");
    hung.listener.resume();
}
