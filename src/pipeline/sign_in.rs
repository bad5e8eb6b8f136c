//! The sign-ins of people at servers: the way from the doors to the OAuth client, by pages of the
//! gateway's own.
//!
//! A page stands under an id that nobody can guess, and still the id alone lets nobody sign in:
//! whoever began could send the link to somebody else, whose account would then be used by the
//! wrong one (2025-11-25 and 2026-07-28, client/elicitation, Phishing). So a browser first shows
//! that it is the beginner's, with the beginner's key or from this machine. From then on it
//! carries a mark, which the gateway has made for that page and the callback demands too: an
//! answer that comes from another browser is not used. A page of the authorization server that
//! the gateway itself has opened, by `$BROWSER`, is answered by the user of this system who runs
//! the gateway: others may read the page's address in the list of processes.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};

use super::Pipeline;
use crate::access::policy::Principal;
use crate::config::{Target, UpstreamConfig};
use crate::limits::{SIGN_IN_PAGE_LIFE, SIGN_IN_PAGES_MAX, SIGN_IN_PAGES_OF_BEGINNER_MAX};
use crate::oauth::form::Form;
use crate::protocol::server_name::ServerName;
use crate::sync::Mutex;
use crate::upstream::authorization::{Owner, ServerAuthorization};
use crate::wait::Wait;

pub use crate::upstream::authorization::{FinishedSignIn, SignInError, SignInStatus};

/// Bytes of an id and of a browser's mark: as many as an access token should have at least
/// (RFC 6749, section 10.10).
const RANDOM_BYTES: usize = 32;

/// Whoever began a sign-in.
#[derive(Debug, Clone)]
pub enum Beginner {
    /// A key or a user.
    Named {
        /// What tells it from every other one.
        id: Arc<str>,
        /// How people know it.
        name: Arc<str>,
    },
    /// Somebody on this machine, where no key is required.
    ThisMachine,
}

impl PartialEq for Beginner {
    fn eq(&self, other: &Beginner) -> bool {
        match (self, other) {
            (Self::Named { id, .. }, Self::Named { id: other, .. }) => id == other,
            (Self::ThisMachine, Self::ThisMachine) => true,
            (Self::Named { .. }, Self::ThisMachine)
            | (Self::ThisMachine, Self::Named { .. }) => false,
        }
    }
}

impl Eq for Beginner {}

impl Beginner {
    /// The beginner that a request is of. None for a client of another machine without a key,
    /// whom nothing tells from others.
    pub fn of(principal: &Principal) -> Option<Beginner> {
        match &principal.id {
            Some(id) => {
                let name = principal.name.as_ref().unwrap_or(id).clone();
                Some(Beginner::Named { id: id.clone(), name })
            }
            None => principal.is_admin.then_some(Beginner::ThisMachine),
        }
    }
}

/// The page of a sign-in, as one browser may see it.
#[derive(Debug, Clone)]
pub struct SignInPage {
    /// The server.
    pub server: ServerName,
    /// The server's URL, without its query.
    pub url: String,
    /// Whose credentials they will be.
    pub whose: Whose,
    /// Whoever began.
    pub beginner: Beginner,
    /// True if the browser has shown that it is the beginner's.
    pub is_proven: bool,
}

/// Whose credentials a sign-in is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The gateway's, for all of its clients.
    Gateway,
    /// The beginner's own.
    Beginner,
}

/// Why a browser's answer led to no sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotFinished {
    /// The sign-in was begun in another browser.
    OtherBrowser,
    /// The OAuth client refuses it.
    Refused(SignInError),
}

/// A mark of a browser, and a new id.
pub fn random_text() -> io::Result<String> {
    let mut bytes = [0_u8; RANDOM_BYTES];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("the system has no random bytes"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

impl Pipeline {
    /// Invites a person to sign in at a server with the gateway's own credentials. Returns the id
    /// of the page.
    ///
    /// # Errors
    /// The text says why nobody can sign in there.
    pub fn invite_for_gateway(
        &self,
        server: &ServerName,
        beginner: Beginner,
        browser: Option<&str>,
    ) -> Result<String, String> {
        let upstream = self
            .upstreams
            .get(server)
            .ok_or_else(|| format!("there is no server {server} at present"))?;
        let authorization = upstream.authorization().ok_or_else(|| {
            format!(
                "the server {server} needs no sign-in by the gateway: it has no \"oauth\", or \
                     \"credentials\" says that each user signs in"
            )
        })?;
        if !upstream.config().oauth().is_some_and(|it| it.grant.wants_person()) {
            return Err(format!(
                "nobody has to sign in at {server}: with its grant the gateway gets its tokens \
                 itself"
            ));
        }
        let invitation = Invitation::new(
            server.clone(),
            plain_url(upstream.config()),
            Whose::Gateway,
            beginner,
            authorization.clone(),
        );
        self.invitations.add(invitation, browser).map_err(|error| error.to_string())
    }

    /// Invites the beginner to sign in with their own credentials at a server. Returns the URL of
    /// the page, for the beginner's browser.
    ///
    /// # Errors
    /// No browser could come back, or the system has no random bytes.
    pub fn invite_user(
        &self,
        server: &ServerName,
        beginner: Beginner,
        authorization: &Arc<ServerAuthorization>,
    ) -> Result<String, String> {
        let url = self.upstreams.get(server).map(|it| plain_url(it.config()));
        // However often a client calls meanwhile, its user has one page.
        let id = match self.invitations.pending(server, &beginner, authorization) {
            Some(id) => id,
            None => {
                let (url, authorization) = (url.unwrap_or_default(), authorization.clone());
                let whose = Whose::Beginner;
                let invitation =
                    Invitation::new(server.clone(), url, whose, beginner, authorization);
                self.invitations.add(invitation, None).map_err(|error| error.to_string())?
            }
        };
        self.sign_in_url(&id).ok_or_else(|| {
            "browsers cannot come back: the gateway has no \"public_url\"".to_owned()
        })
    }

    /// The URL of the page with this id, where browsers can reach the gateway.
    pub fn sign_in_url(&self, id: &str) -> Option<String> {
        let setup = self.upstreams.authorizations().setup();
        let callback = setup.redirect_uri.as_deref()?;
        let (base, _) = callback.rsplit_once('/')?;
        Some(format!("{base}/sign-in/{id}"))
    }

    /// The URL of the gateway's own client metadata document, and the address that browsers come
    /// back to. None where the gateway has no `https` address.
    pub fn client_document(&self) -> Option<(String, String)> {
        let setup = self.upstreams.authorizations().setup();
        Some((setup.client_document_url.clone()?, setup.redirect_uri.clone()?))
    }

    /// The page with this id, for a browser with these marks.
    pub fn sign_in_page(&self, id: &str, browsers: &[&str]) -> Option<SignInPage> {
        self.invitations.page(id, browsers)
    }

    /// Notes that the browser with this mark is the beginner's.
    pub fn prove_browser(&self, id: &str, browser: &str) {
        self.invitations.prove(id, browser);
    }

    /// Begins the sign-in of a page, for a browser that is the beginner's. Returns the URL of the
    /// authorization server's page.
    ///
    /// # Errors
    /// The browser is not the beginner's, or the OAuth client cannot begin.
    pub fn begin_sign_in(
        &self,
        id: &str,
        browser: &str,
        wait: &Arc<Wait>,
    ) -> Result<String, NotFinished> {
        let authorization =
            self.invitations.authorization(id, browser).ok_or(NotFinished::OtherBrowser)?;
        let begun = authorization.begin_sign_in(None, wait).map_err(NotFinished::Refused)?;
        self.invitations.note_state(id, &begun.state, browser);
        Ok(begun.url)
    }

    /// Finishes a sign-in with the query with which a browser with these marks came back.
    /// `is_own_user`: true unless the browser is known to be of another user of this system.
    ///
    /// # Errors
    /// It was begun in another browser, or the OAuth client refuses it.
    pub fn finish_sign_in(
        &self,
        query: &str,
        browsers: &[&str],
        is_own_user: impl FnOnce() -> bool,
        wait: &Arc<Wait>,
    ) -> Result<FinishedSignIn, NotFinished> {
        let unknown = NotFinished::Refused(SignInError::UnknownState);
        let form = Form::parse(query).map_err(|_| unknown.clone())?;
        let Ok(Some(state)) = form.once("state") else { return Err(unknown) };
        let authorizations = self.upstreams.authorizations();
        match self.invitations.comes_back(state, browsers) {
            ComesBack::Rightly => (),
            ComesBack::FromElsewhere => return Err(NotFinished::OtherBrowser),
            // The gateway itself opens only pages for its own credentials, in a browser of its
            // machine.
            ComesBack::Uninvited => {
                let opens_pages = authorizations.setup().browser.is_some();
                match authorizations.sign_in_of(state).map(|it| it.owner) {
                    Some(Owner::Gateway) if opens_pages && is_own_user() => (),
                    Some(Owner::Gateway | Owner::User(_)) => {
                        return Err(NotFinished::OtherBrowser);
                    }
                    None => return Err(unknown),
                }
            }
        }
        let finished = authorizations.finish_sign_in(query, wait);
        let finished = finished.map_err(NotFinished::Refused)?;
        self.invitations.end(state);
        Ok(finished)
    }
}

/// A server's URL as people may see it: its query may hold a token.
fn plain_url(config: &UpstreamConfig) -> String {
    match &config.target {
        Target::Http(target) => {
            target.url.split(['?', '#']).next().unwrap_or_default().to_owned()
        }
        Target::Stdio(_) => String::new(),
    }
}

/// SHA-256 of a random text: what is kept of it here lets nobody use it, and is compared in a
/// time that tells nothing of it.
type Digest = [u8; 32];

fn digest(text: &str) -> Digest {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().try_into().unwrap_or([0; 32])
}

/// A page that leads a person to an authorization server.
struct Invitation {
    /// The page's id, which is told to the beginner once more while the page is good.
    id: String,
    server: ServerName,
    url: String,
    whose: Whose,
    beginner: Beginner,
    authorization: Arc<ServerAuthorization>,
    /// The browser that is the beginner's, once one has shown that.
    browser: Option<Digest>,
    /// The newest states with which a browser was sent away, and that browser.
    states: Vec<(Digest, Digest)>,
}

impl Invitation {
    fn new(
        server: ServerName,
        url: String,
        whose: Whose,
        beginner: Beginner,
        authorization: Arc<ServerAuthorization>,
    ) -> Invitation {
        let (id, browser, states) = (String::new(), None, Vec::new());
        Invitation { id, server, url, whose, beginner, authorization, browser, states }
    }
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invitation").field("server", &self.server).finish_non_exhaustive()
    }
}

/// How an answer's state and the browser that brings it belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ComesBack {
    /// The browser was sent away with this state.
    Rightly,
    /// Another browser was.
    FromElsewhere,
    /// No browser was sent away from a page with it.
    Uninvited,
}

/// The pages that people may sign in from, the oldest first. Bounded by [`SIGN_IN_PAGES_MAX`], and for
/// one beginner at one server by [`SIGN_IN_PAGES_OF_BEGINNER_MAX`]; the oldest are forgotten.
#[derive(Debug, Default)]
pub(super) struct Invitations(Mutex<Table<Invitation>>);

impl Invitations {
    fn add(&self, invitation: Invitation, browser: Option<&str>) -> io::Result<String> {
        let id = random_text()?;
        let invitation =
            Invitation { browser: browser.map(digest), id: id.clone(), ..invitation };
        let is_like = |other: &Invitation| {
            other.beginner == invitation.beginner && other.server == invitation.server
        };
        let mut table = self.0.lock();
        table.make_room(Instant::now(), is_like);
        table.add(digest(&id), invitation, Instant::now());
        Ok(id)
    }

    /// The id of the page at which this beginner was invited to sign in for itself, while the page
    /// is good for a time still.
    fn pending(
        &self,
        server: &ServerName,
        beginner: &Beginner,
        authorization: &Arc<ServerAuthorization>,
    ) -> Option<String> {
        let is_it = |it: &Invitation| {
            it.whose == Whose::Beginner
                && it.server == *server
                && it.beginner == *beginner
                && Arc::ptr_eq(&it.authorization, authorization)
        };
        let now = Instant::now();
        let mut table = self.0.lock();
        table.sweep(now);
        let young =
            |added: Instant| now.saturating_duration_since(added) < SIGN_IN_PAGE_LIFE / 2;
        let pages = table.0.iter().filter(|(_, added, it)| young(*added) && is_it(it));
        pages.map(|(_, _, it)| it.id.clone()).next_back()
    }

    fn page(&self, id: &str, browsers: &[&str]) -> Option<SignInPage> {
        let mut table = self.0.lock();
        let invitation = table.find(&digest(id), Instant::now())?;
        let is_it = |mark: &&str| invitation.browser == Some(digest(mark));
        Some(SignInPage {
            server: invitation.server.clone(),
            url: invitation.url.clone(),
            whose: invitation.whose,
            beginner: invitation.beginner.clone(),
            is_proven: browsers.iter().any(is_it),
        })
    }

    fn prove(&self, id: &str, browser: &str) {
        if let Some(invitation) = self.0.lock().find(&digest(id), Instant::now()) {
            invitation.browser = Some(digest(browser));
        }
    }

    fn authorization(&self, id: &str, browser: &str) -> Option<Arc<ServerAuthorization>> {
        let mut table = self.0.lock();
        let invitation = table.find(&digest(id), Instant::now())?;
        let is_theirs = invitation.browser == Some(digest(browser));
        is_theirs.then(|| invitation.authorization.clone())
    }

    fn note_state(&self, id: &str, state: &str, browser: &str) {
        if let Some(invitation) = self.0.lock().find(&digest(id), Instant::now()) {
            if invitation.states.len() >= SIGN_IN_PAGES_OF_BEGINNER_MAX {
                invitation.states.remove(0);
            }
            invitation.states.push((digest(state), digest(browser)));
        }
    }

    fn comes_back(&self, state: &str, browsers: &[&str]) -> ComesBack {
        let state = digest(state);
        let mut table = self.0.lock();
        let mut sent = table.all(Instant::now()).flat_map(|it| &it.states);
        match sent.find(|(sent, _)| *sent == state) {
            None => ComesBack::Uninvited,
            Some((_, from)) if browsers.iter().any(|it| digest(it) == *from) => {
                ComesBack::Rightly
            }
            Some(_) => ComesBack::FromElsewhere,
        }
    }

    /// Forgets the page of a sign-in that is finished.
    fn end(&self, state: &str) {
        let state = digest(state);
        let is_of = |it: &Invitation| it.states.iter().any(|(sent, _)| *sent == state);
        self.0.lock().retain(|invitation| !is_of(invitation));
    }
}

/// Values under digests of their ids, for a time.
#[derive(Debug)]
struct Table<T>(Vec<(Digest, Instant, T)>);

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table(Vec::new())
    }
}

impl<T> Table<T> {
    fn sweep(&mut self, now: Instant) {
        self.0
            .retain(|(_, added, _)| now.saturating_duration_since(*added) < SIGN_IN_PAGE_LIFE);
    }

    /// Forgets the oldest values where there are as many as may be, of all and of like ones.
    fn make_room(&mut self, now: Instant, is_like: impl Fn(&T) -> bool) {
        self.sweep(now);
        let n_like = self.0.iter().filter(|(_, _, it)| is_like(it)).count();
        if n_like >= SIGN_IN_PAGES_OF_BEGINNER_MAX
            && let Some(at) = self.0.iter().position(|(_, _, it)| is_like(it))
        {
            self.0.remove(at);
        }
        if self.0.len() >= SIGN_IN_PAGES_MAX {
            self.0.remove(0);
        }
    }

    fn add(&mut self, id: Digest, value: T, now: Instant) {
        self.0.push((id, now, value));
    }

    fn find(&mut self, id: &Digest, now: Instant) -> Option<&mut T> {
        self.sweep(now);
        self.0.iter_mut().find(|(known, _, _)| known == id).map(|(_, _, value)| value)
    }

    fn all(&mut self, now: Instant) -> impl Iterator<Item = &mut T> {
        self.sweep(now);
        self.0.iter_mut().map(|(_, _, value)| value)
    }

    fn retain(&mut self, keeps: impl Fn(&T) -> bool) {
        self.0.retain(|(_, _, value)| keeps(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_forgotten_at_its_end_and_where_there_are_too_many() {
        let start = Instant::now();
        let mut table: Table<(u8, usize)> = Table::default();
        let id = |n: usize| digest(&n.to_string());
        for n in 0..SIGN_IN_PAGES_OF_BEGINNER_MAX + 1 {
            table.make_room(start, |(who, _)| *who == 1);
            table.add(id(n), (1, n), start);
        }
        assert!(table.find(&id(0), start).is_none(), "the oldest of one beginner");
        assert!(table.find(&id(1), start).is_some());
        for n in 10..10 + SIGN_IN_PAGES_MAX {
            table.make_room(start, |_| false);
            table.add(id(n), (2, n), start);
        }
        assert_eq!(table.all(start).count(), SIGN_IN_PAGES_MAX);
        assert!(table.find(&id(1), start).is_none() && table.find(&id(10), start).is_some());
        assert!(table.find(&id(10), start + SIGN_IN_PAGE_LIFE).is_none());
        assert_eq!(table.all(start).count(), 0);
    }

    #[test]
    fn ids_differ_and_are_long() {
        let (one, two) = (random_text().unwrap(), random_text().unwrap());
        assert!(one != two && one.len() == 43, "{one} {two}");
    }
}
