//! What modern upstreams are listened to for: one `subscriptions/listen` at a time, and another
//! one in its place when something else is wanted.

use std::io::Read as _;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use trunkline::limits::Limits;
use trunkline::protocol::call::{Notice, Outcome};
use trunkline::protocol::raw::RawObject;
use trunkline::protocol::session_route::SessionRoute;

use crate::upstream::rig::*;
use crate::upstream::session::subscriptions::{One, one};
use crate::upstream::stateless_rig::*;

/// What the server saw of streams: the resources of one that began, and the end of one.
#[derive(Debug, Clone, PartialEq)]
enum Told {
    Began(String, String),
    Ended(String),
}

/// A modern server that serves streams, and agrees to listen to `a:` and `b:` only.
struct Teller {
    server: Server,
    told: Receiver<Told>,
    streams: Arc<Mutex<Vec<(String, TcpStream)>>>,
}

fn acknowledged(id: &str, wanted: &str) -> String {
    let agreed = wanted.replace(",\"c:\"", "").replace("\"c:\"", "");
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"notifications":{agreed},"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}}}"#
    )
}

fn wanted(seen: &Seen) -> String {
    let body = RawObject::parse(&seen.body).unwrap();
    let params = RawObject::parse(body.get("params").unwrap()).unwrap();
    params.get("notifications").unwrap().to_owned()
}

impl Teller {
    fn start() -> Teller {
        let (tell, told): (Sender<Told>, _) = bounded(100);
        let streams: Arc<Mutex<Vec<(String, TcpStream)>>> = Arc::default();
        let mine = streams.clone();
        let server = Server::start(move |seen| {
            if seen.rpc() != "subscriptions/listen" {
                return modern(seen);
            }
            assert_eq!(seen.header("mcp-method"), Some("subscriptions/listen"));
            let (id, wanted, tell, streams) =
                (seen.id(), wanted(seen), tell.clone(), mine.clone());
            Reply::stream(move |out| {
                {
                    // Nothing is said on the stream before it is agreed to.
                    let mut streams = streams.lock().unwrap();
                    streams.push((id.clone(), out.try_clone().unwrap()));
                    tell.send(Told::Began(id.clone(), wanted.clone())).unwrap();
                    event(out, &acknowledged(&id, &wanted));
                }
                out.read_to_end(&mut Vec::new()).ok();
                tell.send(Told::Ended(id)).unwrap();
            })
        });
        Teller { server, told, streams }
    }

    fn next(&self) -> Told {
        self.told.recv_timeout(PATIENCE).unwrap()
    }

    /// The resources of the next stream, which begins now, and its id.
    #[track_caller]
    fn began(&self) -> (String, String) {
        match self.next() {
            Told::Began(id, wanted) => (id, wanted),
            other @ Told::Ended(_) => panic!("{other:?}"),
        }
    }

    /// Sends a notification on a stream.
    fn tell(&self, id: &str, method: &str, params: &str) {
        let text = format!(
            r#"{{"jsonrpc":"2.0","method":"{method}","params":{{{params}"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}}}"#
        );
        let mut streams = self.streams.lock().unwrap();
        let (_, stream) = streams.iter_mut().find(|(known, _)| known == id).unwrap();
        event(stream, &text);
    }
}

fn subscribe(rig: &Rig, uri: &str) -> bool {
    subscribe_as(rig, uri, &one())
}

fn subscribe_as(rig: &Rig, uri: &str, who: &One) -> bool {
    match rig.upstream.subscribe(uri, who, SessionRoute::Shared, &wait(5000)).unwrap() {
        Outcome::Complete(_) => true,
        Outcome::Error { .. } => false,
        other @ Outcome::InputRequired { .. } => panic!("{other:?}"),
    }
}

#[test]
fn a_change_that_is_told_gives_a_new_list() {
    let teller = Teller::start();
    let rig = Rig::ready(&teller.server);
    let (id, wanted) = teller.began();
    assert_eq!(wanted, r#"{"toolsListChanged":true}"#);
    teller.tell(&id, "notifications/tools/list_changed", "");
    assert_eq!(rig.tools(), ["fresh"]);
    assert_eq!(teller.server.count("tools/list"), 2);
}

#[test]
fn another_stream_is_opened_before_the_old_one_is_closed() {
    let teller = Teller::start();
    let rig = Rig::ready(&teller.server);
    let (first, _) = teller.began();
    let both = [one(), one()];
    assert!(subscribe_as(&rig, "a:", &both[0]));
    let (second, wanted) = teller.began();
    assert_eq!(wanted, r#"{"toolsListChanged":true,"resourceSubscriptions":["a:"]}"#);
    assert_eq!(teller.next(), Told::Ended(first));
    // Somebody else's is the same one.
    assert!(subscribe_as(&rig, "a:", &both[1]));
    teller.tell(&second, "notifications/resources/updated", r#""uri":"a:","#);
    eventually("it is told", || rig.unasked.notices.lock().unwrap().len() == 1);
    match &rig.unasked.notices.lock().unwrap()[0] {
        (None, Notice::ResourceUpdated(params)) => assert_eq!(params.get(), r#"{"uri":"a:"}"#),
        other => panic!("{other:?}"),
    }
    assert!(subscribe(&rig, "b:"));
    let (third, wanted) = teller.began();
    assert!(wanted.contains(r#"["a:","b:"]"#), "{wanted}");
    assert_eq!(teller.next(), Told::Ended(second));
    for who in &both {
        rig.upstream.unsubscribe("a:", who, SessionRoute::Shared, &wait(5000)).unwrap();
    }
    let (_, wanted) = teller.began();
    assert!(wanted.contains(r#"["b:"]"#), "{wanted}");
    assert_eq!(teller.next(), Told::Ended(third));
    assert_eq!(teller.server.count("resources/subscribe"), 0);
}

#[test]
fn what_was_on_its_way_on_a_stream_that_another_one_replaces_is_heard() {
    let teller = Teller::start();
    let rig = Rig::ready(&teller.server);
    let (first, _) = teller.began();
    assert!(subscribe(&rig, "a:"));
    let (second, _) = teller.began();
    // The server has agreed to the second one, and writes what it has to say on the first.
    teller.tell(&first, "notifications/tools/list_changed", "");
    assert_eq!(rig.tools(), ["fresh"]);
    assert_eq!(teller.next(), Told::Ended(first));
    // The one that remains is asked for again when it ends, the other is not.
    teller.streams.lock().unwrap().last().unwrap().1.shutdown(std::net::Shutdown::Both).ok();
    assert_eq!(teller.next(), Told::Ended(second));
    teller.began();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(teller.server.count("subscriptions/listen"), 3);
}

#[test]
fn streams_that_are_replaced_in_quick_succession_are_few() {
    let teller = Teller::start();
    let rig = Rig::ready(&teller.server);
    let who = one();
    for _ in 0..5 {
        assert!(subscribe_as(&rig, "a:", &who));
        rig.upstream.unsubscribe("a:", &who, SessionRoute::Shared, &wait(5000)).unwrap();
    }
    let (mut open, mut most) = (0_usize, 0);
    for _ in 0..11 {
        match teller.next() {
            Told::Began(..) => open += 1,
            Told::Ended(_) => open -= 1,
        }
        most = most.max(open);
    }
    // One, another one that takes its place, and SUPERSEDED_STREAMS_MAX; one's end may be seen late.
    assert!(most <= 5, "{most}");
}

#[test]
fn a_resource_that_the_server_does_not_agree_to_is_refused() {
    let teller = Teller::start();
    let rig = Rig::ready(&teller.server);
    assert!(subscribe(&rig, "a:"));
    assert!(!subscribe(&rig, "c:"));
    assert!(subscribe(&rig, "b:"));
    let asked: Vec<String> = teller
        .server
        .seen()
        .iter()
        .filter(|seen| seen.rpc() == "subscriptions/listen")
        .map(wanted)
        .collect();
    assert!(asked.last().unwrap().contains(r#"["a:","b:"]"#), "{asked:?}");
}

#[test]
fn a_stream_that_breaks_is_opened_again_and_the_lists_are_read_again() {
    let teller = Teller::start();
    let rig = Rig::ready(&teller.server);
    let (first, _) = teller.began();
    assert!(subscribe(&rig, "a:"));
    let (second, _) = teller.began();
    assert_eq!(teller.next(), Told::Ended(first));
    for (_, stream) in teller.streams.lock().unwrap().iter() {
        stream.shutdown(std::net::Shutdown::Both).ok();
    }
    assert_eq!(teller.next(), Told::Ended(second));
    let (_, wanted) = teller.began();
    assert!(wanted.contains(r#"["a:"]"#), "{wanted}");
    assert_eq!(rig.tools(), ["fresh"]);
}

#[test]
fn a_server_that_does_not_offer_it_is_not_asked() {
    let server = Server::start(|seen| {
        match seen.rpc().as_str() {
        "server/discover" => Reply::json(seen.result(
            r#"{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{},"resources":{}}}"#,
        )),
        _ => modern(seen),
    }
    });
    let rig = Rig::ready(&server);
    assert!(!subscribe(&rig, "a:"));
    assert_eq!(server.count("subscriptions/listen"), 0);
}

#[test]
fn a_server_that_does_not_serve_it_is_not_asked_again() {
    let server = Server::start(|seen| match seen.rpc().as_str() {
        "subscriptions/listen" => error(seen, 404, -32601, "null"),
        _ => modern(seen),
    });
    let rig = Rig::ready(&server);
    eventually("it is asked", || server.count("subscriptions/listen") == 1);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(server.count("subscriptions/listen"), 1);
    assert!(!subscribe(&rig, "a:"));
    text(rig.call());
}

#[test]
fn what_was_subscribed_to_before_an_upgrade_is_listened_to_after_it() {
    let is_modern = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (mine, asked) = (is_modern.clone(), Arc::new(Mutex::new(Vec::new())));
    let noted = asked.clone();
    let server = Server::start(move |seen| {
        if !mine.load(std::sync::atomic::Ordering::SeqCst) {
            return match seen.rpc().as_str() {
                "resources/subscribe" => Reply::json(seen.result("{}")),
                _ => legacy(seen),
            };
        }
        match seen.rpc().as_str() {
            "subscriptions/listen" => {
                noted.lock().unwrap().push(wanted(seen));
                let text = acknowledged(&seen.id(), &wanted(seen));
                Reply::stream(move |out| {
                    event(out, &text);
                    out.read_to_end(&mut Vec::new()).ok();
                })
            }
            _ => modern(seen),
        }
    });
    let rig = Rig::ready(&server);
    for uri in ["a:", "b:"] {
        assert!(subscribe(&rig, uri));
    }
    is_modern.store(true, std::sync::atomic::Ordering::SeqCst);
    text(rig.call());
    eventually("all are listened to", || {
        asked.lock().unwrap().iter().any(|it| it.contains(r#"["a:","b:"]"#))
    });
    assert_eq!(rig.tools(), ["fresh"]);
    // They are in the first request already.
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[test]
fn a_child_is_listened_to_on_its_one_wire() {
    let ack = r#"uris=${line#*resourceSubscriptions\":}; case $uris in "$line") uris='[]';; *) uris=${uris%%]*}];; esac
        case "$line" in *'"subscriptions/listen"'*) echo "listen $id $uris" >&2
          say "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/subscriptions/acknowledged\",\"params\":{\"notifications\":{\"resourceSubscriptions\":$uris},\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":$id}}}"
          say "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/resources/updated\",\"params\":{\"uri\":\"a:\",\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":$id}}}";; esac"#;
    let mut config = modern_child("", "exit 3", "refuse -32601");
    let trunkline::config::Target::Stdio(target) = &mut config.target else { panic!() };
    let text = target.args.last_mut().unwrap();
    *text = text.replace("  case \"$line\" in\n", &format!("  {ack}\n  case \"$line\" in\n"));
    let rig = Rig::ready_with(config, Limits::default());
    assert!(subscribe(&rig, "a:"));
    let listens = || {
        let lines = rig.upstream.status().stderr;
        let of_it = lines.iter().filter(|line| line.starts_with("listen"));
        of_it.map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    eventually("it was asked twice", || listens() == ["[]", r#"["a:"]"#]);
    eventually("the first one is taken back", || {
        rig.upstream.status().stderr.contains(&"cancelled".to_owned())
    });
    eventually("it is told", || !rig.unasked.notices.lock().unwrap().is_empty());
    // After a restart it is asked for all at once.
    rig.call().unwrap_err();
    rig.tools();
    eventually("it was asked again", || listens() == ["[]", r#"["a:"]"#, r#"["a:"]"#]);
}
