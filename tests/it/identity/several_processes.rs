//! Several processes with one `state_dir`, which hold one refresh token.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use super::upstream_sign_in::{call, signing_in};
use crate::support::authorization_server::{AuthorizationServer, Browser};
use crate::support::gateway::{Directory, binary};
use crate::support::upstream_http::HttpUpstream;

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
