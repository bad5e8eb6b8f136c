//! The file of one owner's credentials: written before they are used, and looked at for what another
//! process has written.

use std::time::Instant;

use crate::limits::{CREDENTIALS_LOOK_INTERVAL, GOOD_CREDENTIALS_LOOK_INTERVAL};

use super::kept::Kept;
use super::server_authorization::ServerAuthorization;
use super::state::Holder;

impl ServerAuthorization {
    /// Looks if another process has signed in or out, but not all the time. It looks also while
    /// the token is good: the person may have signed in with another account, or out.
    pub(super) fn look_at_file(&self) {
        let now = Instant::now();
        let seen = {
            let mut state = self.lock();
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
        if self.shared.store.stamp(&self.file) == seen {
            return;
        }
        match self.read_file() {
            Ok(Some(kept)) => self.adopt_from_file(kept),
            Ok(None) if self.lock().look.seen().is_none() && seen.is_some() => {
                self.signed_out_elsewhere()
            }
            // The credentials are for something else, or cannot be read at present.
            Ok(None) | Err(_) => (),
        }
    }

    /// Another process has signed out, and has revoked the tokens where it could.
    fn signed_out_elsewhere(&self) {
        self.forget();
        if self.holder() != Holder::Machine {
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
        self.lock().look.saw(stamp);
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
        store.write(&self.file, &kept.to_json())?;
        self.lock().look.saw(store.stamp(&self.file));
        Ok(())
    }

    /// Uses credentials that another process has written.
    pub(super) fn adopt_from_file(&self, kept: Kept) {
        self.lock().refusals.pardoned(Instant::now());
        self.adopt(kept);
    }
}
