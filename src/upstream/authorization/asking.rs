//! Has tokens of authorization servers, one question at a time for the credentials of one owner at
//! one server, on the threads `oauth-N`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Dpop, Grant as ConfiguredGrant, JwtBearer};
use crate::limits::SERVER_AWAY_BELIEVED;
use crate::oauth::scope::{self, Refreshes, Scopes};
use crate::oauth::token::{Grant, TokenAnswer, TokenType};

use super::Unwritten;
use super::credentials_file::Newest;
use super::discovery::Discovered;
use super::flow_error::{FlowError, FlowStep, Remedy};
use super::kept::{Grantor, Kept, Registrations};
use super::registration::{Led, with_registrations};
use super::server_authorization::ServerAuthorization;
use super::state::{NOBODY_HAS_SIGNED_IN, Need, Origin, TOKEN_HAS_ENDED, TokenSource, Trouble};
use super::store::{FileName, Locked};
use super::want::Want;
use super::workers::Purpose;

/// The address that browsers come back to, of a grant without a person.
const NO_REDIRECT: &str = "";
/// The pause after a question for which there was no thread.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// What came of a question.
enum Had {
    /// A token, which is used from here on.
    Token,
    /// Only a person can have one, because of this.
    NeedsPerson(String, Need),
    /// None: the server is not there, which its next request finds out.
    Nothing,
}

/// Why another token of the same authorization server is not had.
const REFUSES_ALL: &str =
    "the server refuses the access tokens that its authorization server gives";

fn needs(why: &str) -> Had {
    Had::NeedsPerson(why.to_owned(), Need::Credentials)
}

/// What an answer of a token endpoint is an answer to.
pub(super) struct Requested<'a> {
    /// The scopes that were asked for, or that the refresh token has.
    pub(super) scopes: &'a Scopes,
    /// Those of them that a request needed which was refused before.
    pub(super) wanted: &'a Scopes,
    /// The credentials that are renewed, where no person has signed in.
    pub(super) before: Option<&'a Kept>,
}

/// The end of a question wakes whoever waits for it, whatever way it ends.
struct Asked<'a>(&'a ServerAuthorization);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.lock().is_asking = false;
        self.0.wake();
    }
}

impl ServerAuthorization {
    /// Has an authorization server asked, unless one is asked already. Returns at once.
    pub(super) fn submit(&self, want: Want) {
        let Some(me) = self.me.upgrade() else { return };
        if !self.lock().begin(&want, Instant::now()) {
            return;
        }
        let job = Box::new(move || {
            let _asked = Asked(&me);
            match me.had(&want) {
                Ok(Had::Token | Had::Nothing) => (),
                Ok(Had::NeedsPerson(why, need)) => me.ask_person(&why, need),
                // The token is as good as before.
                Err(_) if want == Want::Saving => {
                    me.lock().look.could_not_save(Instant::now());
                }
                Err(error) => me.failed(&error),
            }
        });
        if !self.shared.workers.submit(&self.server, Purpose::Token, job) {
            {
                let mut state = self.lock();
                state.is_asking = false;
                let why = "too many sign-ins and renewals wait".to_owned();
                let until = Instant::now() + BUSY_PAUSE;
                state.trouble = Trouble::Failing { why, until };
            }
            self.wake();
        }
    }

    /// Locks the file; none where the disk refuses that. A renewal is made without the lock then: the
    /// credentials are better used than lost, and other processes can hardly write them either.
    fn locked(&self) -> std::io::Result<Option<Locked>> {
        match self.shared.store.lock(&self.file) {
            Ok(locked) => Ok(Some(locked)),
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => Err(error),
            Err(error) => {
                log::debug!(target: "oauth", "{}: renewed without a lock: {error}", self.server);
                Ok(None)
            }
        }
    }

    fn had(&self, want: &Want) -> Result<Had, FlowError> {
        // Another gateway, or a command, may renew the same token: only one of them does.
        let _locked = self.locked().map_err(not_kept)?;
        let before = match self.newest().map_err(not_kept)? {
            Newest::FromFile => return Ok(Had::Token),
            Newest::Present(kept) => Some(kept),
            Newest::None => None,
        };
        if *want == Want::Saving {
            return Ok(Had::Token);
        }
        if self.token_source() == TokenSource::Machine {
            return self.had_by_machine(want, before.as_deref());
        }
        match (want, before) {
            (_, None) => Ok(needs(NOBODY_HAS_SIGNED_IN)),
            (Want::Scopes(scopes), Some(kept)) => {
                self.want_scopes(&kept, scopes);
                let why = format!("a request needs more rights ({scopes})");
                Ok(Had::NeedsPerson(why, Need::Rights))
            }
            (Want::Renewal | Want::Saving, Some(kept)) => {
                self.refreshed(&kept, || self.found_for_renewal())
            }
            (Want::Refused(_), Some(kept)) => self.had_after_refusal(&kept),
        }
    }

    /// Keeps in mind what a request needed, for the next sign-in of any process.
    fn want_scopes(&self, kept: &Arc<Kept>, wanted: &str) {
        let wanted = kept.wanted.union(&Scopes::parse(wanted));
        if wanted == kept.wanted {
            return;
        }
        self.replace(kept, Kept { wanted, ..(**kept).clone() });
    }

    /// The authorization server gives nobody what a request needed: the next sign-in asks for it no
    /// more, and neither does the next request for a while.
    pub(super) fn want_no_more_scopes(&self) {
        let _locked = self.shared.store.lock(&self.file).ok();
        self.newest().ok();
        let kept = self.lock().kept.clone();
        let Some(kept) = kept.filter(|kept| !kept.wanted.is_empty()) else { return };
        self.lock().step_ups.ended(&kept.wanted, &kept.scopes, Instant::now());
        self.replace(&kept, Kept { wanted: Scopes::default(), ..(*kept).clone() });
    }

    /// Changes what is kept besides the access token.
    fn replace(&self, before: &Kept, after: Kept) {
        if let Err(error) = self.write_file(&after) {
            log::warn!(target: "oauth", "{}: its credentials cannot be written: {error}",
                self.server);
        }
        let mut state = self.lock();
        if state.kept.as_deref() == Some(before) {
            state.kept = Some(Arc::new(after));
        }
    }

    /// The server has refused the token of a person's sign-in.
    fn had_after_refusal(&self, kept: &Kept) -> Result<Had, FlowError> {
        if self.lock().refusals.refuses_all(Instant::now()) {
            self.lock().pages.rest(Instant::now());
            return Ok(needs(REFUSES_ALL));
        }
        if kept.refresh_token.is_none() {
            return Ok(needs(TOKEN_HAS_ENDED));
        }
        // The server may have another authorization server by now.
        match self.discovered() {
            Ok(found) if found.with() != kept.grantor.with() => Ok(self.has_moved(&found)),
            Ok(found) => self.refreshed(kept, || Some(found)),
            Err(error) if error.remedy == Remedy::TryLater => self.refreshed(kept, || None),
            Err(error) => Err(error),
        }
    }

    /// Has the refresh token used. `find` gives the authorization server as it is now, if it is not
    /// to be asked as it was before.
    fn refreshed(
        &self,
        kept: &Kept,
        find: impl FnOnce() -> Option<Discovered>,
    ) -> Result<Had, FlowError> {
        let Some(refresh_token) = &kept.refresh_token else {
            return Ok(needs(TOKEN_HAS_ENDED));
        };
        if self.config.dpop == Dpop::On && kept.grantor.dpop_key.is_none() {
            return Ok(needs(
                "its tokens are not bound to a key, as \"dpop\" says they must be",
            ));
        }
        let found = find();
        let grantor = self.grantor_of_now(kept, found.as_ref());
        let _exchange = self.shared.exchanges.begin().ok_or_else(ending)?;
        let grant = Grant::RefreshToken(refresh_token);
        let answer = self.asker().token(&grantor, grant, &Scopes::default());
        match answer {
            Ok(answer) => {
                let (scopes, wanted) = (&kept.scopes, &Scopes::default());
                let requested = Requested { scopes, wanted, before: Some(kept) };
                self.keep(answer, grantor, &requested).map(|()| Had::Token)
            }
            Err(error) => self.not_refreshed(kept, &grantor, found.as_ref(), error),
        }
    }

    /// A refresh token has led to no access token. It ends by `invalid_grant` alone (RFC 6749,
    /// section 5.2): whatever else stands in the way may be gone later, and the refresh token is
    /// tried again then, also where a person is asked meanwhile.
    fn not_refreshed(
        &self,
        kept: &Kept,
        grantor: &Grantor,
        found: Option<&Discovered>,
        error: FlowError,
    ) -> Result<Had, FlowError> {
        match error.remedy {
            Remedy::SignInAnew => {
                // The access token may be good for something, until it ends.
                self.replace(kept, Kept { refresh_token: None, ..kept.clone() });
                return Ok(needs(&format!("the sign-in has ended ({error})")));
            }
            // That of the configuration is the operator's to mend.
            Remedy::RegisterAnew if self.config.client_id.is_none() => {
                self.forget_client(grantor);
                return Ok(needs(&format!("the sign-in has ended ({error})")));
            }
            Remedy::AskPerson => return Ok(needs(&format!("the sign-in has ended ({error})"))),
            Remedy::RegisterAnew | Remedy::TryLater | Remedy::Nothing => (),
        }
        // Its authorization server may be gone for good, and the server have another one.
        match found.filter(|found| found.with() != grantor.with()) {
            Some(found) => Ok(self.has_moved(found)),
            None => Err(error),
        }
    }

    /// The server has another authorization server. The next renewal finds it again: the old one
    /// says nothing of it.
    fn has_moved(&self, found: &Discovered) -> Had {
        self.lock().found_at = None;
        needs(&format!("the server has another authorization server: {}", found.with()))
    }

    /// Forgets the registration of a client that the authorization server does not know any more.
    pub(super) fn forget_client(&self, grantor: &Grantor) {
        self.change_registrations(|all| all.forget(&grantor.with(), &grantor.client.id));
    }

    /// Notes that the authorization server knows a registration: somebody has come back with it.
    pub(super) fn registration_works(&self, grantor: &Grantor) {
        self.change_registrations(|all| {
            all.sign_in_finished(&grantor.with(), &grantor.client.id);
        });
    }

    fn change_registrations(&self, change: impl FnOnce(&mut Registrations)) {
        let changed = with_registrations(&self.shared.store, &self.server, change);
        if let Err(error) = changed {
            log::warn!(target: "oauth", "{}: its registrations cannot be kept: {error}",
                self.server);
        }
    }

    /// The ports of this machine to which browsers have come back from sign-ins by a command, the
    /// newest first: the registration of one of them serves again, whatever the authorization
    /// server thinks of another port (RFC 8252, section 7.3).
    pub fn loopback_ports(&self) -> Vec<u16> {
        let name = FileName::of_registrations(&self.server);
        let text = self.shared.store.read(&name).ok().flatten();
        let all = text.as_deref().and_then(Registrations::from_json);
        all.map(|all| all.loopback_ports()).unwrap_or_default()
    }

    /// Keeps the tokens of an answer, and uses them from there on.
    ///
    /// # Errors
    /// They must not be used; or this process is about to end, and they cannot be written.
    pub(super) fn keep(
        &self,
        answer: TokenAnswer,
        grantor: Grantor,
        requested: &Requested<'_>,
    ) -> Result<(), FlowError> {
        let unusable = |what: &str| {
            Err(FlowError::new(FlowStep::Token, grantor.with(), what, Remedy::Nothing))
        };
        match answer.token_type {
            TokenType::DPoP if grantor.dpop_key.is_none() => {
                return unusable("the access token is bound to a key that was not given");
            }
            // Whoever wants the protection discards it (RFC 9449, section 5).
            TokenType::Bearer if self.config.dpop == Dpop::On => {
                return unusable(
                    "the access token is not bound to the key, as \"dpop\" says it must be",
                );
            }
            TokenType::DPoP | TokenType::Bearer => (),
        }
        let Requested { scopes, wanted, before } = *requested;
        let kept = Kept::of(answer, grantor, scopes, before, self.shared.now());
        let written = self.write_file(&kept);
        if let Err(error) = written {
            if self.shared.setup().unwritten == Unwritten::Refused {
                return Err(not_kept(error));
            }
            // The old refresh token may be used up: what is not kept is better used than lost.
            log::warn!(target: "oauth", "{}: its tokens cannot be kept, and are lost if the \
                gateway ends before they can: {error}", self.server);
        }
        self.lock().step_ups.ended(wanted, &kept.scopes, Instant::now());
        let origin = match before {
            Some(_) => Origin::Renewal,
            None => Origin::SignIn,
        };
        self.adopt(kept, origin);
        Ok(())
    }

    /// The token of a client that asks on its own behalf.
    fn had_by_machine(&self, want: &Want, before: Option<&Kept>) -> Result<Had, FlowError> {
        let refused = matches!(want, Want::Refused(_));
        let refuses_all = || self.lock().refusals.refuses_all(Instant::now());
        if let Some(kept) = before.filter(|_| refused && refuses_all()) {
            let with = kept.grantor.with();
            return Err(FlowError::new(FlowStep::Token, with, REFUSES_ALL, Remedy::Nothing));
        }
        if before.is_none() && *want == Want::Renewal && self.probe().is_err() {
            self.lock().away_until = Some(Instant::now() + SERVER_AWAY_BELIEVED);
            return Ok(Had::Nothing);
        }
        let (grantor, mut scopes) = self.inputs_of_machine(want, before)?;
        let mut wanted = Scopes::default();
        if let (Want::Scopes(more), Some(kept)) = (want, before) {
            wanted = Scopes::parse(more);
            scopes = scope::step_up(&kept.scopes.union(&scopes), Some(more));
        }
        let scopes = self.configured_scopes().unwrap_or(scopes);
        let answer = self.asked_by_machine(&grantor, &scopes);
        let lost = |error: &FlowError| error.remedy == Remedy::RegisterAnew;
        if answer.as_ref().is_err_and(lost) && self.config.client_id.is_none() {
            self.forget_client(&grantor);
        }
        let requested = Requested { scopes: &scopes, wanted: &wanted, before: None };
        self.keep(answer?, grantor, &requested).map(|()| Had::Token)
    }

    /// The server may have another authorization server by now. What was kept serves while the
    /// metadata are known, and while they cannot be had.
    fn inputs_of_machine(
        &self,
        want: &Want,
        before: Option<&Kept>,
    ) -> Result<(Grantor, Scopes), FlowError> {
        let found = match before {
            None => self.discovered()?,
            Some(kept) => {
                let found = match want {
                    Want::Renewal | Want::Saving => self.found_for_renewal(),
                    Want::Refused(_) | Want::Scopes(_) => self.discovered().ok(),
                };
                let Some(found) = found else {
                    return Ok((self.grantor_of_now(kept, None), kept.scopes.clone()));
                };
                found
            }
        };
        let scopes = self.scopes(&found, Refreshes::No);
        let client = self.client(&found, NO_REDIRECT, Led::Nobody)?;
        let known = before.map(|kept| &kept.grantor);
        Ok((self.grantor(&found, client, known)?, scopes))
    }

    fn asked_by_machine(
        &self,
        grantor: &Grantor,
        scopes: &Scopes,
    ) -> Result<TokenAnswer, FlowError> {
        let asker = self.asker();
        match &self.config.grant {
            // It has been excluded above.
            ConfiguredGrant::AuthorizationCode | ConfiguredGrant::ClientCredentials => {
                asker.token(grantor, Grant::ClientCredentials, scopes)
            }
            ConfiguredGrant::JwtBearer(JwtBearer { assertion_file, identity_provider }) => {
                let mut assertion = asker.assertion(assertion_file)?;
                if let Some(provider) = identity_provider {
                    assertion = asker.id_jag(provider, &assertion, grantor, scopes)?;
                }
                asker.token(grantor, Grant::JwtBearer { assertion: &assertion }, scopes)
            }
        }
    }
}

/// An exchange that is not begun any more.
pub(super) fn ending() -> FlowError {
    FlowError::new(FlowStep::Token, "", "the gateway is stopping", Remedy::TryLater)
}

/// Credentials that cannot be read or written.
pub(super) fn not_kept(error: std::io::Error) -> FlowError {
    FlowError::new(FlowStep::Keeping, "", error.to_string(), Remedy::TryLater)
}
