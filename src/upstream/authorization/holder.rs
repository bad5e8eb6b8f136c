//! Pure: the holder of a user's credentials, as the file of these credentials names it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::protocol::credentials::UserCredentials;
use crate::protocol::credentials_id::CredentialsId;

/// The user who has signed in at a server, for those who look through the files: nothing is
/// decided by it but when credentials end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holder {
    /// The user's name: that of the key, or of the user of an access token.
    pub name: Option<Arc<str>>,
    /// SHA-256 of the key with which the user came, if it was one.
    pub key: Option<[u8; 32]>,
}

/// A sign-in of a user at a server, as its file tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSignIn {
    /// Whose it is.
    pub user: CredentialsId,
    /// The same for people.
    pub holder: Holder,
}

impl Holder {
    /// That of these credentials.
    pub fn of(user: &UserCredentials) -> Holder {
        Holder { name: user.name.clone(), key: user.key }
    }

    pub(super) fn to_json(&self) -> Option<HolderJson> {
        if *self == Holder::default() {
            return None;
        }
        let hex = |key: &[u8; 32]| key.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = self.name.as_deref().map(str::to_owned);
        Some(HolderJson { name, key: self.key.as_ref().map(hex) })
    }

    /// The holder in the text of a file; an empty one if the file names none.
    pub(super) fn read(text: &str) -> Holder {
        let read: Option<InFile> = serde_json::from_str(text).ok();
        let Some(HolderJson { name, key }) = read.and_then(|it| it.holder) else {
            return Holder::default();
        };
        let byte = |text: &str, at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
        let key = key.and_then(|text| {
            let bytes: Option<Vec<u8>> =
                (0..text.len()).step_by(2).map(|at| byte(&text, at)).collect();
            bytes?.try_into().ok()
        });
        Holder { name: name.map(Arc::from), key }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.as_deref().unwrap_or("a user without a name"))
    }
}

/// The holder in a file.
#[derive(Serialize, Deserialize)]
pub(super) struct HolderJson {
    name: Option<String>,
    key: Option<String>,
}

#[derive(Deserialize)]
struct InFile {
    #[serde(default)]
    holder: Option<HolderJson>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_read_as_it_was_written() {
        for holder in [
            Holder { name: Some("alice".into()), key: Some([0xab; 32]) },
            Holder { name: Some("a@idp".into()), key: None },
            Holder::default(),
        ] {
            let written = serde_json::json!({ "server": "s", "holder": holder.to_json() });
            assert_eq!(Holder::read(&written.to_string()), holder);
        }
        assert_eq!(Holder::read(r#"{"server":"s"}"#), Holder::default());
        let odd = r#"{"holder":{"name":"n","key":"0é"}}"#;
        assert_eq!(Holder::read(odd), Holder { name: Some("n".into()), key: None });
    }
}
