//! Tokens about which the issuer is asked.

use super::*;

#[test]
fn opaque_tokens_are_introspected_once_and_asked_about_again() {
    let rig = opaque();
    rig.scripted.say("t1", active("alice", ""));
    *rig.scripted.delay.lock() = Duration::from_millis(100);
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| rig.verify("t1").unwrap());
        }
    });
    assert_eq!(rig.scripted.n_asked("/introspect"), 1);
    let accepted = rig.verify("t1").unwrap();
    assert_eq!((accepted.expires_at, n_remembered(&rig.verifier)), (u64::MAX, 1));
    // What has grown old is served, and asked about by the thread.
    let asks = || rig.scripted.n_asked("/introspect");
    rig.verify_at("t1", later(INTROSPECTION_FRESH)).unwrap();
    wait_until(|| asks() == 2);
    // Past the answer's life, the request asks itself.
    rig.verify_at("t1", later(INTROSPECTION_LIFE + Duration::from_secs(1))).unwrap();
    assert_eq!(asks(), 3);
}

#[test]
fn a_revoked_token_ends_what_is_open() {
    let rig = opaque();
    rig.scripted.say("t1", active("alice", ""));
    let accepted = rig.verify("t1").unwrap();
    let standing = |after| rig.verifier.standing(&accepted, later(after));
    assert_eq!(standing(Duration::ZERO), Standing::Good);
    rig.scripted.say("t1", r#"{"active":false}"#);
    assert_eq!(standing(INTROSPECTION_FRESH), Standing::Good);
    wait_until(|| standing(Duration::ZERO) == Standing::Ended);
    assert_eq!(wrong(rig.verify("t1")), WrongToken::Inactive);
}

#[test]
fn what_was_accepted_before_a_reload_hears_of_a_revocation_after_it() {
    let rig = opaque();
    rig.scripted.say("t1", active("alice", ""));
    let before = rig.verify("t1").unwrap();
    let issuers = vec![introspecting(IntrospectedTokens::Opaque)];
    let after = rig.server.verifier(&config(issuers, vec![rule(None)]), &owners()).unwrap();
    rig.scripted.say("t1", r#"{"active":false}"#);
    assert_eq!(after.standing(&before, later(INTROSPECTION_FRESH)), Standing::Good);
    wait_until(|| after.standing(&before, Now::read()) == Standing::Ended);
    assert_eq!(n_remembered(&after), 0);
}

#[test]
fn a_token_that_waited_to_be_asked_about_at_a_reload_is_asked_about_later() {
    let rig = opaque();
    rig.scripted.say("t1", active("alice", ""));
    let accepted = rig.verify("t1").unwrap();
    let gone = std::sync::Weak::<Verifier>::new();
    let old = later(INTROSPECTION_FRESH);
    rig.server.shared.keeper.recheck(gone, &accepted, old.instant);
    rig.scripted.say("t1", r#"{"active":false}"#);
    wait_until(|| rig.verifier.standing(&accepted, old) == Standing::Ended);
}

fn is_queued(accepted: &Accepted) -> bool {
    accepted.news.introspected.as_ref().unwrap().last.lock().is_queued
}

#[test]
fn a_token_that_its_issuer_cannot_read_stops_no_questions_about_others() {
    let rig = opaque();
    rig.scripted.say("t1", active("alice", ""));
    let accepted = rig.verify("t1").unwrap();
    assert!(is_unavailable(&rig.verify("malformed")));
    rig.scripted.say("t1", r#"{"active":false}"#);
    assert_eq!(rig.verifier.standing(&accepted, later(INTROSPECTION_FRESH)), Standing::Good);
    wait_until(|| !is_queued(&accepted));
    assert_eq!(rig.verifier.standing(&accepted, Now::read()), Standing::Ended);
}

#[test]
fn a_question_that_was_not_asked_is_no_failure_of_its_token() {
    let rig = opaque();
    rig.scripted.say("t1", active("alice", ""));
    let accepted = rig.verify("t1").unwrap();
    *rig.scripted.is_down.lock() = true;
    assert!(is_unavailable(&rig.verify("t2")));
    *rig.scripted.is_down.lock() = false;
    for after in [Duration::ZERO, Duration::from_secs(1)] {
        let now = later(INTROSPECTION_LIFE + after);
        assert_eq!(rig.verifier.standing(&accepted, now), Standing::Good, "{after:?}");
        wait_until(|| !is_queued(&accepted));
    }
}

#[test]
fn an_answer_that_cannot_be_had_holds_no_longer_than_a_minute() {
    let rig = opaque();
    rig.scripted.say("t1", active("alice", ""));
    let accepted = rig.verify("t1").unwrap();
    *rig.scripted.is_down.lock() = true;
    assert_eq!(rig.verifier.standing(&accepted, later(INTROSPECTION_FRESH)), Standing::Good);
    let old = later(INTROSPECTION_LIFE);
    wait_until(|| rig.verifier.standing(&accepted, old) == Standing::Ended);
    assert!(is_unavailable(&rig.verify_at("t1", old)));
    assert!(is_unavailable(&rig.verify("t2")));
}

#[test]
fn rights_that_a_user_loses_end_with_the_next_answer() {
    let scripted = Scripted::default();
    scripted.issuer(ISSUER, &[]);
    let mut ops = rule(Some(("groups", "ops")));
    ops.admin = true;
    let issuers = vec![introspecting(IntrospectedTokens::Opaque)];
    let rig = Rig::new(scripted, &config(issuers, vec![ops, rule(None)]));
    rig.scripted.say("t", active("alice", r#","groups":["ops"],"n":1"#));
    let first = rig.verify("t").unwrap();
    assert!(first.principal.is_admin);
    // Other claims, which change no rights, are those of the next calls.
    rig.scripted.say("t", active("alice", r#","groups":["ops"],"n":2"#));
    rig.verify_at("t", later(INTROSPECTION_FRESH)).unwrap();
    let n = |it: &Accepted| it.principal.user.as_ref().unwrap().claim("n");
    wait_until(|| n(&rig.verify("t").unwrap()).as_deref() == Some("2"));
    assert_eq!(rig.verifier.standing(&first, Now::read()), Standing::Good);
    // A stream that began before that change makes none of its own.
    let changed = rig.verify("t").unwrap();
    assert_eq!(rig.verifier.standing(&first, later(INTROSPECTION_FRESH)), Standing::Good);
    wait_until(|| !is_queued(&first));
    assert!(Arc::ptr_eq(&rig.verify("t").unwrap(), &changed));
    // Fewer rights end what is open with the old ones.
    rig.scripted.say("t", active("alice", ""));
    let of_now = rig.verify("t").unwrap();
    rig.verify_at("t", later(INTROSPECTION_FRESH)).unwrap();
    wait_until(|| !rig.verify("t").unwrap().principal.is_admin);
    for old in [&first, &of_now] {
        assert_eq!(rig.verifier.standing(old, Now::read()), Standing::Ended);
    }
}

#[test]
fn a_token_that_nobody_gets_to_ask_about_ends() {
    let rig = opaque();
    let tokens = ["t1", "t2", "t3", "t4", "t5"];
    tokens.iter().for_each(|token| rig.scripted.say(token, active("alice", "")));
    let all: Vec<_> = tokens.iter().map(|token| rig.verify(token).unwrap()).collect();
    *rig.scripted.delay.lock() = Duration::from_secs(2);
    let standing = |after| {
        let of_one = |it| rig.verifier.standing(it, later(after));
        all.iter().map(of_one).collect::<Vec<_>>()
    };
    // Nobody has looked for long, and the answer is on its way.
    let old = INTROSPECTION_LIFE + Duration::from_secs(100);
    assert_eq!(standing(old), [Standing::Good; 5]);
    let look = crate::limits::LEASE_CHECK_INTERVAL;
    assert_eq!(standing(old + look), [Standing::Ended; 5]);
    wait_until(|| standing(Duration::ZERO) == [Standing::Good; 5]);
    wait_until(|| rig.scripted.n_asked("/introspect") == 10);
    let most = rig.scripted.most_at_once.load(Ordering::SeqCst);
    assert_eq!(most, crate::limits::RECHECKERS_MAX);
}

#[test]
fn an_issuer_that_wants_the_secret_in_the_form_gets_it_there() {
    let scripted = Scripted::default();
    *scripted.wants_post.lock() = true;
    // Nobody reads its metadata, which would say so.
    let mut of = introspecting(IntrospectedTokens::Opaque);
    of.jwks_uri = Some(format!("{ISSUER}/jwks"));
    of.introspection.as_mut().unwrap().endpoint = Some(format!("{ISSUER}/introspect"));
    scripted.set(&format!("{ISSUER}/jwks"), jwks(&[]));
    let rig = Rig::new(scripted, &config(vec![of], vec![rule(None)]));
    for token in ["t1", "t2"] {
        rig.scripted.say(token, active("alice", ""));
        rig.verify(token).unwrap();
    }
    // The first question finds out.
    assert_eq!(rig.scripted.n_asked("/introspect"), 3);
}

/// Two issuers that are asked about opaque tokens, in this order.
fn two_that_introspect(scripted: &Scripted) -> Vec<IssuerConfig> {
    scripted.issuer(ISSUER, &[]);
    scripted.issuer(OTHER, &[]);
    let first = introspecting(IntrospectedTokens::Opaque);
    let second = IssuerConfig { issuer: OTHER.to_owned(), ..first.clone() };
    vec![first, second]
}

fn issuer_of(accepted: &Accepted) -> &str {
    &accepted.issuer.config.issuer
}

#[test]
fn an_opaque_token_is_shown_to_no_other_issuer_once_one_has_known_it() {
    let scripted = Scripted::default();
    let issuers = two_that_introspect(&scripted);
    let rig = Rig::new(scripted, &config(issuers.clone(), vec![rule(None)]));
    let asked = |issuer: &str| rig.scripted.n_asked(&format!("{issuer}/introspect"));
    rig.scripted.say_at(ISSUER, "t1", active("alice", ""));
    rig.scripted.say_at(OTHER, "t2", active("alice", ""));
    assert_eq!(issuer_of(&rig.verify("t1").unwrap()), ISSUER);
    assert_eq!((asked(ISSUER), asked(OTHER)), (1, 0));
    assert_eq!(issuer_of(&rig.verify("t2").unwrap()), OTHER);
    assert_eq!((asked(ISSUER), asked(OTHER)), (2, 1));
    // When the answer is too old, after a reload, and at the end of the token, the other issuer
    // neither sees it nor is believed.
    rig.scripted.say_at(ISSUER, "t2", active("mallory", ""));
    let old = later(INTROSPECTION_LIFE + Duration::from_secs(1));
    assert_eq!(issuer_of(&rig.verify_at("t2", old).unwrap()), OTHER);
    let after = rig.server.verifier(&config(issuers, vec![rule(None)]), &owners()).unwrap();
    let verify = || after.verify(&presented("t2"), Now::read());
    assert_eq!(issuer_of(&verify().unwrap()), OTHER);
    *rig.scripted.hangs.lock() = Some(OTHER);
    let older = later(INTROSPECTION_LIFE * 2);
    assert!(is_unavailable(&after.verify(&presented("t2"), older)));
    *rig.scripted.hangs.lock() = None;
    rig.scripted.say_at(OTHER, "t2", r#"{"active":false}"#);
    assert_eq!(wrong(verify()), WrongToken::Inactive);
    assert_eq!(asked(ISSUER), 2);
}

#[test]
fn an_issuer_speaks_for_its_own_opaque_tokens_alone() {
    let scripted = Scripted::default();
    let issuers = two_that_introspect(&scripted);
    let rig = Rig::new(scripted, &config(issuers, vec![rule(None)]));
    // It says itself that the token is another's.
    rig.scripted.say_at(ISSUER, "t1", active("admin", &format!(r#","iss":"{OTHER}""#)));
    assert!(matches!(wrong(rig.verify("t1")), WrongToken::Issuer(_)));
    rig.scripted.say_at(OTHER, "t1", active("alice", ""));
    assert_eq!(issuer_of(&rig.verify_at("t1", later(REFUSAL_LIFE)).unwrap()), OTHER);
    // What is its own, and not for the gateway, is nobody else's.
    rig.scripted.say_at(ISSUER, "t2", r#"{"active":true,"sub":"s","aud":"https://b.example"}"#);
    rig.scripted.say_at(OTHER, "t2", active("alice", ""));
    assert_eq!(wrong(rig.verify("t2")), WrongToken::Audience);
    assert_eq!(wrong(rig.verify_at("t2", later(REFUSAL_LIFE))), WrongToken::Audience);
    // What nobody knows costs each one question.
    let asked = rig.scripted.n_asked("/introspect");
    assert_eq!(wrong(rig.verify("t3")), WrongToken::Inactive);
    assert_eq!(wrong(rig.verify("t3")), WrongToken::Inactive);
    assert_eq!(rig.scripted.n_asked("/introspect"), asked + 2);
}

#[test]
fn an_issuer_that_hangs_holds_up_another_ones_opaque_tokens_once() {
    let scripted = Scripted::default();
    let issuers = two_that_introspect(&scripted);
    let rig = Rig::new(scripted, &config(issuers, vec![rule(None)]));
    for n in 0..6 {
        rig.scripted.say_at(OTHER, &format!("t{n}"), active("alice", ""));
    }
    rig.scripted.say_at(ISSUER, "mine", active("alice", ""));
    // The issuer of a token, and how often the first issuer was asked until that was known.
    let verified = |token: &str| {
        let n_asked = || rig.scripted.n_asked(&format!("{ISSUER}/introspect"));
        let before = n_asked();
        let issuer = issuer_of(&rig.verify(token).unwrap()).to_owned();
        (issuer, n_asked() - before)
    };
    *rig.scripted.hangs.lock() = Some(ISSUER);
    assert_eq!(verified("t0"), (OTHER.to_owned(), 1));
    for n in 1..5 {
        assert_eq!(verified(&format!("t{n}")), (OTHER.to_owned(), 0), "{n}");
    }
    // Its own tokens cannot be decided, whatever the other one says of them.
    assert!(is_unavailable(&rig.verify("mine")));
    // Once it answers, it is asked in its turn again.
    *rig.scripted.hangs.lock() = None;
    assert_eq!(verified("mine").0, ISSUER);
    assert_eq!(verified("t5"), (OTHER.to_owned(), 1));
}

#[test]
fn one_opaque_token_in_many_requests_at_once_is_asked_about_once_at_each_issuer() {
    let scripted = Scripted::default();
    let issuers = two_that_introspect(&scripted);
    let rig = Rig::new(scripted, &config(issuers, vec![rule(None)]));
    rig.scripted.say_at(OTHER, "good", active("alice", ""));
    *rig.scripted.delay.lock() = Duration::from_millis(100);
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| rig.verify("good").unwrap());
            scope.spawn(|| assert_eq!(wrong(rig.verify("bad")), WrongToken::Inactive));
        }
    });
    assert_eq!(rig.scripted.n_asked("/introspect"), 4);
}

#[test]
fn requests_with_one_opaque_token_share_its_answer_where_all_turns_were_taken() {
    let rig = opaque();
    let others: Vec<_> = (0..INTROSPECTIONS_AT_ONCE_MAX).map(|n| format!("t{n}")).collect();
    others.iter().for_each(|token| rig.scripted.say(token, active("alice", "")));
    rig.scripted.say("new", active("bob", ""));
    wait_until(|| rig.server.status()[0].keys_age.is_some());
    let gate = rig.scripted.gate.write();
    let asked = || rig.scripted.n_asked("/introspect");
    std::thread::scope(|scope| {
        for token in &others {
            scope.spawn(|| rig.verify(token).unwrap());
        }
        wait_until(|| asked() == INTROSPECTIONS_AT_ONCE_MAX);
        for _ in 0..4 {
            scope.spawn(|| rig.verify("new").unwrap());
            scope.spawn(|| assert_eq!(wrong(rig.verify("bad")), WrongToken::Inactive));
        }
        std::thread::sleep(Duration::from_millis(300));
        *rig.scripted.delay.lock() = Duration::from_millis(100);
        drop(gate);
    });
    assert_eq!(asked(), INTROSPECTIONS_AT_ONCE_MAX + 2);
}

#[test]
fn a_flood_of_made_up_tokens_keeps_nobody_out() {
    let rig = opaque();
    rig.scripted.say("known", active("alice", ""));
    rig.scripted.say("new", active("bob", ""));
    rig.verify("known").unwrap();
    let gate = rig.scripted.gate.write();
    let flood: Vec<String> = (0..200).map(|n| format!("made-up-{n}")).collect();
    let (n_answered, n_refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for token in &flood {
            scope.spawn(|| {
                let denied = rig.verify(token);
                let count = if is_unavailable(&denied) { &n_refused } else { &n_answered };
                count.fetch_add(1, Ordering::SeqCst);
                assert!(denied.is_err());
            });
        }
        let most = flood.len() - INTROSPECTIONS_WAITING_MAX;
        wait_until(|| n_refused.load(Ordering::SeqCst) >= most);
        // It could not wait: no question is answered at present.
        rig.verify("known").unwrap();
        let elsewhere =
            Presented { peer: Some("192.0.2.7".parse().unwrap()), ..presented("new") };
        let elsewhere = scope.spawn({
            let verifier = &rig.verifier;
            move || verifier.verify(&elsewhere, Now::read()).unwrap()
        });
        std::thread::sleep(Duration::from_millis(100));
        drop(gate);
        elsewhere.join().unwrap();
    });
    let at_once = rig.scripted.most_at_once.load(Ordering::SeqCst);
    assert!(at_once <= INTROSPECTIONS_AT_ONCE_MAX, "{at_once}");
    // Those that found no room cost the issuer nothing.
    let known_ones = 2;
    let asked = rig.scripted.n_asked("/introspect");
    assert_eq!(asked, n_answered.load(Ordering::SeqCst) + known_ones);
}

#[test]
fn introspection_that_a_reload_adds_works_at_once() {
    let (rig, key) = simple();
    rig.verify(&key.token("k", &claims(ISSUER, "alice", ""))).unwrap();
    rig.scripted.say("t1", active("alice", ""));
    let issuers = vec![introspecting(IntrospectedTokens::Opaque)];
    let after = rig.server.verifier(&config(issuers, vec![rule(None)]), &owners()).unwrap();
    after.verify(&presented("t1"), Now::read()).unwrap();
}

#[test]
fn keys_and_introspection_do_not_wait_for_each_other() {
    // The metadata lead to keys that are not there.
    let (scripted, key) = (Scripted::default(), TestKey::p256());
    scripted.issuer(ISSUER, &[]);
    scripted.documents.lock().remove(&format!("{ISSUER}/jwks"));
    scripted.say("t1", active("alice", ""));
    let issuers = vec![introspecting(IntrospectedTokens::Opaque)];
    let rig = Rig::new(scripted, &config(issuers, vec![rule(None)]));
    rig.verify("t1").unwrap();
    assert!(is_unavailable(&rig.verify(&key.token("k", &claims(ISSUER, "alice", "")))));
    // There are no metadata, and the configuration says where the keys are.
    let scripted = Scripted::default();
    scripted.set("https://keys.example", jwks(&[&key.jwk("k")]));
    let mut of = introspecting(IntrospectedTokens::Opaque);
    of.jwks_uri = Some("https://keys.example".to_owned());
    let rig = Rig::new(scripted, &config(vec![of], vec![rule(None)]));
    rig.verify(&key.token("k", &claims(ISSUER, "alice", ""))).unwrap();
    let began = Instant::now();
    assert!(is_unavailable(&rig.verify("t1")));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // An issuer that signs nothing.
    let scripted = Scripted::default();
    let metadata =
        format!(r#"{{"issuer":"{ISSUER}","introspection_endpoint":"{ISSUER}/introspect"}}"#);
    scripted.set(&metadata_url(ISSUER), metadata);
    scripted.say("t1", active("alice", ""));
    let issuers = vec![introspecting(IntrospectedTokens::Opaque)];
    let rig = Rig::new(scripted, &config(issuers, vec![rule(None)]));
    rig.verify("t1").unwrap();
}

#[test]
fn a_jwt_may_be_introspected_besides() {
    let (scripted, key) = (Scripted::default(), TestKey::p256());
    scripted.issuer(ISSUER, &[&key.jwk("k")]);
    let issuers = vec![introspecting(IntrospectedTokens::All)];
    let rig = Rig::new(scripted, &config(issuers, vec![rule(None)]));
    let token = key.token("k", &claims(ISSUER, "alice", ""));
    assert_eq!(wrong(rig.verify(&token)), WrongToken::Inactive);
    let other = key.token("k", &claims(ISSUER, "alice", r#","jti":"2""#));
    rig.scripted.say(&other, active("alice", ""));
    rig.verify(&other).unwrap();
    // One with a wrong signature is not asked about.
    let asks = rig.scripted.n_asked("/introspect");
    let forged = TestKey::p256().token("k", &claims(ISSUER, "alice", ""));
    assert_eq!(wrong(rig.verify(&forged)), WrongToken::Signature);
    assert_eq!(rig.scripted.n_asked("/introspect"), asks);
}

#[test]
fn what_a_jwt_says_holds_where_the_introspection_is_silent() {
    let (scripted, key) = (Scripted::default(), TestKey::p256());
    scripted.issuer(ISSUER, &[&key.jwk("k")]);
    let issuers = vec![introspecting(IntrospectedTokens::All)];
    let rig = Rig::new(scripted, &config(issuers, vec![rule(None)]));
    let terse = |more: &str| format!(r#"{{"active":true{more}}}"#);
    let verify = |claims: &str, answer: String| {
        let token = key.token("k", claims);
        rig.scripted.say(&token, answer);
        rig.verify(&token)
    };
    // People of one OAuth client stay apart, and their tokens end when they say so.
    let client = format!(r#","aud":"{AUDIENCE}","client_id":"desktop","username":"a@x""#);
    let alice = verify(&claims(ISSUER, "alice", ""), terse(&client)).unwrap();
    let bob = verify(&claims(ISSUER, "bob", ""), terse("")).unwrap();
    assert_eq!(alice.principal.name.as_deref(), Some("alice@idp.example"));
    assert_eq!(bob.principal.name.as_deref(), Some("bob@idp.example"));
    assert!(alice.time_left(Now::read()) <= 2 * DAY + Duration::from_secs(30));
    // A key to which the token is bound is not forgotten.
    let jkt = crate::oauth::jwk::Jwk::parse(&key.jwk("c")).unwrap().thumbprint().encode();
    let bound = claims(ISSUER, "alice", &format!(r#","cnf":{{"jkt":"{jkt}"}}"#));
    let denied = verify(&bound, terse(&client)).unwrap_err();
    assert_eq!(denied, Denied::Proof(WrongProof::Scheme));
    // Another subject is no answer about this token.
    let other = verify(&claims(ISSUER, "carol", ""), active("alice", ""));
    assert!(matches!(other, Err(Denied::Token(_))), "{other:?}");
}

#[test]
fn people_whose_tokens_do_not_say_who_they_are_are_not_taken_for_their_client() {
    let rig = opaque();
    let of_client = |more: &str| {
        format!(r#"{{"active":true,"aud":"{AUDIENCE}","client_id":"desktop"{more}}}"#)
    };
    rig.scripted.say("alice", of_client(r#","username":"alice""#));
    rig.scripted.say("bob", of_client(""));
    for token in ["alice", "bob"] {
        let result = rig.verify(token);
        assert!(matches!(result, Err(Denied::Token(_))), "{token}: {result:?}");
    }
}
