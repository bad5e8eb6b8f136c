//! The file of one owner's credentials: written before they are used, and looked at for what another
//! process has written.

use std::sync::Arc;
use std::time::Instant;

use crate::limits::{CREDENTIALS_LOOK_INTERVAL, GOOD_CREDENTIALS_LOOK_INTERVAL};

use super::kept::Kept;
use super::server_authorization::ServerAuthorization;
use super::state::{Need, Origin, TokenSource};
use super::store::Stamp;
use super::want::Want;

/// A file of credentials as it was at one moment, to tell if it was written since.
#[derive(Debug, PartialEq, Eq)]
pub struct FileMark(Option<Stamp>);

impl ServerAuthorization {
    /// The file as it is now.
    pub fn file_mark(&self) -> FileMark {
        FileMark(self.shared.store.stamp(&self.file).unwrap_or_default())
    }

    /// Looks if another process has signed in or out, but not all the time. It looks also while
    /// the token is good: the person may have signed in with another account, or out.
    pub(super) fn look_at_file(&self) {
        let now = Instant::now();
        let seen = {
            let mut state = self.lock();
            if state.look.is_to_be_saved(now) {
                drop(state);
                return self.submit(Want::Saving);
            }
            let is_good =
                state.unrefused().is_some_and(|kept| !kept.is_over(self.shared.now()));
            let interval = match is_good {
                true => GOOD_CREDENTIALS_LOOK_INTERVAL,
                false => CREDENTIALS_LOOK_INTERVAL,
            };
            if !state.look.begin(now, interval) {
                return;
            }
            state.look.seen()
        };
        let found = match self.shared.store.stamp(&self.file) {
            Ok(stamp) if stamp == seen => return,
            Ok(_) => self.read_file(),
            // That is no sign-out.
            Err(error) => Err(error),
        };
        match found {
            Ok(Some(kept)) => self.adopt_from_file(kept),
            Ok(None) if self.lock().look.seen().is_none() && seen.is_some() => {
                self.signed_out_elsewhere()
            }
            // The credentials are for something else.
            Ok(None) => (),
            Err(error) => {
                let why = error.to_string();
                if self.lock().look.could_not_read(&why) {
                    log::warn!(target: "oauth",
                        "{}: the credentials in state_dir cannot be read: {why}", self.server);
                }
            }
        }
    }

    /// Looks at the file at once: a request has nothing else to hope for.
    pub fn look_for_sign_in(&self) {
        self.lock().look.is_due();
        self.look_at_file();
    }

    /// Another process has signed out, and has revoked the tokens where it could.
    fn signed_out_elsewhere(&self) {
        self.forget();
        if self.token_source() != TokenSource::Machine {
            self.need_sign_in("somebody has signed out", Need::Credentials);
        }
    }

    /// The usable credentials in the file; what is of no use is set aside.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn read_file(&self) -> std::io::Result<Option<Kept>> {
        let store = &self.shared.store;
        let stamp = store.stamp(&self.file)?;
        let text = store.read(&self.file)?;
        self.lock().look.saw(stamp);
        let Some(text) = text else { return Ok(None) };
        let Some(kept) = Kept::from_json(&text) else {
            store.set_aside(&self.file, "it holds no credentials");
            return Ok(None);
        };
        // Tokens of another server, of a client that is not configured any more, or of a person
        // where a machine has them by now.
        let grant = self.config.grant.as_str();
        let is_same_grant = kept.grantor.grant.as_deref().is_none_or(|it| it == grant);
        let is_same_client =
            self.config.client_id.as_ref().is_none_or(|id| *id == kept.grantor.client.id);
        Ok(Some(kept).filter(|it| {
            it.grantor.server == self.url.as_str() && is_same_client && is_same_grant
        }))
    }

    /// Writes credentials before they are used.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn write_file(&self, kept: &Kept) -> std::io::Result<()> {
        let store = &self.shared.store;
        let written = store.write(&self.file, &kept.to_json(&self.holder));
        let stamp = store.stamp(&self.file).unwrap_or_default();
        let mut state = self.lock();
        match &written {
            Ok(()) => {
                state.look.saw(stamp);
                state.look.is_saved();
            }
            Err(_) => state.look.could_not_save(Instant::now()),
        }
        written
    }

    /// The credentials that a question goes on from, while the file is locked: those of the file, or
    /// those that could not be written, which are written again first.
    ///
    /// # Errors
    /// The disk refuses to read.
    pub(super) fn newest(&self) -> std::io::Result<Newest> {
        let (present, is_unsaved, seen) = {
            let state = self.lock();
            (state.kept.clone(), state.look.is_unsaved(), state.look.seen())
        };
        // The file is older, unless another process has written it since.
        if let Some(present) = present.as_ref().filter(|_| is_unsaved)
            && self.shared.store.stamp(&self.file).map_or(true, |it| it == seen)
        {
            if self.write_file(present).is_ok() {
                log::info!(target: "oauth", "{}: its tokens are kept now", self.server);
            }
            return Ok(Newest::Present(present.clone()));
        }
        Ok(match (self.read_file()?, present) {
            (Some(newest), Some(present)) if *present == newest => Newest::Present(present),
            (Some(newest), _) => {
                self.adopt_from_file(newest);
                Newest::FromFile
            }
            // Somebody has signed out.
            (None, Some(_)) => {
                self.forget();
                Newest::None
            }
            (None, None) => Newest::None,
        })
    }

    /// Uses credentials that another process has written.
    pub(super) fn adopt_from_file(&self, kept: Kept) {
        {
            let mut state = self.lock();
            state.refusals.pardoned(Instant::now());
            state.look.is_saved();
        }
        // It may be a renewal, and a page that stays open after a sign-in does no harm.
        self.adopt(kept, Origin::Renewal);
    }
}

/// What is newest of the file and the present credentials.
pub(super) enum Newest {
    /// There are none.
    None,
    /// The present ones.
    Present(Arc<Kept>),
    /// Those of the file, which are the present ones by now.
    FromFile,
}
