//! Access tokens that end, are refused, or cannot be kept, and authorization servers that are not well or
//! have moved: nobody signs in anew without need, and nothing fails in silence.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::upstream_sign_in::{call, configured, signing_in};
use crate::support::authorization_server::{AuthorizationServer, Browser, Consent, follow};
use crate::support::gateway::{Directory, Gateway, binary};
use crate::support::upstream_http::HttpUpstream;
use crate::support::{wait_for, wait_until, wait_within};

fn rest(milliseconds: u64) {
    std::thread::park_timeout(Duration::from_millis(milliseconds));
}

/// A protected server, and a folder for what is kept.
struct Place {
    auth: AuthorizationServer,
    upstream: HttpUpstream,
    state: Directory,
    folder: Directory,
}

impl Place {
    fn start() -> Place {
        let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
        Place { auth, upstream, state: Directory::new(), folder: Directory::new() }
    }

    /// The person signs in once at a gateway, which ends then.
    fn signs_in(&self, oauth: &Value) {
        let browser = Browser::start();
        let gateway = signing_in(&self.upstream.url(), oauth.clone(), &self.state, &browser);
        gateway.wait_until_well(&["s"]);
        gateway.stop();
        assert_eq!(browser.pages().len(), 1);
    }

    /// A gateway without a browser.
    fn serve(&self, oauth: &Value) -> Gateway {
        configured(&self.upstream.url(), oauth.clone(), &self.state).start()
    }

    fn renewals(&self) -> usize {
        let asked = self.auth.seen_of("POST /token");
        asked.iter().filter(|it| it.field("grant_type") == "refresh_token").count()
    }

    /// The last scope that a person was asked for.
    fn scope_of_page(&self) -> String {
        let pages = self.auth.seen_of("GET /authorize");
        pages.last().map(|page| page.field("scope").to_owned()).unwrap_or_default()
    }

    /// A command beside the gateway.
    fn command(&self, words: &[&str], oauth: &Value) -> Child {
        let config = json!({
            "listen": "127.0.0.1:0",
            "mcp_servers": {
                "s": { "url": self.upstream.url(), "transport": "http", "oauth": oauth },
            },
            "state_dir": self.state.path(),
        });
        let file = self.folder.path().join("config.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new(binary());
        command.args(words).arg("-c").arg(file).env_remove("BROWSER").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// `trunkline login s`, up to where the person has agreed: what the browser shows then.
    fn logs_in(&self, oauth: &Value, meanwhile: impl FnOnce(&Child)) -> (Child, String) {
        let mut child = self.command(&["login", "s"], oauth);
        let mut lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
        let url = lines.find_map(|line| {
            line.unwrap().strip_prefix("  http").map(|rest| format!("http{rest}"))
        });
        meanwhile(&child);
        let page = follow(&url.expect("a URL")).unwrap_or_default();
        (child, page)
    }

    /// The file of the credentials of the gateway itself.
    fn file_name() -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, b"s");
        let short: String =
            digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        format!("oauth-s-{short}-gateway")
    }

    /// Has the process fail to write that file, until the folder is removed.
    fn refuse_writes_of(&self, process: u32) -> PathBuf {
        let path = self.state.path().join(format!(".{}.{process}.tmp", Self::file_name()));
        std::fs::create_dir(&path).unwrap();
        path
    }
}

#[track_caller]
fn needs_sign_in(gateway: &Gateway, said: &str) {
    let told = wait_for(said, || {
        let told = gateway.status_of("s");
        (told["state"] == "needs_sign_in" && told.to_string().contains(said)).then_some(told)
    });
    assert!(told.to_string().contains("trunkline login s"), "{told}");
}

fn ended(mut child: Child) -> (Option<i32>, String) {
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    (child.wait().unwrap().code(), errors)
}

#[test]
fn a_token_that_ends_without_a_refresh_token_is_signed_in_for_again() {
    let place = Place::start();
    place.auth.protect(&place.upstream);
    place.auth.give_no_refresh_tokens();
    place.auth.set_lifetime(Some(Duration::from_secs(2)));
    place.signs_in(&json!(true));
    rest(2100);
    // The next morning, without a browser.
    let gateway = place.serve(&json!(true));
    needs_sign_in(&gateway, "the access token has ended");
    let refused = gateway.call("echo", &json!({ "text": "hi" }));
    assert!(refused.text().contains("trunkline login s"), "{}", refused.text());
    gateway.stop();
    // And with one.
    place.auth.set_lifetime(None);
    let browser = Browser::start();
    let gateway = signing_in(&place.upstream.url(), json!(true), &place.state, &browser);
    gateway.wait_until_well(&["s"]);
    call(&gateway);
    assert_eq!(browser.pages().len(), 1);
}

#[test]
fn a_refresh_token_outlives_whatever_is_not_its_own_end() {
    let known = json!({ "client_id": "known" });
    for (oauth, status, answer) in [
        (&json!(true), 403, json!({})),
        (&json!(true), 404, json!({ "error": "not_found" })),
        (&json!(true), 200, json!({ "a page": "of a portal" })),
        (&json!(true), 400, json!({ "error": "invalid_client" })),
        (&known, 401, json!({ "error": "invalid_client" })),
        (&json!(true), 400, json!({ "error": "unauthorized_client" })),
    ] {
        let place = Place::start();
        place.auth.protect(&place.upstream);
        place.signs_in(oauth);
        let gateway = place.serve(oauth);
        gateway.wait_until_well(&["s"]);
        place.auth.fail_with(Some((status, answer.clone())));
        place.auth.end_access_tokens();
        let refused = gateway.call("echo", &json!({ "text": "hi" }));
        assert_ne!(refused.status(), 200, "{answer}");
        gateway.stop();
        place.auth.fail_with(None);
        let gateway = place.serve(oauth);
        gateway.wait_until_well(&["s"]);
        call(&gateway);
        assert_eq!(place.auth.seen_of("GET /authorize").len(), 1, "{answer}");
    }
}

#[test]
fn a_person_is_asked_where_the_authorization_server_wants_one_in_its_own_words() {
    for (status, error) in [
        (200, "bad_refresh_token"),
        (400, "unauthorized_client"),
        (400, "interaction_required"),
    ] {
        let place = Place::start();
        place.auth.protect(&place.upstream);
        place.signs_in(&json!(true));
        place.auth.end_access_tokens();
        place.auth.fail_with(Some((status, json!({ "error": error }))));
        let gateway = place.serve(&json!(true));
        needs_sign_in(&gateway, error);
    }
}

#[test]
fn tokens_that_cannot_be_written_are_used_and_written_later() {
    let place = Place::start();
    place.auth.protect(&place.upstream);
    place.signs_in(&json!(true));
    let gateway = place.serve(&json!(true));
    gateway.wait_until_well(&["s"]);
    let refused = place.refuse_writes_of(gateway.process_id());
    for _ in 0..3 {
        place.auth.end_access_tokens();
        call(&gateway);
    }
    assert_eq!((place.auth.n_reused(), place.renewals()), (0, 3));
    assert!(gateway.stderr().contains("cannot be kept"), "{}", gateway.stderr());
    // The disk has room again.
    let file = place.state.path().join(Place::file_name());
    let before = std::fs::read(&file).unwrap();
    std::fs::remove_dir(refused).unwrap();
    place.auth.end_access_tokens();
    call(&gateway);
    assert_ne!(std::fs::read(&file).unwrap(), before);
    gateway.stop();
    place.auth.end_access_tokens();
    let gateway = place.serve(&json!(true));
    gateway.wait_until_well(&["s"]);
    call(&gateway);
    assert_eq!((place.auth.n_reused(), place.auth.seen_of("GET /authorize").len()), (0, 1));
}

#[test]
fn tokens_that_could_not_be_written_are_written_without_a_renewal() {
    let place = Place::start();
    place.auth.protect(&place.upstream);
    place.signs_in(&json!(true));
    let gateway = place.serve(&json!(true));
    gateway.wait_until_well(&["s"]);
    let refused = place.refuse_writes_of(gateway.process_id());
    place.auth.end_access_tokens();
    call(&gateway);
    let file = place.state.path().join(Place::file_name());
    let before = std::fs::read(&file).unwrap();
    std::fs::remove_dir(refused).unwrap();
    wait_within(Duration::from_secs(20), "they are written", || {
        call(&gateway);
        (std::fs::read(&file).unwrap() != before).then_some(())
    });
    assert_eq!(place.renewals(), 1);
}

#[test]
fn tokens_are_renewed_where_no_file_can_be_locked_and_nothing_is_told_of_it_all_the_time() {
    let place = Place::start();
    place.auth.protect(&place.upstream);
    place.signs_in(&json!(true));
    let lock = place.state.path().join(format!("{}.lock", Place::file_name()));
    std::fs::remove_file(&lock).unwrap();
    std::fs::create_dir(&lock).unwrap();
    let gateway = place.serve(&json!(true));
    gateway.wait_until_well(&["s"]);
    place.refuse_writes_of(gateway.process_id());
    place.auth.end_access_tokens();
    call(&gateway);
    assert_eq!(place.renewals(), 1);
    // They are written again after a while.
    rest(6000);
    for _ in 0..5 {
        call(&gateway);
        rest(50);
    }
    assert_eq!(place.renewals(), 1);
    let log = gateway.stop().stderr;
    assert!(!log.contains("no access token"), "{log}");
    assert_eq!(log.matches("cannot be kept").count(), 1, "{log}");
}

#[test]
fn a_disk_that_says_nothing_has_signed_nobody_out() {
    let place = Place::start();
    place.auth.protect(&place.upstream);
    place.signs_in(&json!(true));
    let gateway = place.serve(&json!(true));
    gateway.wait_until_well(&["s"]);
    // No file can be looked for in what is no folder.
    let (path, aside) = (place.state.path(), place.folder.path().join("aside"));
    std::fs::rename(path, &aside).unwrap();
    std::fs::write(path, "").unwrap();
    rest(1200);
    call(&gateway);
    std::fs::remove_file(path).unwrap();
    std::fs::rename(&aside, path).unwrap();
    assert!(gateway.stderr().contains("cannot be read"), "{}", gateway.stderr());
    place.auth.end_access_tokens();
    call(&gateway);
}

#[test]
fn a_login_whose_tokens_cannot_be_written_fails() {
    let place = Place::start();
    place.auth.protect(&place.upstream);
    let (child, page) = place.logs_in(&json!(true), |child| {
        place.refuse_writes_of(child.id());
    });
    assert!(!page.contains("Signed in to s"), "{page}");
    let (code, errors) = ended(child);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("keeping the tokens"), "{errors}");
}

#[test]
fn a_login_that_the_person_declined_needs_no_other_registration() {
    let place = Place::start();
    place.auth.protect(&place.upstream);
    place.auth.consent(Consent::Denies);
    for _ in 0..2 {
        let (code, errors) = ended(place.logs_in(&json!(true), |_| ()).0);
        assert_eq!(code, Some(1), "{errors}");
    }
    place.auth.consent(Consent::Grants);
    let (code, errors) = ended(place.logs_in(&json!(true), |_| ()).0);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(place.auth.seen_of("POST /register").len(), 1);
}

#[test]
fn a_login_asks_for_what_a_request_needed_and_for_what_was_granted_before() {
    let place = Place::start();
    let protection = place.auth.protect(&place.upstream);
    protection.need("basic");
    let login = || {
        let (child, page) = place.logs_in(&json!(true), |_| ());
        assert!(page.contains("Signed in to s"), "{page}");
        let (code, errors) = ended(child);
        assert_eq!(code, Some(0), "{errors}");
        place.scope_of_page()
    };
    assert_eq!(login(), "basic");
    let gateway = place.serve(&json!(true));
    gateway.wait_until_well(&["s"]);
    protection.need_for_calls("write");
    let refused = gateway.call("echo", &json!({ "text": "hi" }));
    assert!(refused.text().contains("trunkline login s"), "{}", refused.text());
    // A renewal does not forget what was wanted.
    place.auth.end_access_tokens();
    wait_until("it is renewed", || {
        gateway.call("echo", &json!({ "text": "hi" }));
        place.renewals() == 1
    });
    assert_eq!(login(), "basic write");
    wait_until("the gateway uses it", || {
        gateway.call("echo", &json!({ "text": "hi" })).status() == 200
    });
    protection.need_for_calls("admin");
    assert_ne!(gateway.call("echo", &json!({ "text": "hi" })).status(), 200);
    assert_eq!(login(), "basic write admin");
}

#[test]
fn a_scope_that_the_authorization_server_refuses_stands_in_the_way_of_one_sign_in_alone() {
    let place = Place::start();
    let protection = place.auth.protect(&place.upstream);
    protection.need("basic");
    let login = || {
        let (child, page) = place.logs_in(&json!(true), |_| ());
        let (code, errors) = ended(child);
        (code, format!("{page}{errors}"))
    };
    assert_eq!(login().0, Some(0));
    let gateway = place.serve(&json!(true));
    gateway.wait_until_well(&["s"]);
    protection.need_for_calls("admin");
    place.auth.refuse_scope("admin");
    let refused = gateway.call("echo", &json!({ "text": "hi" }));
    assert!(refused.text().contains("trunkline login s"), "{}", refused.text());
    gateway.stop();
    let (code, told) = login();
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("invalid_scope"), "{told}");
    assert_eq!(login().0, Some(0));
    assert_eq!(place.scope_of_page(), "basic");
}

#[test]
fn a_scope_that_the_person_did_not_grant_at_first_is_asked_for_when_it_is_needed() {
    let place = Place::start();
    let protection = place.auth.protect(&place.upstream);
    protection.need("basic write");
    protection.need_for_calls("write");
    place.auth.grant_only(Some("basic"));
    let browser = Browser::start();
    let gateway = signing_in(&place.upstream.url(), json!(true), &place.state, &browser);
    gateway.wait_until_well(&["s"]);
    place.auth.grant_only(None);
    call(&gateway);
    assert_eq!(browser.pages().len(), 2);
    assert_eq!(place.scope_of_page(), "basic write");
}

fn machine(secret: &str) -> Value {
    json!({ "grant": "client_credentials", "client_id": "me", "client_secret": secret })
}

#[test]
fn a_machine_does_not_use_the_token_of_the_person_who_signed_in_before() {
    let place = Place::start();
    place.auth.protect(&place.upstream);
    let methods = json!(["client_secret_basic"]);
    place.auth.set_metadata("token_endpoint_auth_methods_supported", methods);
    place.signs_in(&json!({ "client_id": "me", "client_secret": "hush" }));
    let gateway = place.serve(&machine("hush"));
    gateway.wait_until_well(&["s"]);
    let last = place.auth.seen_of("POST /token").pop().unwrap();
    assert_eq!(last.field("grant_type"), "client_credentials");
    gateway.stop();
    // And a person does not use the machine's.
    let gateway = place.serve(&json!({ "client_id": "me", "client_secret": "hush" }));
    needs_sign_in(&gateway, "nobody has signed in yet");
}

#[test]
fn a_machine_uses_the_secret_of_the_configuration_also_for_a_renewal() {
    let place = Place::start();
    place.auth.protect(&place.upstream);
    let methods = json!(["client_secret_basic"]);
    place.auth.set_metadata("token_endpoint_auth_methods_supported", methods);
    place.auth.set_lifetime(Some(Duration::from_secs(2)));
    let gateway = place.serve(&machine("the first one"));
    gateway.wait_until_well(&["s"]);
    gateway.stop();
    rest(2100);
    let n_before = place.auth.seen_of("POST /token").len();
    let gateway = place.serve(&machine("the next one"));
    gateway.wait_until_well(&["s"]);
    let asked = place.auth.seen_of("POST /token");
    let basic = |text: &str| Some(format!("Basic {text}"));
    // me:the+next+one
    assert_eq!(asked[n_before].authorization, basic("bWU6dGhlK25leHQrb25l"));
}

#[test]
fn a_machine_follows_its_server_to_another_authorization_server_when_the_first_is_gone() {
    let place = Place::start();
    let protection = place.auth.protect(&place.upstream);
    place.auth.set_lifetime(Some(Duration::from_secs(2)));
    let file = place.folder.path().join("jwt");
    std::fs::write(&file, "YQ.YQ.YQ\n").unwrap();
    let oauth = json!({ "grant": "jwt_bearer", "assertion_file": file });
    let gateway = place.serve(&oauth);
    gateway.wait_until_well(&["s"]);
    gateway.stop();
    rest(2100);
    let two = AuthorizationServer::start();
    protection.migrate_to(&two);
    place.auth.listener.stop();
    let gateway = place.serve(&oauth);
    gateway.wait_until_well(&["s"]);
    assert_eq!(two.seen_of("POST /token").len(), 1);
}

#[test]
fn a_person_is_told_of_another_authorization_server_when_the_first_is_gone() {
    let place = Place::start();
    let protection = place.auth.protect(&place.upstream);
    place.auth.set_lifetime(Some(Duration::from_secs(2)));
    place.signs_in(&json!(true));
    rest(2100);
    let two = AuthorizationServer::start();
    protection.migrate_to(&two);
    place.auth.listener.stop();
    let gateway = place.serve(&json!(true));
    needs_sign_in(&gateway, &two.issuer());
    // Also once that is not believed any more, and the old one is tried again.
    rest(31_000);
    for _ in 0..2 {
        let refused = gateway.call("echo", &json!({ "text": "hi" }));
        assert!(refused.text().contains(&two.issuer()), "{}", refused.text());
    }
    needs_sign_in(&gateway, &two.issuer());
}

#[test]
fn a_token_endpoint_that_has_moved_is_found_after_a_refusal() {
    let place = Place::start();
    place.auth.protect(&place.upstream);
    place.signs_in(&json!(true));
    let gateway = place.serve(&json!(true));
    gateway.wait_until_well(&["s"]);
    place.auth.end_access_tokens();
    call(&gateway);
    place.auth.move_token_endpoint();
    place.auth.end_access_tokens();
    call(&gateway);
    assert_eq!(place.auth.seen_of("POST /moved/token").len(), 1);
}

#[test]
fn a_token_that_is_over_at_once_is_used_and_not_renewed_all_the_time() {
    let place = Place::start();
    place.auth.protect(&place.upstream);
    place.auth.tell_lifetime(0);
    place.signs_in(&json!(true));
    let gateway = place.serve(&json!(true));
    gateway.wait_until_well(&["s"]);
    let began = Instant::now();
    for _ in 0..12 {
        call(&gateway);
        rest(100);
    }
    // One at the start, and one in two seconds; calls alone would be twelve.
    let n_most = 2 + usize::try_from(began.elapsed().as_secs() / 2).unwrap();
    assert!(place.renewals() <= n_most, "{} of {n_most}", place.renewals());
}

#[test]
fn a_token_that_is_not_bound_to_the_key_is_not_used_where_that_is_configured() {
    let place = Place::start();
    let protection = place.auth.protect(&place.upstream);
    let browser = Browser::start();
    let oauth = json!({ "dpop": true });
    let gateway = signing_in(&place.upstream.url(), oauth, &place.state, &browser);
    wait_for("it says why", || {
        gateway.status_of("s").to_string().contains("not bound to").then_some(())
    });
    assert_eq!(protection.n_admitted(), 0);
}

#[test]
fn a_logout_forgets_the_registrations_of_before() {
    let place = Place::start();
    place.auth.protect(&place.upstream);
    let browser = Browser::start();
    let gateway = signing_in(&place.upstream.url(), json!(true), &place.state, &browser);
    gateway.wait_until_well(&["s"]);
    let (code, errors) = ended(place.command(&["logout", "s"], &json!(true)));
    assert_eq!(code, Some(0), "{errors}");
    wait_until("it is signed in again", || {
        gateway.call("echo", &json!({ "text": "hi" }));
        browser.pages().len() > 1
    });
    gateway.wait_until_well(&["s"]);
    assert_eq!(place.auth.seen_of("POST /register").len(), 2);
    // As that of a configured client, which is registered at another authorization server by now.
    let (place, oauth) = (Place::start(), json!({ "client_id": "known" }));
    let protection = place.auth.protect(&place.upstream);
    place.signs_in(&oauth);
    let two = AuthorizationServer::start();
    protection.migrate_to(&two);
    place.auth.end_access_tokens();
    let gateway = place.serve(&oauth);
    needs_sign_in(&gateway, "another authorization server");
    gateway.stop();
    let failed = place.command(&["login", "s"], &oauth);
    let (code, errors) = ended(failed);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("trunkline logout s"), "{errors}");
    let (code, errors) = ended(place.command(&["logout", "s"], &oauth));
    assert_eq!(code, Some(0), "{errors}");
    let (child, page) = place.logs_in(&oauth, |_| ());
    assert!(page.contains("Signed in to s"), "{page}");
    assert_eq!(ended(child).0, Some(0));
}

#[test]
fn a_logout_shows_the_secret_of_the_configuration_as_it_is_now() {
    let place = Place::start();
    place.auth.protect(&place.upstream);
    let methods = json!(["client_secret_basic"]);
    place.auth.set_metadata("token_endpoint_auth_methods_supported", methods);
    let client = |secret: &str| json!({ "client_id": "me", "client_secret": secret });
    place.signs_in(&client("the first one"));
    let (code, errors) = ended(place.command(&["logout", "s"], &client("the next one")));
    assert_eq!(code, Some(0), "{errors}");
    let asked = place.auth.seen_of("POST /revoke");
    // me:the+next+one
    let basic = Some("Basic bWU6dGhlK25leHQrb25l");
    let shown: Vec<_> = asked.iter().map(|it| it.authorization.as_deref()).collect();
    assert_eq!(shown, [basic, basic]);
}

#[test]
fn calls_do_not_wait_for_a_lock_beside_the_key() {
    let place = Place::start();
    place.auth.protect(&place.upstream);
    place.signs_in(&json!(true));
    let lock = Path::new("oauth-key.lock");
    let held = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(place.state.path().join(lock))
        .unwrap();
    held.lock().unwrap();
    let gateway = place.serve(&json!(true));
    gateway.wait_until_well_within(Duration::from_secs(10), &["s"]);
    call(&gateway);
}
