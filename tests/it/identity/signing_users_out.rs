//! The end of users' own sign-ins: by the operator, and when a key leaves the configuration.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use super::asked_to_sign_in::{sign_in, text_of};
use crate::support::authorization_server::AuthorizationServer;
use crate::support::gateway::{Directory, Gateway, binary};
use crate::support::host::Host;
use crate::support::http::{Request, Response};
use crate::support::issuer::Issuer;
use crate::support::upstream_http::HttpUpstream;
use crate::support::{wait_for, wait_within};

const USERS: [(&str, &str); 3] = [
    ("alice", "key-of-alice-00000"),
    ("bob", "key-of-bob-0000000"),
    ("carol", "key-of-carol-00000"),
];

struct Scene {
    auth: AuthorizationServer,
    _upstream: HttpUpstream,
    state: Directory,
    config: Value,
    gateway: Gateway,
}

fn keys(names: &[&str]) -> Value {
    let meant = USERS.iter().filter(|(name, _)| names.contains(name));
    meant.map(|(name, key)| json!({ "name": name, "key": key })).collect()
}

fn key_of(name: &str) -> &'static str {
    USERS.iter().find(|(it, _)| *it == name).unwrap().1
}

/// How soon a gateway looks at the files.
const SOON: Duration = Duration::from_secs(5);

impl Scene {
    fn start() -> Scene {
        Scene::with(json!({ "api_keys": keys(&["alice", "bob", "carol"]) }))
    }

    fn with(further: Value) -> Scene {
        let (auth, upstream, state) =
            (AuthorizationServer::start(), HttpUpstream::start(), Directory::new());
        auth.protect(&upstream);
        let mut config = json!({
            "mcp_servers": { "s": {
                "url": upstream.url(), "transport": "http", "oauth": true, "credentials": "per_user",
            } },
            "state_dir": state.path(),
            "first_list_ms": 100,
        });
        for (key, value) in further.as_object().unwrap() {
            config[key.as_str()] = value.clone();
        }
        let gateway = Gateway::with(config.clone()).start();
        Scene { auth, _upstream: upstream, state, config, gateway }
    }

    fn call(&self, key: &str) -> Response {
        let body = json!({ "name": "echo", "arguments": { "message": "hello" } });
        let request = Request::post("/mcp/tools/call", &body);
        self.gateway.send(&request.header("Authorization", &format!("Bearer {key}")))
    }

    fn works(&self, key: &str) {
        assert_eq!(text_of(&self.call(key).expect(200).json()), "hello");
    }

    /// The page of a user who has to sign in.
    fn page_of(&self, key: &str) -> Option<String> {
        let answer = self.call(key);
        let text = answer.text().to_owned();
        let url = text.split_once("open http").map(|(_, rest)| rest)?;
        Some(format!("http{}", url.split(' ').next()?))
    }

    fn signs_in(&self, key: &str) {
        let page = self.page_of(key).expect("a page");
        sign_in(self.gateway.address(), &page, key);
        self.works(key);
    }

    fn has_to_sign_in(&self, key: &str) {
        wait_within(SOON, "the user has to sign in", || self.page_of(key));
    }

    fn logout(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let config = self.gateway.directory().join("config.json");
        let mut command = Command::new(binary());
        command.args(["logout", "s"]).args(words).arg("-c").arg(config);
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (status.code(), text(stdout), text(stderr))
    }

    fn files(&self) -> usize {
        files(self.state.path())
    }
}

/// The number of users' files.
fn files(state: &Path) -> usize {
    let names = std::fs::read_dir(state).unwrap().map(|it| it.unwrap().file_name());
    let names = names.map(|it| it.into_string().unwrap());
    let is_its = |it: &String| it.starts_with("oauth-s-") && !it.contains('.');
    names.filter(is_its).count()
}

#[test]
fn the_operator_signs_one_user_out_and_the_running_gateway_notices() {
    let scene = Scene::start();
    for (_, key) in USERS {
        scene.signs_in(key);
    }
    assert_eq!(scene.files(), 3);
    let (code, out, errors) = scene.logout(&["--user", "alice"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{out}");
    let told = "signed out alice at s: its tokens are deleted, and revoked at the authorization \
                server\n1 sign-in has ended at s\n";
    assert_eq!(out, told);
    assert_eq!(scene.auth.seen_of("POST /revoke").len(), 2);
    scene.has_to_sign_in(key_of("alice"));
    assert_eq!(scene.files(), 2);
    scene.works(key_of("bob"));
    // One who is not signed in is told, with those who are.
    let (code, out, errors) = scene.logout(&["--user", "alice"]);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{errors}");
    assert!(errors.contains("\"alice\" was not signed in at s; signed in there: bob, carol"));
    let (code, out, errors) = scene.logout(&[]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(out.ends_with("2 sign-ins have ended at s\n"), "{out}");
    assert_eq!(scene.auth.seen_of("POST /revoke").len(), 6);
    scene.has_to_sign_in(key_of("bob"));
    scene.has_to_sign_in(key_of("carol"));
    assert_eq!(scene.files(), 0);
    // Who was signed out can sign in again.
    scene.signs_in(key_of("alice"));
}

#[test]
fn an_authorization_server_that_is_silent_is_asked_once() {
    let scene = Scene::start();
    for (_, key) in USERS {
        scene.signs_in(key);
    }
    scene.auth.listener.stop();
    let (code, out, errors) = scene.logout(&[]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(out.ends_with("3 sign-ins have ended at s\n"), "{out}");
    assert_eq!(errors.matches("did not revoke the tokens").count(), 3, "{errors}");
    assert_eq!(errors.matches("it has not answered a moment ago").count(), 2, "{errors}");
    assert_eq!(scene.files(), 0);
}

#[test]
fn a_user_with_a_token_is_signed_out_by_the_name_that_the_log_has() {
    let issuer = Issuer::start();
    let scene = Scene::with(json!({ "oauth": {
        "issuers": [issuer.config()],
        "rules": [{ "claim": "groups", "any": ["dev"], "servers": ["*"] }],
    } }));
    let token = issuer.token("alice", &["dev"]);
    scene.signs_in(&token);
    let (_, _, errors) = scene.logout(&["--user", "nobody"]);
    let name = errors.trim().rsplit(' ').next().unwrap().to_owned();
    assert!(name.starts_with("alice@127.0.0.1"), "{errors}");
    let (code, out, errors) = scene.logout(&["--user", &name]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(out.starts_with(&format!("signed out {name} at s")), "{out}{errors}");
    scene.has_to_sign_in(&token);
}

#[test]
fn a_sign_in_ends_with_its_key_at_a_reload_and_at_the_next_start() {
    let scene = Scene::start();
    for (_, key) in USERS {
        scene.signs_in(key);
    }
    let mut config = scene.config.clone();
    config["api_keys"] = keys(&["alice", "bob"]);
    scene.gateway.reload(&config);
    wait_for("carol's file is gone", || (scene.files() == 2).then_some(()));
    wait_for("her tokens are revoked", || {
        (scene.auth.seen_of("POST /revoke").len() == 2).then_some(())
    });
    scene.works(key_of("alice"));
    let Scene { auth, _upstream, state, gateway, .. } = scene;
    let told = gateway.stop().stderr;
    assert!(told.contains("the sign-in of carol ends, whose key is not"), "{told}");
    config["api_keys"] = keys(&["alice"]);
    let gateway = Gateway::with(config.clone()).start();
    wait_for("bob's file is gone", || (files(state.path()) == 1).then_some(()));
    wait_for("his tokens are revoked", || {
        (auth.seen_of("POST /revoke").len() == 4).then_some(())
    });
    drop(gateway);
}

#[test]
fn a_gateway_without_keys_for_one_client_of_lines_ends_nobodys_sign_in() {
    let scene = Scene::start();
    scene.signs_in(key_of("alice"));
    let other = HttpUpstream::start();
    let mut config = scene.config.clone();
    config.as_object_mut().unwrap().remove("api_keys");
    let host = Host::of(&config).opened("2025-11-25");
    config["mcp_servers"]["other"] = json!({ "url": other.url(), "transport": "http" });
    host.reload(&config);
    host.wait_told("notifications/tools/list_changed");
    // What is to be ended is ended on another thread.
    std::thread::park_timeout(Duration::from_millis(500));
    assert_eq!((scene.files(), scene.auth.seen_of("POST /revoke").len()), (1, 0));
    scene.works(key_of("alice"));
}
