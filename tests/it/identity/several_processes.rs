//! Several processes with one `state_dir`, which hold one refresh token.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use super::upstream_sign_in::{call, configured, signing_in};
use crate::support::authorization_server::{AuthorizationServer, Browser};
use crate::support::gateway::{Directory, binary};
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_until;

#[test]
fn one_refresh_token_is_never_used_twice() {
    let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
    auth.protect(&upstream);
    let (state, browser) = (Directory::new(), Browser::start());
    let gateway = signing_in(&upstream.url(), json!(true), &state, &browser);
    gateway.wait_until_well(&["s"]);
    auth.be_slow(Duration::from_millis(300));
    for _ in 0..3 {
        auth.end_access_tokens();
        let config = gateway.directory().join("config.json");
        let commands: Vec<_> = (0..3)
            .map(|_| {
                let mut command = Command::new(binary());
                command.args(["call", "echo", "text=hi", "-c"]).arg(&config);
                command.env_remove("BROWSER").stdin(Stdio::null());
                command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        call(&gateway);
        for command in commands {
            let output = command.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{said}");
        }
    }
    assert_eq!(auth.n_reused(), 0);
    let refreshes = auth.seen_of("POST /token");
    let refreshes = refreshes.iter().filter(|it| it.field("grant_type") == "refresh_token");
    // One whenever the tokens have ended, and not one for each process.
    assert_eq!(refreshes.count(), 3);
    assert_eq!(browser.pages().len(), 1);
}

#[test]
fn a_process_that_ends_amid_a_renewal_keeps_the_new_tokens() {
    let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
    auth.protect(&upstream);
    auth.set_lifetime(Some(Duration::from_secs(8)));
    let (state, browser) = (Directory::new(), Browser::start());
    let gateway = signing_in(&upstream.url(), json!(true), &state, &browser);
    gateway.wait_until_well(&["s"]);
    auth.be_slow_to_answer(Duration::from_secs(1));
    let refreshes = || {
        let of = auth.seen_of("POST /token");
        of.iter().filter(|it| it.field("grant_type") == "refresh_token").count()
    };
    wait_until("it is renewed in advance", || refreshes() > 0);
    gateway.stop();
    auth.be_slow_to_answer(Duration::ZERO);
    let gateway = configured(&upstream.url(), json!(true), &state).start();
    gateway.wait_until_well(&["s"]);
    auth.end_access_tokens();
    call(&gateway);
    assert_eq!((auth.n_reused(), browser.pages().len()), (0, 1));
}
