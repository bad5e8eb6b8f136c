//! The pages of a sign-in at a server: who may begin, who may come back, and what is told of it.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::authorization_server::{AuthorizationServer, Consent, follow};
use crate::support::duplex::{Door, Duplex};
use crate::support::gateway::{Directory, Gateway, binary};
use crate::support::http::{Request, Response, exchange};
use crate::support::issuer::Issuer;
use crate::support::modern::ModernClient;
use crate::support::upstream_http::HttpUpstream;
use crate::support::wait_until;

const ADMIN: &str = "key-of-the-admin-0";
const USER: &str = "key-of-the-user-00";

/// A gateway before a protected server, and what stands around it.
struct Scene {
    auth: AuthorizationServer,
    _upstream: HttpUpstream,
    state: Directory,
    gateway: Gateway,
}

impl Scene {
    fn with(further: Value) -> Scene {
        let (auth, upstream, state) =
            (AuthorizationServer::start(), HttpUpstream::start(), Directory::new());
        auth.protect(&upstream);
        let server = json!({ "url": upstream.url(), "transport": "http", "oauth": true });
        let mut config = json!({
            "mcp_servers": { "s": server },
            "state_dir": state.path(),
            "first_list_ms": 100,
            "log": { "access": true, "level": "debug", "format": "json" },
        });
        for (key, value) in further.as_object().unwrap() {
            config[key.as_str()] = value.clone();
        }
        let gateway = Gateway::with(config).start();
        Scene { auth, _upstream: upstream, state, gateway }
    }

    fn with_keys() -> Scene {
        Scene::with(json!({ "api_keys": [
            { "name": "boss", "key": ADMIN, "admin": true },
            { "name": "mate", "key": USER },
        ] }))
    }

    fn send(&self, request: &Request) -> Response {
        exchange(self.gateway.address(), request)
    }

    /// Invites as the console does: the path of the page, and the cookie that came with it.
    fn invite(&self, key: Option<&str>) -> (String, String) {
        let mut request = Request::post("/status/sign-in", &json!({ "server": "s" }));
        if let Some(key) = key {
            request = request.header("x-api-key", key);
        }
        let answer = self.send(&request).expect(200);
        let url = answer.json()["url"].as_str().unwrap().to_owned();
        let base = format!("http://{}", self.gateway.address());
        let path = url.strip_prefix(&base).unwrap_or_else(|| panic!("{url}")).to_owned();
        (path, cookie_of(&answer))
    }
}

/// The name and the value of the cookie that an answer sets.
pub(super) fn cookie_of(answer: &Response) -> String {
    let whole = answer.header("Set-Cookie").expect("a cookie");
    assert!(whole.contains("; Max-Age=600; HttpOnly; SameSite=Lax"), "{whole}");
    whole.split(';').next().unwrap().to_owned()
}

pub(super) fn form(path: &str, body: &str) -> Request {
    let kind = "application/x-www-form-urlencoded";
    Request::new("POST", path).header("Content-Type", kind).body(body)
}

/// Where a page leads.
pub(super) fn target_of(answer: &Response) -> String {
    let (_, rest) =
        answer.text().split_once("content=\"0; url=").expect("a page that leads on");
    rest.split('"').next().unwrap().replace("&amp;", "&")
}

/// Where the authorization server sends the browser.
pub(super) fn way_back(page: &str) -> String {
    let rest = page.strip_prefix("http://").unwrap();
    let (address, target) = rest.split_once('/').unwrap();
    let answer = exchange(address, &Request::get(&format!("/{target}"))).expect(302);
    let location = answer.header("Location").unwrap().to_owned();
    let (_, path) = location.strip_prefix("http://").unwrap().split_once('/').unwrap();
    format!("/{path}")
}

/// What every page says to its browser.
fn check_page(answer: &Response) {
    let header = |name: &str| answer.header(name).unwrap_or_default().to_owned();
    assert!(header("Content-Type").starts_with("text/html"), "{}", answer.text());
    assert_eq!(header("Cache-Control"), "no-store");
    assert_eq!(header("X-Frame-Options"), "DENY");
    let policy = header("Content-Security-Policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert!(["no-referrer", "same-origin"].contains(&header("Referrer-Policy").as_str()));
    assert!(!answer.text().contains("<script"));
}

#[test]
fn an_admin_signs_in_from_the_console_and_the_server_is_used_at_once() {
    let scene = Scene::with_keys();
    let (path, cookie) = scene.invite(Some(ADMIN));
    let page = scene.send(&Request::get(&path).header("Cookie", &cookie)).expect(200);
    check_page(&page);
    for part in ["Sign in to s", "boss", "all who use this gateway", "Continue"] {
        assert!(page.text().contains(part), "{part}: {}", page.text());
    }
    assert!(!page.text().contains("name=\"key\""), "the browser is known: {}", page.text());
    let on = scene.send(&form(&path, "").header("Cookie", &cookie)).expect(200);
    check_page(&on);
    let target = target_of(&on);
    assert!(target.starts_with(&format!("{}/authorize?", scene.auth.issuer())), "{target}");
    let back = way_back(&target);
    let done = scene.send(&Request::get(&back).header("Cookie", &cookie)).expect(200);
    check_page(&done);
    assert!(done.text().contains("Signed in to s"), "{}", done.text());
    scene.gateway.wait_until_well(&["s"]);
    // A state is good once, and so is the page.
    let again = scene.send(&Request::get(&back).header("Cookie", &cookie)).expect(400);
    check_page(&again);
    scene.send(&Request::get(&path).header("Cookie", &cookie)).expect(404);
    let code = back.split("code=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let id = path.rsplit('/').next().unwrap().to_owned();
    let told = scene.gateway.stop().stderr;
    assert!(told.contains("signed in at"), "{told}");
    assert!(!told.contains(&code) && !told.contains(&id) && !told.contains("state="), "{told}");
}

impl Scene {
    /// An admin begins, and goes on to the page of the authorization server: its URL, and the cookie.
    fn goes_on(&self) -> (String, String) {
        let (path, cookie) = self.invite(Some(ADMIN));
        let on = self.send(&form(&path, "").header("Cookie", &cookie)).expect(200);
        (target_of(&on), cookie)
    }

    fn comes_back(&self, (target, cookie): &(String, String)) {
        let done = self.send(&Request::get(&way_back(target)).header("Cookie", cookie));
        assert!(done.text().contains("Signed in to s"), "{}", done.text());
    }
}

#[test]
fn a_renewal_ends_no_sign_in_that_is_under_way() {
    let scene = Scene::with_keys();
    scene.comes_back(&scene.goes_on());
    scene.gateway.wait_until_well(&["s"]);
    let another = scene.goes_on();
    scene.auth.end_access_tokens();
    let call = Request::post("/mcp/tools/call", &json!({ "name": "echo" }));
    scene.send(&call.header("x-api-key", USER)).expect(200);
    assert!(scene.auth.seen_of("POST /token").len() > 1, "it was renewed");
    scene.comes_back(&another);
}

#[test]
fn a_renewal_by_another_process_ends_no_sign_in_either() {
    let scene = Scene::with_keys();
    scene.comes_back(&scene.goes_on());
    scene.gateway.wait_until_well(&["s"]);
    let another = scene.goes_on();
    scene.auth.end_access_tokens();
    let mut command = Command::new(binary());
    command.args(["call", "echo", "text=hi", "-c"]);
    command.arg(scene.gateway.directory().join("config.json"));
    let output = command.env_remove("BROWSER").stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let n_asked = scene.auth.seen_of("POST /token").len();
    std::thread::park_timeout(Duration::from_millis(1200));
    let call = Request::post("/mcp/tools/call", &json!({ "name": "echo" }));
    scene.send(&call.header("x-api-key", USER)).expect(200);
    assert_eq!(scene.auth.seen_of("POST /token").len(), n_asked, "the gateway has seen it");
    scene.comes_back(&another);
}

#[test]
fn a_registration_that_was_lost_is_made_anew_after_pages_that_lead_to_nothing() {
    let scene = Scene::with_keys();
    scene.comes_back(&scene.goes_on());
    scene.auth.lose_registrations();
    for _ in 0..3 {
        let (target, _) = scene.goes_on();
        assert_eq!(follow(&target), None, "the page is an error");
    }
    assert_eq!(scene.auth.seen_of("POST /register").len(), 1);
    scene.comes_back(&scene.goes_on());
    assert_eq!(scene.auth.seen_of("POST /register").len(), 2);
}

#[test]
fn a_code_is_exchanged_while_a_renewal_holds_the_file_of_the_credentials() {
    let scene = Scene::with_keys();
    let (path, cookie) = scene.invite(Some(ADMIN));
    let on = scene.send(&form(&path, "").header("Cookie", &cookie)).expect(200);
    let back = Request::get(&way_back(&target_of(&on))).header("Cookie", &cookie);
    let is_lock = |path: &PathBuf| path.to_string_lossy().ends_with("-gateway.lock");
    let find = || {
        let entries = std::fs::read_dir(scene.state.path()).unwrap();
        entries.map(|it| it.unwrap().path()).find(is_lock)
    };
    wait_until("the gateway has asked for a token", || find().is_some());
    let lock = File::options().write(true).open(find().unwrap()).unwrap();
    lock.lock().unwrap();
    std::thread::scope(|scope| {
        let done = scope.spawn(|| scene.send(&back));
        wait_until("the code is exchanged", || !scene.auth.seen_of("POST /token").is_empty());
        lock.unlock().unwrap();
        done.join().unwrap().expect(200);
    });
    scene.gateway.wait_until_well(&["s"]);
}

#[test]
fn a_call_before_anybody_has_signed_in_says_what_to_do() {
    let scene = Scene::with_keys();
    let call = Request::post("/mcp/tools/call", &json!({ "name": "echo" }));
    let error = scene.send(&call.header("x-api-key", USER)).expect_error(502);
    assert_eq!((&error["code"], &error["server"]), (&json!("needs_sign_in"), &json!("s")));
    assert!(error["message"].as_str().unwrap().contains("trunkline login s"), "{error}");
}

/// Alice begins, and has Bob open the link: neither her page nor the page behind it lets him
/// attach his account to what is hers.
#[test]
fn nobody_signs_in_for_somebody_else() {
    let scene = Scene::with_keys();
    let (path, cookie) = scene.invite(Some(ADMIN));
    // Another browser has no mark: it must show the key of the one who began.
    let page = scene.send(&Request::get(&path)).expect(200);
    assert!(page.text().contains("name=\"key\"") && page.text().contains("close this page"));
    for body in ["", "key=", "key=wrong-key-0000000", &format!("key={USER}")] {
        let refused = scene.send(&form(&path, body)).expect(403);
        check_page(&refused);
        assert!(refused.header("Set-Cookie").is_none());
    }
    assert!(scene.auth.seen_of("GET /authorize").is_empty());
    // The page behind it is good in the beginner's browser alone.
    let target = target_of(&scene.send(&form(&path, "").header("Cookie", &cookie)).expect(200));
    let back = way_back(&target);
    let (name, _) = cookie.split_once('=').unwrap();
    let other = format!("{name}={}", "A".repeat(43));
    for cookie in [None, Some(other.as_str())] {
        let mut request = Request::get(&back);
        if let Some(cookie) = cookie {
            request = request.header("Cookie", cookie);
        }
        let refused = scene.send(&request).expect(403);
        check_page(&refused);
        assert!(refused.text().contains("another browser"), "{}", refused.text());
    }
    assert!(scene.auth.seen_of("POST /token").is_empty());
    // The beginner can still come back.
    scene.send(&Request::get(&back).header("Cookie", &cookie)).expect(200);
    assert_eq!(scene.auth.seen_of("POST /token").len(), 1);
}

#[test]
fn the_beginners_key_makes_another_browser_theirs() {
    let scene = Scene::with_keys();
    let (path, first) = scene.invite(Some(ADMIN));
    let early = target_of(&scene.send(&form(&path, "").header("Cookie", &first)).expect(200));
    let body = format!("key={}", ADMIN.replace('-', "%2D"));
    let on = scene.send(&form(&path, &body)).expect(200);
    let cookie = cookie_of(&on);
    assert_ne!(cookie, first);
    let back = way_back(&target_of(&on));
    scene.send(&Request::get(&back).header("Cookie", &first)).expect(403);
    // What one browser was sent away with is not the other's.
    scene.send(&Request::get(&way_back(&early)).header("Cookie", &cookie)).expect(403);
    scene.send(&Request::get(&back).header("Cookie", &cookie)).expect(200);
}

/// Another service of the same host can put a cookie of its choice there over plain HTTP.
#[test]
fn a_mark_is_the_gateways_own_and_each_page_has_another() {
    let scene = Scene::with_keys();
    let planted = "A".repeat(43);
    let invite = Request::post("/status/sign-in", &json!({ "server": "s" }));
    let invite = invite.header("x-api-key", ADMIN);
    let cookie = format!("trunkline-browser={planted}; trunkline-browser-x={planted}");
    let answer = scene.send(&invite.header("Cookie", &cookie)).expect(200);
    assert!(!cookie_of(&answer).contains(&planted));
    let (path, _) = scene.invite(Some(ADMIN));
    let body = format!("key={ADMIN}");
    let on = scene.send(&form(&path, &body).header("Cookie", &cookie)).expect(200);
    assert!(!cookie_of(&on).contains(&planted));
    let back = way_back(&target_of(&on));
    scene.send(&Request::get(&back).header("Cookie", &cookie)).expect(403);
    // Two sign-ins in one browser are no hindrance to each other.
    let [(one, first), (two, second)] = [scene.invite(Some(ADMIN)), scene.invite(Some(ADMIN))];
    let both = format!("{first}; {second}");
    let [back, _] = [&one, &two].map(|path| {
        let on = scene.send(&form(path, "").header("Cookie", &both)).expect(200);
        way_back(&target_of(&on))
    });
    scene.send(&Request::get(&back).header("Cookie", &both)).expect(200);
}

#[test]
fn a_user_with_a_token_shows_one_of_theirs() {
    let issuer = Issuer::start();
    let scene = Scene::with(json!({ "oauth": {
        "issuers": [issuer.config()],
        "rules": [{ "claim": "groups", "any": ["ops"], "servers": ["*"], "admin": true }],
    } }));
    let [alice, bob] = ["alice", "bob"].map(|user| issuer.token(user, &["ops"]));
    let invite = Request::post("/status/sign-in", &json!({ "server": "s" }));
    let invite = invite.header("Authorization", &format!("Bearer {alice}"));
    let url = scene.send(&invite).expect(200).json()["url"].as_str().unwrap().to_owned();
    let path = url.strip_prefix(&format!("http://{}", scene.gateway.address())).unwrap();
    let page = scene.send(&Request::get(path)).expect(200);
    assert!(page.text().contains("or an access token of yours"), "{}", page.text());
    // The person is named as people know them.
    assert!(page.text().contains("alice@127.0.0.1"), "{}", page.text());
    scene.send(&form(path, &format!("key={bob}"))).expect(403);
    scene.send(&form(path, "key=no.token.atall")).expect(403);
    // Another one of the same user does, too.
    let on =
        scene.send(&form(path, &format!("key={}", issuer.token("alice", &[])))).expect(403);
    check_page(&on);
    let on = scene.send(&form(path, &format!("key={}", issuer.token("alice", &["ops"]))));
    let cookie = cookie_of(&on);
    let back = way_back(&target_of(&on.expect(200)));
    scene.send(&Request::get(&back).header("Cookie", &cookie)).expect(200);
    let told = scene.gateway.stop().stderr;
    assert!(!told.contains(&alice) && !told.contains(&bob), "{told}");
}

/// Each user signs in there, and a client that cannot open pages is told where.
#[test]
fn a_client_that_cannot_be_asked_is_told_where_its_user_signs_in() {
    let (auth, upstream, state) =
        (AuthorizationServer::start(), HttpUpstream::start(), Directory::new());
    auth.protect(&upstream);
    let server = json!({
        "url": upstream.url(), "transport": "http", "oauth": true, "credentials": "per_user",
    });
    let gateway = Gateway::with(json!({
        "api_keys": [{ "name": "mate", "key": USER }],
        "mcp_servers": { "s": server },
        "state_dir": state.path(),
    }))
    .start();
    let page = format!("http://{}/oauth/sign-in/", gateway.address());
    for capabilities in
        [json!({}), json!({ "elicitation": {} }), json!({ "elicitation": { "form": {} } })]
    {
        let client = ModernClient::to(&gateway).key(USER).declaring(capabilities.clone());
        let answer = client.ask("s-echo", &json!({ "message": "m" })).message;
        let error = &answer["error"];
        assert!(error["message"].as_str().is_some_and(|it| it.contains(&page)), "{answer}");
        assert_ne!(error["code"], -32021, "{capabilities}: {answer}");
        let legacy = Duplex::to(&gateway, Door::Streamable).header("x-api-key", USER).open();
        let answer =
            legacy.request("tools/call", &json!({ "name": "s-echo", "arguments": {} }));
        assert!(answer.to_string().contains(&page), "{answer}");
    }
    // One that can be asked is.
    let able =
        ModernClient::to(&gateway).key(USER).declaring(json!({ "elicitation": { "url": {} } }));
    let asked = able.ask("s-echo", &json!({ "message": "m" }));
    let requests = asked.requests();
    assert!(requests.iter().any(|(_, it)| it.to_string().contains(&page)), "{requests:?}");
}

#[test]
fn only_an_admin_invites_and_only_for_a_server_that_wants_it() {
    let scene = Scene::with_keys();
    let body = json!({ "server": "s" });
    let post = |key: &str, body: &Value| {
        let request = Request::post("/status/sign-in", body);
        scene.send(&if key.is_empty() { request } else { request.header("x-api-key", key) })
    };
    post("", &body).expect_error(401);
    post(USER, &body).expect_error(403);
    post(ADMIN, &json!({ "server": "nobody" })).expect_error(404);
    post(ADMIN, &json!({})).expect_error(400);
    let foreign = Request::post("/status/sign-in", &body).header("x-api-key", ADMIN);
    scene.send(&foreign.header("Origin", "https://evil.example")).expect_error(403);
    let get = Request::get("/status/sign-in").header("x-api-key", ADMIN);
    scene.send(&get).expect_error(405);
}

#[test]
fn without_keys_whoever_is_on_this_machine_begins() {
    let scene = Scene::with(json!({}));
    let (path, cookie) = scene.invite(None);
    // A proxy's client is somewhere else.
    let elsewhere = Request::get(&path).header("X-Forwarded-For", "203.0.113.9");
    let page = scene.send(&elsewhere).expect(200);
    assert!(!page.text().contains("<form"), "{}", page.text());
    let refused = form(&path, "").header("X-Forwarded-For", "203.0.113.9");
    scene.send(&refused).expect(403);
    let on = scene.send(&form(&path, "").header("Cookie", &cookie)).expect(200);
    let back = way_back(&target_of(&on));
    scene.send(&Request::get(&back).header("Cookie", &cookie)).expect(200);
    scene.gateway.wait_until_well(&["s"]);
}

#[test]
fn what_the_authorization_server_says_is_shown_and_is_no_markup() {
    let scene = Scene::with(json!({}));
    let begin = || {
        let (path, cookie) = scene.invite(None);
        let on = scene.send(&form(&path, "").header("Cookie", &cookie)).expect(200);
        (target_of(&on), cookie)
    };
    scene.auth.consent(Consent::Denies);
    let (target, cookie) = begin();
    let back = format!("{}&error_description=%3Cb%3Eno%3C/b%3E", way_back(&target));
    let denied = scene.send(&Request::get(&back).header("Cookie", &cookie)).expect(400);
    check_page(&denied);
    assert!(denied.text().contains("access_denied"), "{}", denied.text());
    assert!(!denied.text().contains("<b>"), "{}", denied.text());
    scene.auth.consent(Consent::AsIssuer("https://other.example".to_owned()));
    let (target, cookie) = begin();
    let back = way_back(&target);
    let mixed = scene.send(&Request::get(&back).header("Cookie", &cookie)).expect(400);
    check_page(&mixed);
    assert!(scene.auth.seen_of("POST /token").is_empty());
    // The gateway still has its page when the authorization server gives no token.
    scene.auth.consent(Consent::Grants);
    scene.auth.fail_with(Some((500, json!({}))));
    let (target, cookie) = begin();
    let back = way_back(&target);
    check_page(&scene.send(&Request::get(&back).header("Cookie", &cookie)).expect(502));
}

#[test]
fn a_callback_that_belongs_to_nothing_changes_nothing_and_leads_nowhere() {
    let scene = Scene::with(json!({}));
    for query in [
        "",
        "?",
        "?code=x",
        "?code=x&state=y",
        "?state=y&state=z&code=x",
        "?error=access_denied&state=y&error_uri=https://evil.example/",
        "?code=x&state=%3Cscript%3E&redirect_uri=https://evil.example/",
    ] {
        let answer = scene.send(&Request::get(&format!("/oauth/callback{query}"))).expect(400);
        check_page(&answer);
        assert!(answer.header("Location").is_none());
        assert!(!answer.text().contains("evil.example"), "{}", answer.text());
    }
    scene.send(&Request::new("HEAD", "/oauth/callback?code=x&state=y")).expect(405);
    check_page(&scene.send(&Request::get("/oauth/sign-in/nothing")).expect(404));
    check_page(&scene.send(&form("/oauth/sign-in/nothing", "key=x")).expect(404));
    let foreign = Request::get("/oauth/callback?code=x&state=y").host("evil.example");
    scene.send(&foreign).expect_error(403);
}

#[test]
fn the_client_document_is_its_own_url_and_needs_https() {
    let scene = Scene::with(json!({ "public_url": "https://mcp.example.org/trunk" }));
    for path in ["/oauth/client.json", "/trunk/oauth/client.json/"] {
        let request = Request::get(path).host("mcp.example.org");
        let document = scene.send(&request).expect(200).json();
        let url = "https://mcp.example.org/trunk/oauth/client.json";
        assert_eq!(document["client_id"], url);
        let back = "https://mcp.example.org/trunk/oauth/callback";
        assert_eq!(document["redirect_uris"], json!([back]));
        assert_eq!(document["token_endpoint_auth_method"], "none");
    }
    let plain = Scene::with(json!({}));
    let error = plain.send(&Request::get("/oauth/client.json")).expect_error(404);
    assert!(error["message"].as_str().unwrap().contains("public_url"), "{error}");
}

#[test]
fn over_tls_the_mark_is_the_hosts_alone() {
    let scene = Scene::with(json!({ "public_url": "https://mcp.example.org/trunk" }));
    let request = Request::post("/status/sign-in", &json!({ "server": "s" }));
    let answer = scene.send(&request).expect(200);
    let url = answer.json()["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with("https://mcp.example.org/trunk/oauth/sign-in/"), "{url}");
    let cookie = answer.header("Set-Cookie").unwrap();
    assert!(cookie.starts_with("__Host-trunkline-browser-") && cookie.ends_with("; Secure"));
}

#[test]
fn status_events_tell_of_no_codes() {
    let scene = Scene::with(json!({}));
    let watching = Request::get("/status/events").header("Accept", "text/event-stream");
    let mut connection = scene.gateway.connect();
    connection.send(&watching);
    let mut events = connection.into_events();
    assert_eq!(events.next().name, "open");
    scene.send(&Request::get("/oauth/callback?code=SECRETCODE&state=SECRETSTATE")).expect(400);
    scene.send(&Request::get("/nothing?code=SECRETCODE")).expect(404);
    let refused = events.next();
    assert_eq!(refused.name, "refused");
    assert!(!refused.data.contains("SECRET"), "{}", refused.data);
    let status = scene.gateway.get("/status").expect(200).text().to_owned();
    assert!(!status.contains("SECRET"), "{status}");
    let told = scene.gateway.stop().stderr;
    assert!(told.contains("/nothing") && !told.contains("SECRET"), "{told}");
}
