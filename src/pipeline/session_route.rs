//! Pure: the choice of the session with a server that carries a call. It is decided here alone,
//! when a call is sent, and goes along as a [`SessionRoute`]. Only the opening of a session can
//! change it: a modern server refuses the session, and the call goes over the shared one
//! (`upstream/call/mod.rs`).

use crate::config::SessionSharing;
use crate::protocol::call::Client;
use crate::protocol::log_level::LogLevel;
use crate::protocol::session_route::{SessionRoute, SessionSupport};
use crate::session::SharedBy;

/// The session that carries the calls of a client; the shared one without a client. `log_level`
/// is the request's own level. Log messages name no call, so a stateless request that wants its
/// own goes over a session that carries no other call.
pub fn route_session(
    client: Option<&Client>,
    log_level: Option<LogLevel>,
    support: SessionSupport,
    sharing: SessionSharing,
) -> SessionRoute<'_> {
    let Some(client) = client else { return SessionRoute::Shared };
    let wants_own = match sharing {
        SessionSharing::Auto => {
            client.can_be_asked || (client.is_exclusive && log_level.is_some())
        }
        SessionSharing::Shared => false,
        SessionSharing::PerClient => true,
    };
    if !wants_own || !support.is_for(client) {
        SessionRoute::Shared
    } else if client.is_exclusive {
        SessionRoute::Exclusive(client)
    } else {
        SessionRoute::Own(client)
    }
}

/// The clients that share the session with a server, among those that keep sessions: those whose
/// calls [`route_session`] sends over it.
pub fn shared_by(support: SessionSupport, sharing: SessionSharing) -> SharedBy {
    match (support, sharing) {
        // With a server without sessions no client has one of its own.
        (SessionSupport::Refused, _) | (_, SessionSharing::Shared) => SharedBy::EveryClient,
        (SessionSupport::Required | SessionSupport::Possible, SessionSharing::Auto) => {
            SharedBy::ClientsThatCannotBeAsked
        }
        (SessionSupport::Required | SessionSupport::Possible, SessionSharing::PerClient) => {
            SharedBy::NoClient
        }
    }
}

/// True if a call that was refused over the shared session may be repeated in a session: its
/// client keeps one, and the server, which needs none, may keep sessions besides.
pub fn may_ask_in_session(
    client: Option<&Client>,
    route: SessionRoute<'_>,
    support: SessionSupport,
    sharing: SessionSharing,
) -> bool {
    route.is_shared()
        && client.is_some_and(|client| !client.is_exclusive)
        && support == SessionSupport::Possible
        && sharing != SessionSharing::Shared
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::raw::Raw;
    use SessionSharing::{Auto, PerClient, Shared};

    const SUPPORTS: [SessionSupport; 3] =
        [SessionSupport::Required, SessionSupport::Possible, SessionSupport::Refused];
    const SHARINGS: [SessionSharing; 3] = [Auto, Shared, PerClient];

    fn client(is_exclusive: bool, can_be_asked: bool) -> Client {
        let capabilities = Raw::from_valid("{}".to_owned());
        Client { session: "x".into(), is_exclusive, capabilities, can_be_asked, charged: None }
    }

    /// The routes of such a client under each configuration, over servers of each kind.
    #[track_caller]
    fn check(client: &Client, log_level: Option<LogLevel>, expected: [[&str; 3]; 3]) {
        let word = |route| match route {
            SessionRoute::Shared => "shared",
            SessionRoute::Own(it) => {
                if it == client {
                    "own"
                } else {
                    "another's"
                }
            }
            SessionRoute::Exclusive(it) => {
                if it == client {
                    "exclusive"
                } else {
                    "another's"
                }
            }
        };
        let of = |sharing| {
            SUPPORTS
                .map(|support| word(route_session(Some(client), log_level, support, sharing)))
        };
        assert_eq!(SHARINGS.map(of), expected);
    }

    const NEVER: [&str; 3] = ["shared"; 3];

    #[test]
    fn a_client_that_keeps_a_session_has_its_own_where_servers_can_ask_it_something() {
        let own = ["own", "own", "shared"];
        for level in [None, Some(LogLevel::USUAL)] {
            check(&client(false, true), level, [own, NEVER, own]);
            check(&client(false, false), level, [NEVER, NEVER, own]);
        }
    }

    #[test]
    fn a_stateless_client_has_its_own_one_call_at_a_time_and_where_servers_need_sessions() {
        let exclusive = ["exclusive", "shared", "shared"];
        check(&client(true, true), None, [exclusive, NEVER, exclusive]);
        check(&client(true, false), None, [NEVER, NEVER, exclusive]);
        // The call wants its own log messages.
        check(&client(true, false), Some(LogLevel::USUAL), [exclusive, NEVER, exclusive]);
    }

    #[test]
    fn who_cannot_be_told_apart_shares_the_session() {
        for (support, sharing) in
            SUPPORTS.into_iter().flat_map(|support| SHARINGS.map(|it| (support, it)))
        {
            let route = route_session(None, Some(LogLevel::USUAL), support, sharing);
            assert_eq!(route, SessionRoute::Shared);
        }
    }

    #[test]
    fn those_share_the_session_whose_calls_go_over_it() {
        for (support, sharing) in
            SUPPORTS.into_iter().flat_map(|support| SHARINGS.map(|it| (support, it)))
        {
            let by = shared_by(support, sharing);
            let shares = match by {
                SharedBy::EveryClient => [true, true],
                SharedBy::ClientsThatCannotBeAsked => [true, false],
                SharedBy::NoClient => [false, false],
            };
            let routed = [false, true].map(|can_be_asked| {
                let client = client(false, can_be_asked);
                route_session(Some(&client), None, support, sharing).is_shared()
            });
            assert_eq!(shares, routed, "{support:?} {sharing:?}");
        }
    }

    #[test]
    fn a_refused_call_is_repeated_in_a_session_where_the_server_may_keep_one() {
        let (plain, stateless) = (client(false, false), client(true, false));
        let may = |client, support, sharing| {
            let route = route_session(client, None, support, sharing);
            may_ask_in_session(client, route, support, sharing)
        };
        assert!(may(Some(&plain), SessionSupport::Possible, Auto));
        assert!(!may(Some(&plain), SessionSupport::Possible, Shared), "all share one session");
        assert!(
            !may(Some(&plain), SessionSupport::Possible, PerClient),
            "it went over a session"
        );
        assert!(!may(Some(&plain), SessionSupport::Required, Auto));
        assert!(!may(Some(&plain), SessionSupport::Refused, Auto));
        assert!(!may(Some(&stateless), SessionSupport::Possible, Auto));
        assert!(!may(None, SessionSupport::Possible, Auto));
    }
}
