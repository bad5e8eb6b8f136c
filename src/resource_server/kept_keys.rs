//! Keys of issuers on disk, so that a gateway that starts again while an issuer cannot be reached
//! knows its users all the same, for as long as the keys hold.
//!
//! Each issuer has a file with one JSON object: `{"issuer","jwks_uri"?,"read_at","document"}`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::presented::Now;
use crate::config::IssuerConfig;
use crate::oauth::jwk::JwkSet;
use crate::state::framed::{Form, hex};
use crate::state::{StateDir, Writer};
use crate::sync::Mutex;

const FORM: Form = Form { name: "issuer-keys", version: 1 };
/// The beginning of a file's name, before a digest of the issuer.
const PREFIX: &str = "issuer-keys.";
/// Bytes of that digest: enough to tell issuers apart.
const DIGEST_BYTES: usize = 16;

/// The files of the keys.
#[derive(Debug, Clone)]
pub(super) struct KeptKeys {
    directory: Arc<StateDir>,
    /// None once nothing more is to be written: the thread that writes ends with the last handle,
    /// and whoever still serves a request may hold this for longer.
    writer: Arc<Mutex<Option<Writer>>>,
}

#[derive(Serialize, Deserialize)]
struct Kept<'a> {
    issuer: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    jwks_uri: Option<String>,
    /// Seconds since the epoch.
    read_at: u64,
    #[serde(borrow)]
    document: &'a RawValue,
}

impl KeptKeys {
    pub(super) fn new(directory: Arc<StateDir>, writer: Writer) -> KeptKeys {
        KeptKeys { directory, writer: Arc::new(Mutex::new(Some(writer))) }
    }

    /// Writes nothing more.
    pub(super) fn stop(&self) {
        *self.writer.lock() = None;
    }

    /// The keys of an issuer, and when they were read, if that is less than `max_age` ago and
    /// nothing differs in the configuration of where they are.
    pub(super) fn load(
        &self,
        config: &IssuerConfig,
        max_age: Duration,
        now: Now,
    ) -> Option<(JwkSet, Instant)> {
        let body = self.directory.read(&file_name(&config.issuer), FORM)?;
        let kept: Kept<'_> = serde_json::from_slice(&body).ok()?;
        let is_same = kept.issuer == config.issuer && kept.jwks_uri == config.jwks_uri;
        // Keys of the future say nothing of their age.
        let age = Duration::from_secs(now.unix.checked_sub(kept.read_at)?);
        let read_at = now.instant.checked_sub(age)?;
        let set = JwkSet::parse(kept.document.get().as_bytes()).ok()?;
        (is_same && age < max_age).then_some((set, read_at))
    }

    /// Keeps the keys of an issuer, which were read now. The disk is not waited for.
    pub(super) fn keep(&self, config: &IssuerConfig, document: &[u8], now: Now) {
        let Ok(document) = serde_json::from_slice::<&RawValue>(document) else { return };
        let kept = Kept {
            issuer: config.issuer.clone(),
            jwks_uri: config.jwks_uri.clone(),
            read_at: now.unix,
            document,
        };
        if let Ok(body) = serde_json::to_vec(&kept)
            && let Some(writer) = &*self.writer.lock()
        {
            writer.replace(&file_name(&config.issuer), FORM.frame(&body));
        }
    }

    /// Removes the files of all issuers but these.
    pub(super) fn forget_others(&self, issuers: &[IssuerConfig]) {
        let wanted: Vec<_> = issuers.iter().map(|it| file_name(&it.issuer)).collect();
        let names = self.directory.names().into_iter();
        // What was set aside for the operator has an ending behind its name.
        let is_file = |name: &String| {
            name.strip_prefix(PREFIX).is_some_and(|rest| rest.len() == 2 * DIGEST_BYTES)
        };
        for name in names.filter(is_file).filter(|name| !wanted.contains(name)) {
            if let Some(writer) = &*self.writer.lock() {
                writer.remove(&name);
            }
        }
    }
}

fn file_name(issuer: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, issuer.as_bytes());
    let digest = digest.as_ref().get(..DIGEST_BYTES).unwrap_or_default();
    format!("{PREFIX}{}", hex(digest))
}
