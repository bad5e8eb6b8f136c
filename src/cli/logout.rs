//! `trunkline logout`: the end of the gateway's sign-in at a server, or of those of its users.

use std::path::Path;

use super::command::ComeBack;
use super::login::{Server, step, told};
use super::{complain, exit, fail, print, shown, usage};
use crate::config::Credentials;
use crate::telemetry::timestamp::rfc3339;
use crate::upstream::authorization::{NotRevoked, Owner, Revocation, SignedOut, UserSignIn};

/// Signs out at a server: the gateway, or its users, or only the users of that name.
pub(super) fn logout(path: &Path, server: &str, user: Option<&str>) -> u8 {
    match signed_out(path, server, user) {
        Ok(code) | Err(code) => code,
    }
}

fn signed_out(path: &Path, name: &str, user: Option<&str>) -> Result<u8, u8> {
    let server = Server::load(path, "logout", name, ComeBack::Browser)?;
    match (server.server.credentials, user) {
        (Credentials::PerUser, user) => users(&server, user),
        (Credentials::Gateway, Some(_)) => Err(usage(&format!(
            "logout: --user is for servers with \"credentials\": \"per_user\"; at {name:?} the \
             gateway has one sign-in for all"
        ))),
        (Credentials::Gateway, None) => {
            let outcome = end(&server, Owner::Gateway, Revocation::Asked)?;
            Ok(tell(&outcome, &format!("signed out of {name}"), name))
        }
    }
}

/// Ends the sign-in of an owner.
fn end(server: &Server, owner: Owner, revocation: Revocation) -> Result<SignedOut, u8> {
    let authorization = server.authorization("logout", owner)?;
    let done = step().and_then(|wait| authorization.sign_out(revocation, &wait).map_err(told));
    done.map_err(|what| fail(&format!("logout: {what}")))
}

/// Ends the sign-ins of users, those of that name or all.
fn users(server: &Server, user: Option<&str>) -> Result<u8, u8> {
    let name = server.server.name.as_str();
    let all = server.authorizations.users_at(&server.server.name);
    let is_meant =
        |it: &&UserSignIn| user.is_none_or(|user| it.holder.name.as_deref() == Some(user));
    let meant: Vec<&UserSignIn> = all.iter().filter(is_meant).collect();
    if let (Some(user), true) = (user, meant.is_empty()) {
        let mut names: Vec<_> = all.iter().map(|it| shown(&it.holder.to_string())).collect();
        names.sort();
        names.dedup();
        let names = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
        complain(&format!(
            "trunkline: logout: {user:?} was not signed in at {name}; signed in there: {names}"
        ));
        return Ok(exit::FINE);
    }
    if meant.is_empty() {
        complain(&format!("trunkline: logout: nobody was signed in at {name}"));
        return Ok(exit::FINE);
    }
    let mut revocation = Revocation::Asked;
    let (mut code, mut n_ended) = (exit::FINE, 0);
    for it in meant {
        let outcome = end(server, Owner::User(it.user), revocation)?;
        if let SignedOut::NotRevoked(NotRevoked { is_silent: true, .. }) = outcome {
            revocation = Revocation::LeftOut;
        }
        let whom = format!("{} at {name}", shown(&it.holder.to_string()));
        code = code.max(tell(&outcome, &format!("signed out {whom}"), &whom));
        n_ended += usize::from(outcome != SignedOut::NothingThere);
    }
    let sign_ins = if n_ended == 1 { "sign-in has" } else { "sign-ins have" };
    Ok(code.max(print(&format!("{n_ended} {sign_ins} ended at {name}\n"))))
}

/// Says what became of a sign-in. `done` says whose it was; `whom` is how a complaint names it.
fn tell(outcome: &SignedOut, done: &str, whom: &str) -> u8 {
    match outcome {
        SignedOut::NothingThere => {
            complain(&format!("trunkline: logout: nobody was signed in at {whom}"));
            exit::FINE
        }
        SignedOut::Revoked => print(&format!(
            "{done}: its tokens are deleted, and revoked at the authorization server\n"
        )),
        SignedOut::Forgotten => print(&format!(
            "{done}: its tokens are deleted; the authorization server offers no revocation\n"
        )),
        SignedOut::AccessTokenLeft(why) => {
            let code = print(&format!(
                "{done}: its tokens are deleted, and its refresh token is revoked at the \
                 authorization server\n"
            ));
            complain(&format!(
                "trunkline: logout: {whom}: the access token could not be revoked, and may be \
                 good until {}: {}",
                end_of(why),
                shown(&why.why)
            ));
            code
        }
        SignedOut::NotRevoked(why) => {
            let code = print(&format!("{done}: its tokens are deleted\n"));
            complain(&format!(
                "trunkline: logout: {whom}: the authorization server did not revoke the tokens: \
                 the access token may be good until {}, a refresh token longer: {}",
                end_of(why),
                shown(&why.why)
            ));
            code
        }
    }
}

/// The end of an access token.
fn end_of(left: &NotRevoked) -> String {
    left.until.map_or_else(|| "it ends".to_owned(), rfc3339)
}
