//! The endpoints of sign-ins at servers: a person's browser begins at `/oauth/sign-in/{id}`, goes
//! on to the authorization server, and comes back to `/oauth/callback`. `/oauth/client.json` says
//! to authorization servers who comes there. None of them needs a key: browsers have none.
//! `protected_resource.rs` is the gateway as resource server.

mod page;
pub(super) mod protected_resource;

use std::sync::Arc;

use super::Front;
use super::endpoint::OAuthEndpoint;
use super::status_codes::{self, Problem};
use crate::access::policy::Scope;
use crate::http::{Head, PeerUser, Request, Responder};
use crate::limits::SIGN_IN_STEP_TIMEOUT;
use crate::oauth::client_authentication::AuthenticationMethod;
use crate::oauth::form::Form;
use crate::oauth::registration::ClientMetadata;
use crate::oauth::scope::Refreshes;
use crate::oauth::web_url::WebUrl;
use crate::pipeline::sign_in::{
    Beginner, FinishedSignIn, NotFinished, SignInError, SignInPage, Whose, random_text,
};
use crate::protocol::headers::JSON;
use crate::telemetry;
use crate::telemetry::rejected::Reason;
use crate::wait::Wait;
use page::{Fields, Marking, POLICY, Page, marks_in};

/// The name under which authorization servers show the gateway to people.
const CLIENT_NAME: &str = "Trunkline";

/// The query that each browser's address line would show, and each next server's log have, is not
/// told to anybody.
const NO_REFERRER: &str = "no-referrer";
/// A form's page may tell its own server where it comes from: without that a browser calls its
/// origin `null`, which is nobody's.
const OWN_REFERRER: &str = "same-origin";

pub(super) fn serve(
    front: &Front,
    endpoint: OAuthEndpoint<'_>,
    request: &Request,
    scope: &Scope,
    responder: Responder,
) {
    let head = &request.head;
    match endpoint {
        OAuthEndpoint::Callback => callback(front, head, responder),
        OAuthEndpoint::ClientDocument => client_document(front, responder),
        OAuthEndpoint::SignIn(id) if head.method == "POST" => {
            begin(front, id, request, scope, responder);
        }
        OAuthEndpoint::SignIn(id) => show(front, id, head, scope, responder),
    }
}

impl Front {
    /// How browsers are marked that come to this gateway.
    fn marking(&self) -> Marking {
        Marking::at(self.pipeline.sign_in_url("").as_deref())
    }

    /// Invites whoever asks to sign in at a server for the gateway: the URL of the page, the path
    /// of it, and the cookie by which the page knows the browser. For an admin.
    pub(super) fn invite(
        &self,
        server: &crate::protocol::server_name::ServerName,
        scope: &Scope,
    ) -> Result<Invited, String> {
        let beginner = Beginner::of(&scope.principal)
            .ok_or("this needs a key, or to be asked from this machine")?;
        let marking = self.marking();
        let mark = random_text().map_err(|error| error.to_string())?;
        let id = self.pipeline.invite_for_gateway(server, beginner, Some(&mark))?;
        let url = self.pipeline.sign_in_url(&id).ok_or(
            "browsers cannot come back to this gateway: it listens on no address, and has no \
             \"public_url\"",
        )?;
        Ok(Invited { url, cookie: marking.cookie(&id, &mark) })
    }
}

/// An invitation to sign in.
#[derive(Debug)]
pub(super) struct Invited {
    /// The page.
    pub(super) url: String,
    /// The value of `Set-Cookie`.
    pub(super) cookie: String,
}

/// The page where a sign-in begins.
fn show(front: &Front, id: &str, head: &Head, scope: &Scope, responder: Responder) {
    let marks = marks_in(head.headers.get_all("cookie"), front.marking().name());
    let Some(page) = front.pipeline.sign_in_page(id, &marks) else {
        return not_there(responder);
    };
    let proof = proof_of(front, &page, scope);
    send(responder, status_codes::OK, OWN_REFERRER, None, &invitation(&page, proof, None));
}

/// How a browser can show, or has shown, that it is the beginner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// It has done so.
    Given,
    /// With the beginner's key.
    Key,
    /// With the beginner's key or access token.
    KeyOrToken,
    /// On the machine of the gateway, and it is not there.
    Elsewhere,
}

fn proof_of(front: &Front, page: &SignInPage, scope: &Scope) -> Proof {
    // The request itself may carry the beginner's key, or be of this machine.
    let is_theirs = Beginner::of(&scope.principal).as_ref() == Some(&page.beginner);
    match &page.beginner {
        _ if page.is_proven || is_theirs => Proof::Given,
        Beginner::Named { .. } if front.takes_tokens() => Proof::KeyOrToken,
        Beginner::Named { .. } => Proof::Key,
        Beginner::ThisMachine => Proof::Elsewhere,
    }
}

fn invitation(page: &SignInPage, proof: Proof, wrong: Option<&str>) -> Page {
    let server = page.server.as_str();
    let beginner = match &page.beginner {
        Beginner::Named { name, .. } => name.as_ref(),
        Beginner::ThisMachine => "somebody on the gateway's machine",
    };
    let whose = match page.whose {
        Whose::Gateway => "all who use this gateway",
        Whose::Beginner => beginner,
    };
    let facts = [("Server", server), ("at", &page.url), ("Begun by", beginner), ("For", whose)];
    let told = Page::new(&format!("Sign in to {server}")).facts(&facts);
    let told = match page.whose {
        Whose::Gateway => told.text(&format!(
            "All who use this gateway and may use {server} will work there with the account that \
             you sign in with."
        )),
        Whose::Beginner => told.text(&format!(
            "{beginner} will work with the account that you sign in with. Go on only if that is \
             you."
        )),
    };
    let told = match wrong {
        Some(wrong) => told.wrong(wrong),
        None => told,
    };
    match proof {
        Proof::Given => told.form(Fields::None, "Continue"),
        Proof::Key | Proof::KeyOrToken => told
            .text(
                "If somebody has sent you this link, close this page: you would give them your \
                   account. The key shows that it was you who began.",
            )
            .form(
                if proof == Proof::Key { Fields::Key } else { Fields::KeyOrToken },
                "Continue",
            ),
        Proof::Elsewhere => {
            told.wrong("Open this page on the machine of the gateway: whoever began is there.")
        }
    }
}

/// Leads a browser that is the beginner's to the authorization server.
fn begin(front: &Front, id: &str, request: &Request, scope: &Scope, responder: Responder) {
    let marking = front.marking();
    let marks = marks_in(request.head.headers.get_all("cookie"), marking.name());
    let Some(page) = front.pipeline.sign_in_page(id, &marks) else {
        return not_there(responder);
    };
    let presented =
        std::str::from_utf8(&request.body).ok().and_then(|body| Form::parse(body).ok());
    let key = presented.as_ref().and_then(|form| form.once("key").ok().flatten());
    let is_given = match proof_of(front, &page, scope) {
        Proof::Given => true,
        Proof::Key | Proof::KeyOrToken => {
            key.is_some_and(|key| is_of(front, key, &request.head, &page.beginner))
        }
        Proof::Elsewhere => false,
    };
    if !is_given {
        telemetry::request::turned_away(Reason::Unauthorized, Some("not_the_beginner"), "");
        let wrong = "This is not the key of whoever began.";
        let page = invitation(&page, proof_of(front, &page, scope), key.map(|_| wrong));
        return send(responder, status_codes::FORBIDDEN, OWN_REFERRER, None, &page);
    }
    // A mark that was not made for this page may be one that somebody has put there.
    let is_known = |mark: &&&str| {
        front.pipeline.sign_in_page(id, &[mark]).is_some_and(|page| page.is_proven)
    };
    let known = marks.iter().find(is_known);
    let mark = known.map_or_else(random_text, |mark| Ok((*mark).to_owned()));
    let (Ok(mark), Ok(wait)) = (mark, waiting(&responder)) else {
        let page = Page::new("Not now").text("The gateway is at its limits; try again.");
        return send(responder, status_codes::UNAVAILABLE, NO_REFERRER, None, &page);
    };
    front.pipeline.prove_browser(id, &mark);
    let cookie = marking.cookie(id, &mark);
    match front.pipeline.begin_sign_in(id, &mark, &wait) {
        Ok(url) if is_web(&url) => {
            let host = host_of(&url);
            let page = Page::new(&format!("On to {host}"))
                .text(&format!("{host} asks who you are, and comes back here."))
                .leads_to(&url, &format!("Go on to {host}"));
            send(responder, status_codes::OK, NO_REFERRER, Some(&cookie), &page);
        }
        Ok(_) => not_begun(&page, "its authorization server names no web page", responder),
        Err(NotFinished::OtherBrowser) => not_there(responder),
        Err(NotFinished::Refused(why)) => not_begun(&page, &why.to_string(), responder),
    }
}

fn not_begun(page: &SignInPage, why: &str, responder: Responder) {
    let told = Page::new(&format!("Signing in to {} cannot begin", page.server))
        .wrong(&format!("The gateway says: {why}."))
        .text("Whoever runs the gateway can see more in its log and with \"trunkline check\".");
    send(responder, status_codes::BAD_GATEWAY, NO_REFERRER, None, &told);
}

/// True if a key or a token is that of the principal who began.
fn is_of(front: &Front, typed: &str, head: &Head, beginner: &Beginner) -> bool {
    let principal = front.principal_of(typed, head);
    principal.and_then(|it| Beginner::of(&it)).as_ref() == Some(beginner)
}

/// A wait for one step with an authorization server, which ends when the browser goes.
fn waiting(responder: &Responder) -> std::io::Result<Arc<Wait>> {
    Wait::new(SIGN_IN_STEP_TIMEOUT, SIGN_IN_STEP_TIMEOUT, Some(responder.client()))
}

fn is_web(url: &str) -> bool {
    url.starts_with("https://") || url.starts_with("http://")
}

fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or(rest)
}

/// A browser comes back from the authorization server.
fn callback(front: &Front, head: &Head, responder: Responder) {
    let marks = marks_in(head.headers.get_all("cookie"), front.marking().name());
    let is_own_user = || responder.peer_user() != PeerUser::Another;
    // A browser that goes meanwhile has brought all that is wanted of it.
    let Ok(wait) = Wait::plain(SIGN_IN_STEP_TIMEOUT) else {
        let page = Page::new("Not now").text("The gateway is at its limits; reload this page.");
        return send(responder, status_codes::UNAVAILABLE, NO_REFERRER, None, &page);
    };
    let query = head.query.as_deref().unwrap_or_default();
    let (status, page) = match front.pipeline.finish_sign_in(query, &marks, is_own_user, &wait)
    {
        Ok(finished) => (status_codes::OK, signed_in(&finished)),
        Err(NotFinished::OtherBrowser) => {
            let word = "other_browser";
            telemetry::request::turned_away(Reason::Unauthorized, Some(word), "");
            (status_codes::FORBIDDEN, other_browser())
        }
        Err(NotFinished::Refused(why)) => not_signed_in(&why),
    };
    send(responder, status, NO_REFERRER, None, &page);
}

fn signed_in(finished: &FinishedSignIn) -> Page {
    Page::new(&format!("Signed in to {}", finished.server))
        .text("You can close this window. What has waited for the sign-in goes on by itself.")
}

fn other_browser() -> Page {
    Page::new("Not signed in")
        .wrong("This sign-in was begun in another browser, or by somebody else.")
        .text(
            "Nothing was signed in. If somebody has sent you a link to sign in, they meant to use \
             your account: do not follow it. If it was you who began, begin once more and stay in \
             one browser.",
        )
}

fn not_signed_in(why: &SignInError) -> (u16, Page) {
    let page = Page::new("Not signed in");
    let again = "Begin once more: with \"trunkline login\", in the console, or in your client.";
    match why {
        SignInError::UnknownState => (
            status_codes::BAD_REQUEST,
            page.wrong(&format!("Nothing was signed in: {why}.")).text(again),
        ),
        SignInError::Refused(said) => (
            status_codes::BAD_REQUEST,
            page.wrong("The authorization server did not sign you in.")
                .facts(&[("It says", said)])
                .text(again),
        ),
        SignInError::Failed(_) | SignInError::Interrupted(_) => (
            status_codes::BAD_GATEWAY,
            page.wrong(
                "The authorization server sent you back, but gave the gateway no token.",
            )
            .facts(&[("Because", &why.to_string())])
            .text(again),
        ),
    }
}

/// A page for a browser that comes back, where no door answers it.
#[derive(Debug)]
pub struct AnswerPage {
    /// The HTTP status.
    pub status: u16,
    /// The page.
    pub html: String,
    /// The value of `Content-Security-Policy`.
    pub policy: &'static str,
}

/// The page for what came of a sign-in; None is no answer of an authorization server.
pub fn answer_page(finished: Option<&Result<FinishedSignIn, SignInError>>) -> AnswerPage {
    let (status, page) = match finished {
        Some(Ok(finished)) => (status_codes::OK, signed_in(finished)),
        Some(Err(why)) => not_signed_in(why),
        None => (status_codes::NOT_FOUND, Page::new("Nothing is here")),
    };
    AnswerPage { status, html: page.html(), policy: POLICY.as_str() }
}

fn not_there(responder: Responder) {
    let page = Page::new("This page has gone")
        .text("A link to sign in is good for ten minutes and for one sign-in.")
        .text("Begin once more: with \"trunkline login\", in the console, or in your client.");
    send(responder, status_codes::NOT_FOUND, NO_REFERRER, None, &page);
}

fn send(responder: Responder, status: u16, referrer: &str, cookie: Option<&str>, page: &Page) {
    let mut headers = vec![
        ("Content-Type", "text/html; charset=utf-8"),
        ("Cache-Control", "no-store"),
        ("Content-Security-Policy", POLICY.as_str()),
        ("Referrer-Policy", referrer),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
    ];
    headers.extend(cookie.map(|cookie| ("Set-Cookie", cookie)));
    // If the browser has gone, the answer is not missed.
    responder.respond(status, &headers, &[page.html().as_bytes()]).ok();
}

/// The client metadata document, whose URL is the gateway's client identifier where authorization
/// servers read such documents.
fn client_document(front: &Front, responder: Responder) {
    let Some((url, redirect_uri)) = front.pipeline.client_document() else {
        let problem = Problem::no_client_document();
        problem.send(responder, &problem.body_for(None)).ok();
        return;
    };
    let Ok(client_id) = WebUrl::parse(&url) else {
        let problem = Problem::no_client_document();
        problem.send(responder, &problem.body_for(None)).ok();
        return;
    };
    let metadata = ClientMetadata {
        client_name: CLIENT_NAME,
        client_uri: None,
        redirect_uris: &[redirect_uri],
        authentication_method: AuthenticationMethod::None,
        refreshes: Refreshes::Yes,
        dpop_bound: false,
    };
    let headers = [("Content-Type", JSON), ("Cache-Control", "max-age=300")];
    let body = metadata.document(&client_id);
    responder.respond(status_codes::OK, &headers, &[body.as_bytes()]).ok();
}
