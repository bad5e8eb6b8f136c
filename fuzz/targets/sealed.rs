//! What clients bring back: session tokens, cursors, request states. Only what this gateway's key
//! has sealed opens, for what it was sealed for, and nothing inside of it can do harm.

use std::time::Duration;

use crate::downstream::stateless::request_state::digest::digest;
use crate::downstream::stateless::request_state::{Sequel, States};
use crate::protocol::cursor::{self, Place};
use crate::protocol::raw::RawObject;
use crate::protocol::revision::Revision;
use crate::protocol::sealed::Sealer;
use crate::protocol::server_name::ServerName;
use crate::session::event_log::EventId;
use crate::session::token::{Claims, Signer};

const KEY: [u8; 32] = [7; 32];
/// Seals nothing: a search that is guided by coverage copies what it has seen being sealed.
const UNUSED_KEY: [u8; 32] = [9; 32];
const LIFE: Duration = Duration::from_secs(300);

/// `sealed` with one character changed, which `at` chooses.
fn changed(sealed: &str, at: usize) -> String {
    let mut bytes = sealed.as_bytes().to_vec();
    let at = at % bytes.len();
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    String::from_utf8(bytes).unwrap()
}

pub(super) fn sealed(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let sealer = Sealer::new(&KEY, "fuzz");
    assert_eq!(Sealer::new(&UNUSED_KEY, "fuzz").open(text), None, "nobody has sealed this");
    let sealed = sealer.seal(text);
    assert!(sealed.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
    assert_eq!(sealer.open(&sealed).as_deref(), Some(text));
    let forged = changed(&sealed, data.len().wrapping_mul(31));
    assert!(forged == sealed || sealer.open(&forged).is_none(), "{forged}");
    assert_eq!(sealer.open(&format!("{sealed}{}", text.get(..1).unwrap_or("A"))), None);
    assert_eq!(Sealer::new(&KEY, "other").open(&sealed), None);
    assert_eq!(Sealer::new(&[8; 32], "fuzz").open(&sealed), None);
    cursors(text);
    tokens(text);
    states(text);
    if let Some(id) = EventId::parse(text) {
        assert_eq!(id.to_string(), text, "one spelling only");
    }
}

fn cursors(text: &str) {
    let sealer = Sealer::new(&KEY, "cursor");
    let (view, after) = text.split_once('|').unwrap_or(("", text));
    // A view is made of names and never has a line end.
    let view = view.replace('\n', "");
    let place = Place { name: after.to_owned(), position: after.len() };
    let made = cursor::seal(&sealer, &view, &place);
    assert_eq!(cursor::open(&sealer, &view, &made), Some(place));
    assert_eq!(cursor::open(&sealer, &format!("{view}x"), &made), None);
    assert_eq!(cursor::open(&Sealer::new(&UNUSED_KEY, "cursor"), &view, text), None);
}

fn tokens(text: &str) {
    let signer = Signer::new(&KEY);
    assert_eq!(Signer::new(&UNUSED_KEY).read(text, 0), None);
    // Anything that could ever have been sealed as a session.
    let inside = Sealer::new(&KEY, "session").seal(text);
    if let Some(claims) = signer.read(&inside, 0) {
        assert!(claims.expires > 0);
        claims.caller();
        // What is carried again may leave capabilities out that are too large.
        let again = signer.read(&signer.sign(&claims), 0).unwrap();
        let without = |claims: &Claims| Claims { capabilities: None, ..claims.clone() };
        assert_eq!(without(&again), without(&claims));
    }
    let claims = Claims {
        id: text.to_owned(),
        boot: "boot".to_owned(),
        principal: Some(text.to_owned()),
        revision: Revision::V2025_11_25,
        capabilities: Some("{}".to_owned()),
        only: ServerName::parse(text),
        narrowed: None,
        expires: 100,
    };
    let token = signer.sign(&claims);
    assert_eq!(signer.read(&token, 99), Some(claims));
    assert_eq!(signer.read(&token, 100), None);
    let forged = changed(&token, text.len());
    assert!(forged == token || signer.read(&forged, 0).is_none());
}

fn states(text: &str) {
    let sealer = Sealer::new(&KEY, "request-state");
    let (first, second) = text.split_once('\n').unwrap_or((text, "{}"));
    let of = |method: &str, params: &str| {
        RawObject::parse(params).map(|params| digest(method, &params)).unwrap_or_default()
    };
    let states = |principal, digest| States { sealer: &sealer, principal, user: None, digest };
    let mine = states(Some("k"), of("tools/call", first));
    // Anything that could ever have been sealed as a state.
    mine.open(&sealer.seal(text));
    let sequel = Sequel::Server {
        server: text.to_owned(),
        state: Some(second.to_owned()),
        serial: 1,
        round: 0,
    };
    let state = mine.seal(sequel.clone(), LIFE);
    assert_eq!(mine.open(&state), Some(sequel));
    assert_eq!(states(None, mine.digest.clone()).open(&state), None);
    assert_eq!(states(Some("l"), mine.digest.clone()).open(&state), None);
    assert_eq!(states(Some("k"), of("prompts/get", "{}")).open(&state), None);
    // Two requests that differ in anything but what a retry adds are two.
    let (Ok(one), Ok(two)) = (RawObject::parse(first), RawObject::parse(second)) else {
        return;
    };
    let said = |object: &RawObject<'_>| {
        let mut object = object.clone();
        object.remove("requestState");
        object.remove("inputResponses");
        serde_json::from_str::<serde_json::Value>(&object.to_text()).ok()
    };
    if let (Some(a), Some(b)) = (said(&one), said(&two)) {
        let is_same = digest("m", &one) == digest("m", &two);
        assert_eq!(is_same, a == b, "{first:?} {second:?}");
    }
}
