//! The keys of issuers: read, read again, kept, and missing.

use super::*;

#[test]
fn a_new_key_is_found_and_made_up_ones_cost_the_issuer_nothing() {
    let (rig, key) = simple();
    let good = key.token("k", &claims(ISSUER, "alice", ""));
    rig.verify(&good).unwrap();
    let began = Instant::now();
    let new = TestKey::p256();
    rig.scripted.set(&format!("{ISSUER}/jwks"), jwks(&[&key.jwk("k"), &new.jwk("n")]));
    let made_up: Vec<_> =
        (0..200).map(|n| new.token(&format!("x{n}"), &claims(ISSUER, "mallory", ""))).collect();
    std::thread::scope(|scope| {
        for token in &made_up {
            scope.spawn(|| assert!(rig.verify(token).is_err()));
        }
        // While they wait, a known key costs nothing, and others find room to wait.
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            let other = key.token("k", &claims(ISSUER, "bob", ""));
            let began = Instant::now();
            rig.verify(&other).unwrap();
            assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
            let elsewhere = Some("192.0.2.7".parse().unwrap());
            let fresh = new.token("n", &claims(ISSUER, "carol", ""));
            let fresh = Presented { peer: elsewhere, ..presented(&fresh) };
            rig.verifier.verify(&fresh, Now::read()).unwrap();
        });
    });
    assert!(began.elapsed() + Duration::from_millis(500) >= KEYS_FETCH_INTERVAL_MIN / 2);
    assert_eq!(rig.scripted.n_asked("/jwks"), 2);
    // An id that was looked for is refused at once.
    let waited = made_up.iter().filter(|token| {
        let began = Instant::now();
        let wrong = wrong_or_busy(rig.verify(token));
        assert!(began.elapsed() < KEYS_FETCH_INTERVAL_MIN * 2);
        matches!(wrong, Some(WrongToken::UnknownKey(_)))
    });
    assert!(waited.take(3).count() == 3);
}

fn wrong_or_busy(result: Result<Arc<Accepted>, Denied>) -> Option<WrongToken> {
    match result {
        Err(Denied::Token(wrong)) => Some(wrong),
        Err(Denied::Unavailable { .. }) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn keys_hold_while_their_issuer_is_down_but_not_for_ever() {
    let (rig, key) = simple();
    rig.verify(&key.token("k", &claims(ISSUER, "alice", ""))).unwrap();
    *rig.scripted.is_down.lock() = true;
    let bob = key.token("k", &claims(ISSUER, "bob", ""));
    let accepted = rig.verify_at(&bob, later(DAY - Duration::from_secs(60))).unwrap();
    assert_eq!(rig.server.status()[0].keys, 1);
    // Past their age, what was accepted is over too.
    let end = later(DAY + Duration::from_secs(60));
    assert_eq!(rig.verifier.standing(&accepted, end), Standing::Ended);
    let keys = &accepted.issuer;
    assert!(keys.usable_keys(end.instant).is_none());
}

#[test]
fn keys_outlive_a_restart_while_their_issuer_is_down() {
    let path = std::env::temp_dir().join(format!("trunkline-keys-{}", std::process::id()));
    let directory = Arc::new(crate::state::StateDir::open(&path).unwrap());
    let (writer, writing) = crate::state::start(directory.clone()).unwrap();
    let start = |scripted: &Arc<Scripted>, config: &OAuthConfig| {
        let server = ResourceServer::new(always(scripted));
        let server = server.with_kept_keys(directory.clone(), writer.clone());
        let verifier = server.verifier(config, &owners()).unwrap();
        (server, verifier)
    };
    let (scripted, key) = (Arc::new(Scripted::default()), TestKey::p256());
    scripted.issuer(ISSUER, &[&key.jwk("k")]);
    let everybody = config(vec![issuer(ISSUER)], vec![rule(None)]);
    let token = key.token("k", &claims(ISSUER, "alice", ""));
    let (server, verifier) = start(&scripted, &everybody);
    verifier.verify(&presented(&token), Now::read()).unwrap();
    drop(server);
    let files = || {
        let names = directory.names().into_iter();
        names.filter(|name| name.starts_with("issuer-keys.") && !name.ends_with(".tmp")).count()
    };
    wait_until(|| files() == 1);
    *scripted.is_down.lock() = true;
    let (_server, verifier) = start(&scripted, &everybody);
    verifier.verify(&presented(&token), Now::read()).unwrap();
    // Too old, or found elsewhere by now.
    let short = OAuthConfig { jwks_max_age: Duration::ZERO, ..everybody.clone() };
    let (_server, verifier) = start(&scripted, &short);
    assert!(is_unavailable(&verifier.verify(&presented(&token), Now::read())));
    let moved =
        IssuerConfig { jwks_uri: Some("https://x.example".to_owned()), ..issuer(ISSUER) };
    let (_server, verifier) = start(&scripted, &config(vec![moved], vec![rule(None)]));
    assert!(is_unavailable(&verifier.verify(&presented(&token), Now::read())));
    // Those of an issuer that is not configured any more are removed.
    let (_server, _) = start(&scripted, &config(vec![issuer(OTHER)], vec![rule(None)]));
    wait_until(|| files() == 0);
    // So are all once no issuer is configured.
    *scripted.is_down.lock() = false;
    let (server, _) = start(&scripted, &everybody);
    wait_until(|| files() == 1);
    server.rest();
    wait_until(|| files() == 0);
    drop((_server, server, writer));
    writing.detach();
    std::fs::remove_dir_all(&path).unwrap();
}

#[test]
fn an_issuer_that_is_down_or_lies_has_no_keys() {
    let (scripted, key) = (Scripted::default(), TestKey::p256());
    let evil = r#"{"issuer":"https://evil.example","jwks_uri":"https://evil.example/jwks"}"#;
    scripted.set(&metadata_url(ISSUER), evil);
    let rig = Rig::new(scripted, &config(vec![issuer(ISSUER)], vec![rule(None)]));
    let token = key.token("k", &claims(ISSUER, "alice", ""));
    let denied = rig.verify(&token);
    assert!(is_unavailable(&denied), "{denied:?}");
    assert_eq!(denied.unwrap_err().error(), ErrorCode::TemporarilyUnavailable);
    assert_eq!(rig.scripted.n_asked("/jwks"), 0);
    assert!(rig.server.status()[0].fault.as_deref().unwrap().contains("evil"));
    // As long as it is so, nobody waits.
    let began = Instant::now();
    assert!(is_unavailable(&rig.verify(&token)));
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn metadata_lead_to_the_issuers_own_host_or_to_public_ones() {
    let (scripted, key) = (Scripted::default(), TestKey::p256());
    let metadata = format!(r#"{{"issuer":"{ISSUER}","jwks_uri":"https://keys.example/jwks"}}"#);
    scripted.set(&metadata_url(ISSUER), metadata);
    scripted.set("https://keys.example/jwks", jwks(&[&key.jwk("k")]));
    let rig = Rig::new(scripted, &config(vec![issuer(ISSUER)], vec![rule(None)]));
    rig.verify(&key.token("k", &claims(ISSUER, "alice", ""))).unwrap();
    let asked = rig.scripted.asked.lock();
    let reach = |end: &str| asked.iter().find(|(url, _)| url.ends_with(end)).unwrap().1;
    assert_eq!(reach("/openid-configuration"), Reach::Loopback);
    assert_eq!(reach("/jwks"), Reach::PublicOnly);
}

#[test]
fn a_withdrawn_key_ends_what_it_has_signed() {
    let (rig, key) = simple();
    let token = key.token("k", &claims(ISSUER, "alice", ""));
    let accepted = rig.verify(&token).unwrap();
    let new = TestKey::p256();
    rig.scripted.set(&format!("{ISSUER}/jwks"), jwks(&[&new.jwk("n"), &key.jwk("k2")]));
    let read = |after: Duration| accepted.issuer.refresh(later(after).instant);
    read(Duration::from_secs(400));
    // The same key under another id is the same key.
    assert_eq!(rig.verifier.standing(&accepted, Now::read()), Standing::Good);
    rig.scripted.set(&format!("{ISSUER}/jwks"), jwks(&[&new.jwk("n")]));
    read(Duration::from_secs(800));
    assert_eq!(rig.verifier.standing(&accepted, Now::read()), Standing::Ended);
    assert!(rig.verify(&token).is_err());
    assert!(rig.verify(&new.token("n", &claims(ISSUER, "alice", ""))).is_ok());
}

#[test]
fn an_issuer_that_hangs_is_waited_for_once() {
    let scripted = Scripted::default();
    *scripted.hang.lock() = Duration::from_secs(60);
    let of = IssuerConfig { jwks_uri: Some("https://h/jwks".to_owned()), ..issuer(ISSUER) };
    let rig = Rig::new(scripted, &config(vec![of], vec![rule(None)]));
    let token = TestKey::p256().token("k", &claims(ISSUER, "alice", ""));
    let began = Instant::now();
    assert!(is_unavailable(&rig.verify(&token)));
    assert!(began.elapsed() < crate::limits::KEY_WAIT_TIMEOUT, "{:?}", began.elapsed());
    // It has failed, and is not asked again at once.
    assert!(is_unavailable(&rig.verify(&token)));
    assert!(began.elapsed() < crate::limits::KEY_WAIT_TIMEOUT, "{:?}", began.elapsed());
    assert_eq!(rig.scripted.n_asked("/jwks"), 1);
}

#[test]
fn keys_that_moved_end_what_the_old_ones_signed_where_the_new_ones_cannot_be_had() {
    let (rig, key) = simple();
    let token = key.token("k", &claims(ISSUER, "alice", ""));
    let accepted = rig.verify(&token).unwrap();
    let moved = Some("https://elsewhere.example/nothing".to_owned());
    let moved = IssuerConfig { jwks_uri: moved, ..issuer(ISSUER) };
    let after = rig.server.verifier(&config(vec![moved], vec![rule(None)]), &owners()).unwrap();
    assert_eq!(after.standing(&accepted, Now::read()), Standing::Good);
    let end = later(crate::limits::KEYS_AWAITED_TIME);
    assert_eq!(after.standing(&accepted, end), Standing::Ended);
}

#[test]
fn a_key_that_comes_right_after_a_reading_is_read_without_another_request() {
    let (rig, key) = simple();
    wait_until(|| rig.server.status()[0].keys == 1);
    let unknown = key.token("made-up", &claims(ISSUER, "alice", ""));
    assert!(matches!(wrong(rig.verify(&unknown)), WrongToken::UnknownKey(_)));
    let new = TestKey::p256();
    rig.scripted.set(&format!("{ISSUER}/jwks"), jwks(&[&new.jwk("n"), &key.jwk("k")]));
    let token = new.token("n", &claims(ISSUER, "alice", ""));
    assert!(matches!(wrong(rig.verify(&token)), WrongToken::UnknownKey(_)));
    wait_until(|| rig.server.status()[0].keys == 2);
}

#[test]
fn keys_are_read_again_after_a_panic() {
    let scripted = Scripted::default();
    *scripted.panics.lock() = true;
    scripted.issuer(ISSUER, &[&TestKey::p256().jwk("k")]);
    let rig = Rig::new(scripted, &config(vec![issuer(ISSUER)], vec![rule(None)]));
    wait_until(|| rig.server.status()[0].keys == 1);
}

#[test]
fn tokens_with_made_up_key_ids_are_refused_at_once() {
    let (rig, key) = simple();
    rig.verify(&key.token("k", &claims(ISSUER, "alice", ""))).unwrap();
    let made_up = |n: usize| key.token(&format!("made-up-{n}"), &claims(ISSUER, "alice", ""));
    // The first one waits until the keys may be read again, and reads them.
    assert!(matches!(rig.verify(&made_up(0)), Err(Denied::Token(_))));
    let began = Instant::now();
    for n in 1..20 {
        assert!(matches!(rig.verify(&made_up(n)), Err(Denied::Token(_))), "{n}");
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(rig.scripted.n_asked("/jwks"), 2);
    // A key that comes meanwhile is found by the next reading.
    let new = TestKey::p256();
    rig.scripted.issuer(ISSUER, &[&key.jwk("k"), &new.jwk("new")]);
    let token = new.token("new", &claims(ISSUER, "alice", ""));
    wait_until(|| rig.verify(&token).is_ok());
}
