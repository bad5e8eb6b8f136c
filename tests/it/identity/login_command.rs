//! `trunkline login` and `logout` as a person runs them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::authorization_server::{
    AuthorizationServer, Browser, Consent, Protection, follow,
};
use crate::support::gateway::{Directory, Gateway, binary};
use crate::support::http::{Request, exchange};
use crate::support::upstream_http::HttpUpstream;
use crate::support::{wait_for, wait_within};

const ADMIN: &str = "key-of-the-admin-0";

/// A configuration in a folder, before a protected server.
struct Place {
    auth: AuthorizationServer,
    protection: Arc<Protection>,
    upstream: HttpUpstream,
    folder: Directory,
}

impl Place {
    fn with(oauth: Value, further: Value) -> Place {
        let (auth, upstream, folder) =
            (AuthorizationServer::start(), HttpUpstream::start(), Directory::new());
        let protection = auth.protect(&upstream);
        let mut config = json!({
            "listen": "127.0.0.1:0",
            "mcp_servers": {
                "s": { "url": upstream.url(), "transport": "http", "oauth": oauth },
                "plain": { "url": upstream.url() },
                "own": { "url": upstream.url(), "oauth": true, "credentials": "per_user" },
            },
            "state_dir": "state",
            "first_list_ms": 100,
        });
        for (key, value) in further.as_object().unwrap() {
            config[key.as_str()] = value.clone();
        }
        let place = Place { auth, protection, upstream, folder };
        place.write(&config);
        place
    }

    fn write(&self, config: &Value) {
        std::fs::write(self.file(), config.to_string()).unwrap();
    }

    fn file(&self) -> String {
        self.folder.path().join("config.json").to_str().unwrap().to_owned()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(words).args(["-c", &self.file()]);
        command.env_remove("BROWSER").env_remove("TRUNKLINE_KEY");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, words: &[&str]) -> (Option<i32>, String, String) {
        ended(self.command(words).spawn().unwrap())
    }

    /// A person signs in, and agrees to everything.
    fn signs_in(&self) {
        let mut child = self.command(&["login", "s"]).spawn().unwrap();
        let url = url_of(&mut child);
        assert!(follow(&url).unwrap().contains("Signed in to s"));
        assert_eq!(ended(child).0, Some(0));
    }

    /// A gateway with the same configuration and the same folder.
    fn serve(&self) -> Gateway {
        let text = std::fs::read_to_string(self.file()).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config["state_dir"] = self.folder.path().join("state").to_str().unwrap().into();
        config["mcp_servers"].as_object_mut().unwrap().retain(|name, _| name == "s");
        Gateway::with(config).start()
    }
}

fn ended(child: Child) -> (Option<i32>, String, String) {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Reads standard error up to the URL that a person opens.
fn url_of(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    let found = lines.find_map(|line| {
        let line = line.unwrap();
        line.strip_prefix("  http").map(|rest| format!("http{rest}"))
    });
    found.expect("a URL")
}

#[test]
fn a_browser_signs_in_on_loopback_and_serve_finds_it() {
    let place = Place::with(json!(true), json!({}));
    let browser = Browser::start();
    let mut command = place.command(&["login", "s"]);
    let (code, out, errors) = ended(command.env("BROWSER", browser.command()).spawn().unwrap());
    assert_eq!(code, Some(0), "{errors}");
    assert!(out.starts_with("signed in to s until "), "{out}");
    assert!(errors.contains("state") && errors.contains("/authorize?"), "{errors}");
    let page = wait_for("the browser has its page", || browser.answers().first().cloned());
    assert!(page.contains("Signed in to s") && page.contains("close this window"), "{page}");
    let asked = &place.auth.seen_of("GET /authorize")[0];
    let redirect = asked.field("redirect_uri").to_owned();
    assert!(redirect.starts_with("http://127.0.0.1:") && redirect.ends_with("/oauth/callback"));
    let gateway = place.serve();
    gateway.wait_until_well(&["s"]);
    gateway.call("echo", &json!({ "text": "hi" })).expect(200);
    // No token is anywhere but in its file.
    assert!(!out.contains("token-") && !errors.contains("token-"), "{out}{errors}");
}

#[test]
fn one_registration_serves_one_login_after_the_other() {
    let place = Place::with(json!(true), json!({}));
    let n_registered = || place.auth.seen_of("POST /register").len();
    place.signs_in();
    place.signs_in();
    assert_eq!(n_registered(), 1);
    let asked = place.auth.seen_of("GET /authorize");
    assert_eq!(asked[0].field("client_id"), asked[1].field("client_id"));
    assert_eq!(asked[0].field("redirect_uri"), asked[1].field("redirect_uri"));
    // Another process has the port now, and an authorization server may compare ports.
    let redirect = asked[1].field("redirect_uri");
    let port: u16 = redirect.split([':', '/']).nth(4).unwrap().parse().unwrap();
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    place.signs_in();
    assert_eq!(n_registered(), 2);
    drop(taken);
    // What a sign-in has come to nothing with may be lost at the authorization server, which tells
    // the person alone.
    let mut child = place.command(&["login", "s"]).spawn().unwrap();
    url_of(&mut child);
    assert_eq!(n_registered(), 2);
    child.kill().unwrap();
    child.wait().unwrap();
    place.signs_in();
    assert_eq!(n_registered(), 3);
    place.signs_in();
    assert_eq!(n_registered(), 3);
}

/// Another process of the machine, or a browser that opens connections in advance.
#[test]
fn connections_that_say_nothing_do_not_delay_the_browser() {
    let place = Place::with(json!(true), json!({}));
    let mut child = place.command(&["login", "s"]).spawn().unwrap();
    let url = url_of(&mut child);
    let (_, rest) = url.split_once("127.0.0.1%3A").expect("a loopback address to come back to");
    let port: u16 = rest.split('%').next().unwrap().parse().unwrap();
    let silent: Vec<_> =
        (0..6).map(|_| std::net::TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    let began = std::time::Instant::now();
    assert!(follow(&url).unwrap().contains("Signed in to s"));
    assert_eq!(ended(child).0, Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(silent);
}

#[test]
fn check_says_who_must_sign_in_and_until_when_somebody_has() {
    let place = Place::with(json!(true), json!({}));
    let text = std::fs::read_to_string(place.file()).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["mcp_servers"].as_object_mut().unwrap().retain(|name, _| name != "own");
    place.write(&config);
    let (code, out, errors) = place.run(&["check"]);
    assert_eq!(code, Some(69), "{out}{errors}");
    for part in
        ["credentials ✗", "trunkline login s", "run that command where the gateway runs"]
    {
        assert!(out.contains(part), "{part}: {out}");
    }
    // The other server is the same one without "oauth".
    assert!(out.contains("\"oauth\": true"), "{out}");
    let (_, out, _) = place.run(&["check", "--json"]);
    let told: Value = serde_json::from_str(&out).unwrap();
    let of = |told: &Value| {
        let all = told["servers"].as_array().unwrap().clone();
        all.into_iter().find(|it| it["server"] == "s").unwrap()
    };
    assert_eq!(
        (&of(&told)["sign_in"], &of(&told)["signed_in_until"]),
        (&json!("needed"), &Value::Null)
    );
    let browser = Browser::start();
    let mut command = place.command(&["login", "s"]);
    let code = ended(command.env("BROWSER", browser.command()).spawn().unwrap()).0;
    assert_eq!(code, Some(0));
    let (_, out, _) = place.run(&["check"]);
    assert!(out.contains("signed in until 20"), "{out}");
    let (_, out, _) = place.run(&["check", "--json"]);
    let told = of(&serde_json::from_str(&out).unwrap());
    assert!(told["sign_in"] == "signed_in" && told["signed_in_until"].is_u64(), "{told}");
    assert!(!out.contains("token-"), "{out}");
    let gateway = place.serve();
    gateway.wait_until_well(&["s"]);
    let told = gateway.status_of("s");
    assert!(told["sign_in"] == "signed_in" && told["signed_in_until"].is_u64(), "{told}");
    assert!(!gateway.get("/status").text().contains("token-"));
}

#[test]
fn a_gateway_that_runs_takes_a_sign_in_up_and_forgets_it_at_logout() {
    let place = Place::with(json!(true), json!({}));
    let gateway = place.serve();
    wait_for("it needs a sign-in", || {
        (gateway.status_of("s")["state"] == "needs_sign_in").then_some(())
    });
    let mut child = place.command(&["login", "s"]).spawn().unwrap();
    let url = url_of(&mut child);
    assert!(follow(&url).unwrap().contains("Signed in to s"));
    assert_eq!(ended(child).0, Some(0));
    wait_within(Duration::from_secs(40), "the gateway uses it", || {
        (gateway.status_of("s")["state"] == "ready").then_some(())
    });
    gateway.wait_until_well(&["s"]);
    gateway.call("echo", &json!({ "text": "hi" })).expect(200);
    let (code, out, errors) = place.run(&["logout", "s"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(out.contains("revoked at the authorization server"), "{out}");
    let told = wait_within(Duration::from_secs(5), "the gateway forgets it", || {
        let told = gateway.status_of("s");
        (told["state"] == "needs_sign_in").then(|| told.to_string())
    });
    assert!(told.contains("somebody has signed out") && told.contains("login s"), "{told}");
    let refused = gateway.call("echo", &json!({ "text": "hi" }));
    assert!(refused.text().contains("trunkline login s"), "{}", refused.text());
    assert_eq!(place.auth.seen_of("POST /revoke").len(), 2);
    let (code, out, errors) = place.run(&["logout", "s"]);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{errors}");
    assert!(errors.contains("nobody was signed in"), "{errors}");
}

#[test]
fn the_first_call_after_a_login_is_served_and_status_tells_of_no_failure() {
    let place = Place::with(json!(true), json!({}));
    let gateway = place.serve();
    let state = || gateway.status_of("s")["state"].as_str().unwrap().to_owned();
    for asked_first in ["call", "status"] {
        wait_for("it needs a sign-in", || (state() == "needs_sign_in").then_some(()));
        // The gateway has just looked at the file, and tries seldom by now.
        std::thread::sleep(Duration::from_secs(1));
        place.signs_in();
        if asked_first == "call" {
            gateway.call("echo", &json!({ "text": "hi" })).expect(200);
        }
        wait_for("the server is ready", || {
            let state = state();
            assert!(
                ["needs_sign_in", "starting", "ready"].contains(&state.as_str()),
                "{state}"
            );
            (state == "ready").then_some(())
        });
        assert_eq!(place.run(&["logout", "s"]).0, Some(0));
    }
}

#[test]
fn a_gateway_that_nobody_asks_anything_takes_a_sign_in_up() {
    let place = Place::with(json!(true), json!({}));
    let gateway = place.serve();
    // Until it tries only every few seconds.
    std::thread::sleep(Duration::from_secs(7));
    place.signs_in();
    wait_within(Duration::from_secs(3), "the server has been asked with the token", || {
        (place.protection.n_admitted() > 0).then_some(())
    });
    drop(gateway);
}

#[test]
fn an_access_token_that_cannot_be_revoked_is_told_with_its_end() {
    let place = Place::with(json!(true), json!({}));
    place.auth.revoke_no_access_tokens();
    place.signs_in();
    let (code, out, errors) = place.run(&["logout", "s"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(out.contains("its refresh token is revoked"), "{out}");
    let part = "the access token could not be revoked, and may be good until 20";
    assert!(errors.contains(part) && errors.contains("unsupported_token_type"), "{errors}");
    assert_eq!(place.auth.seen_of("POST /revoke").len(), 2);
    // Where there is no other token, nothing is revoked.
    place.auth.give_no_refresh_tokens();
    place.signs_in();
    let (code, out, errors) = place.run(&["logout", "s"]);
    assert_eq!((code, out.as_str()), (Some(0), "signed out of s: its tokens are deleted\n"));
    assert!(errors.contains("did not revoke the tokens"), "{errors}");
}

#[test]
fn another_account_takes_the_place_of_the_one_before_in_the_gateway_that_runs() {
    let place = Place::with(json!(true), json!({}));
    place.signs_in();
    let gateway = place.serve();
    gateway.wait_until_well(&["s"]);
    let used = || {
        gateway.call("echo", &json!({ "text": "hi" })).expect(200);
        let headers = place.upstream.last_headers();
        let is_it = |name: &str| name.eq_ignore_ascii_case("authorization");
        headers.into_iter().find(|(name, _)| is_it(name)).map(|(_, value)| value)
    };
    let first = used();
    place.signs_in();
    wait_within(Duration::from_secs(5), "the other token is used", || {
        (used() != first).then_some(())
    });
}

#[test]
fn a_refused_token_that_another_process_has_brought_is_renewed_before_anybody_signs_in() {
    let place = Place::with(json!(true), json!({}));
    place.signs_in();
    let gateway = place.serve();
    gateway.wait_until_well(&["s"]);
    let mut child = place.command(&["login", "s"]).spawn().unwrap();
    let url = url_of(&mut child);
    // The gateway has looked at the file just now, and knows the first token only.
    gateway.call("echo", &json!({ "text": "hi" })).expect(200);
    assert!(follow(&url).unwrap().contains("Signed in to s"));
    place.auth.end_access_tokens();
    gateway.call("echo", &json!({ "text": "hi" })).expect(200);
    assert_eq!(ended(child).0, Some(0));
    let asked = place.auth.seen_of("POST /token");
    let renewals = asked.iter().filter(|it| it.field("grant_type") == "refresh_token");
    assert_eq!(renewals.count(), 1);
}

#[test]
fn a_box_without_a_browser_is_pasted_what_a_browser_elsewhere_ended_with() {
    for (part, expected) in [("url", 0), ("code", 1), ("nothing", 1)] {
        let place = Place::with(json!(true), json!({}));
        let mut child = place.command(&["login", "s", "--paste"]).spawn().unwrap();
        let url = url_of(&mut child);
        let (address, target) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let answer = exchange(address, &Request::get(&format!("/{target}"))).expect(302);
        let back = answer.header("Location").unwrap().to_owned();
        let code = back.split("code=").nth(1).unwrap().split('&').next().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let pasted = match part {
            "url" => format!("\n {back} \n"),
            // This authorization server names itself in its answers: the code alone is too little.
            "code" => format!("{code}\n"),
            _ => String::new(),
        };
        stdin.write_all(pasted.as_bytes()).unwrap();
        if part == "url" {
            // Its lines came at once, and the input goes on.
            wait_within(Duration::from_secs(20), "it has ended", || child.try_wait().unwrap());
        }
        drop(stdin);
        let (code, out, errors) = ended(child);
        assert_eq!(code, Some(expected), "{part}: {out} {errors}");
        assert_eq!(out.starts_with("signed in to s"), expected == 0, "{part}");
    }
}

#[test]
fn a_registered_client_comes_back_to_the_running_gateway() {
    let oauth = json!({ "client_id": "registered" });
    let keys = json!({ "api_keys": [{ "name": "boss", "key": ADMIN, "admin": true }] });
    let place = Place::with(oauth, keys);
    let gateway = place.serve();
    // The command finds the gateway by its file.
    let text = std::fs::read_to_string(place.file()).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["listen"] = gateway.address().into();
    place.write(&config);
    let (code, _, errors) = place.run(&["login", "s"]);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("TRUNKLINE_KEY"), "{errors}");
    let mut command = place.command(&["login", "s"]);
    let mut child = command.env("TRUNKLINE_KEY", ADMIN).spawn().unwrap();
    let url = url_of(&mut child);
    let prefix = format!("http://{}/oauth/sign-in/", gateway.address());
    assert!(url.starts_with(&prefix), "{url}");
    let path = url.strip_prefix(&format!("http://{}", gateway.address())).unwrap();
    let kind = "application/x-www-form-urlencoded";
    let begin = Request::new("POST", path).header("Content-Type", kind);
    let on = exchange(gateway.address(), &begin.body(&format!("key={ADMIN}"))).expect(200);
    let cookie = on.header("Set-Cookie").unwrap().split(';').next().unwrap().to_owned();
    let (_, rest) = on.text().split_once("content=\"0; url=").unwrap();
    let target = rest.split('"').next().unwrap().replace("&amp;", "&");
    let (address, target) = target.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let answer = exchange(address, &Request::get(&format!("/{target}"))).expect(302);
    let back = answer.header("Location").unwrap();
    let back = back.strip_prefix(&format!("http://{}", gateway.address())).unwrap();
    let done = Request::get(back).header("Cookie", &cookie);
    exchange(gateway.address(), &done).expect(200);
    let mut rest = String::new();
    child.stderr.take().unwrap().read_to_string(&mut rest).unwrap();
    let (code, out, _) = ended(child);
    assert_eq!((code, out.starts_with("signed in to s")), (Some(0), true), "{rest}");
    assert_eq!(place.auth.seen_of("GET /authorize")[0].field("client_id"), "registered");
    // A gateway that starts anew has no page any more, and the sign-in of before is no new one.
    let mut command = place.command(&["login", "s"]);
    let mut child = command.env("TRUNKLINE_KEY", ADMIN).spawn().unwrap();
    url_of(&mut child);
    gateway.stop();
    let _gateway = place.serve();
    let (code, out, errors) = ended(child);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{errors}");
    assert!(errors.contains("nobody has signed in anew"), "{errors}");
}

#[test]
fn what_cannot_be_signed_in_to_is_said_with_the_right_exit_code() {
    let machine =
        json!({ "grant": "client_credentials", "client_id": "c", "client_secret": "abcdefgh" });
    let place = Place::with(machine, json!({}));
    for (words, expected, part) in [
        (&["login", "s"][..], 0, "needs no sign-in"),
        (&["login", "S"], 2, "did you mean \"s\"?"),
        (&["login", "nobody-at-all"], 2, "with \"oauth\" there is: s, own"),
        (&["login", "plain"], 2, "has no \"oauth\""),
        (&["logout", "plain"], 2, "has no \"oauth\""),
        (&["login", "own"], 2, "each user signs in"),
        (&["logout", "own"], 0, "nobody was signed in at own"),
        (&["logout", "own", "--user", "u"], 0, "\"u\" was not signed in at own"),
        (&["logout", "s", "--user", "u"], 2, "--user is for servers with"),
        (&["login"], 2, "login NAME"),
    ] {
        let (code, out, errors) = place.run(words);
        assert_eq!((code, out.as_str()), (Some(expected), ""), "{words:?}: {errors}");
        assert!(errors.contains(part), "{words:?}: {errors}");
    }
    std::fs::write(place.file(), "{").unwrap();
    assert_eq!(place.run(&["login", "s"]).0, Some(78));
    // A person who does not agree.
    let place = Place::with(json!(true), json!({}));
    place.auth.consent(Consent::Denies);
    let mut child = place.command(&["login", "s"]).spawn().unwrap();
    let url = url_of(&mut child);
    assert!(follow(&url).unwrap().contains("access_denied"));
    let (code, out, errors) = ended(child);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{errors}");
    assert!(errors.contains("access_denied"), "{errors}");
}
