//! The file of one owner's credentials at a server: read and written, and looked at for what other
//! processes have done.

use std::time::Instant;

use crate::limits::{CREDENTIALS_LOOK_INTERVAL, GOOD_CREDENTIALS_LOOK_INTERVAL};

use super::kept::Kept;
use super::server_authorization::ServerAuthorization;
use super::store::Stamp;

/// A file of credentials as it was at one moment, to tell if it was written since.
#[derive(Debug, PartialEq, Eq)]
pub struct FileMark(Option<Stamp>);

impl ServerAuthorization {
    /// The file as it is now.
    pub fn file_mark(&self) -> FileMark {
        FileMark(self.shared.store.stamp(&self.file))
    }

    /// Looks if another process has signed in or out, but not all the time. It looks also while
    /// the token is good: the person may have signed in with another account, or out.
    pub(super) fn look_at_file(&self) {
        let now = Instant::now();
        let seen = {
            let mut state = self.lock();
            let good = state.kept.as_ref().filter(|_| !state.is_refused);
            let interval = match good.is_some_and(|kept| !kept.is_over(self.shared.now())) {
                true => GOOD_CREDENTIALS_LOOK_INTERVAL,
                false => CREDENTIALS_LOOK_INTERVAL,
            };
            let since = |at| now.saturating_duration_since(at);
            if state.looked_at.is_some_and(|at| since(at) < interval) {
                return;
            }
            state.looked_at = Some(now);
            state.seen
        };
        if self.shared.store.stamp(&self.file) == seen {
            return;
        }
        match self.read_file() {
            Ok(Some(kept)) => self.adopt_from_file(kept),
            Ok(None) if self.lock().seen.is_none() && seen.is_some() => {
                self.signed_out_elsewhere()
            }
            // The credentials are for something else, or cannot be read at present.
            Ok(None) | Err(_) => (),
        }
    }

    /// Looks at the file at once: a request has nothing else to hope for.
    pub fn look_for_sign_in(&self) {
        self.lock().looked_at = None;
        self.look_at_file();
    }

    /// Another process has signed out, and has revoked the tokens where it could.
    fn signed_out_elsewhere(&self) {
        self.forget();
        if !self.is_of_machines() {
            self.need_sign_in("somebody has signed out");
        }
    }

    /// The usable credentials in the file; what is of no use is set aside.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn read_file(&self) -> std::io::Result<Option<Kept>> {
        let store = &self.shared.store;
        let stamp = store.stamp(&self.file);
        let text = store.read(&self.file)?;
        self.lock().seen = stamp;
        let Some(text) = text else { return Ok(None) };
        let Some(kept) = Kept::from_json(&text) else {
            store.set_aside(&self.file, "it holds no credentials");
            return Ok(None);
        };
        // Tokens of another server, or of a client that is not configured any more.
        let is_same_client =
            self.config.client_id.as_ref().is_none_or(|id| *id == kept.grantor.client.id);
        Ok(Some(kept).filter(|it| it.grantor.server == self.url.as_str() && is_same_client))
    }

    /// Writes credentials before they are used.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn write_file(&self, kept: &Kept) -> std::io::Result<()> {
        let store = &self.shared.store;
        store.write(&self.file, &kept.to_json(&self.holder))?;
        self.lock().seen = store.stamp(&self.file);
        Ok(())
    }
}
