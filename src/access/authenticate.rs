//! Authentication of a request by its key.

use std::sync::Arc;

use super::policy::Principal;

/// A key's hash, and its principal.
#[derive(Debug, Clone)]
pub struct KnownKey {
    /// SHA-256 of the key.
    pub sha256: [u8; 32],
    /// The principal that the key stands for.
    pub principal: Arc<Principal>,
}

/// The key headers of one request, unchanged.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyHeaders<'a> {
    /// `Authorization`
    pub authorization: Option<&'a str>,
    /// `x-litellm-api-key`
    pub litellm: Option<&'a str>,
    /// `x-api-key`
    pub api_key: Option<&'a str>,
}

/// Finds the principal of the first key presented. The key's hash is compared with every known
/// hash, each in constant time, so that neither the time nor the place of a mismatch reveals
/// anything.
pub fn authenticate(known: &[KnownKey], presented: KeyHeaders<'_>) -> Option<Arc<Principal>> {
    if known.is_empty() {
        return None;
    }
    let key = key_of(presented)?;
    let hash = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    let mut found = None;
    for candidate in known {
        if equal(hash.as_ref(), &candidate.sha256) {
            found = Some(candidate.principal.clone());
        }
    }
    found
}

/// True if the request has a key: a wrong key is another mistake than none.
pub fn has_key(presented: KeyHeaders<'_>) -> bool {
    key_of(presented).is_some_and(|key| !key.is_empty())
}

fn key_of(presented: KeyHeaders<'_>) -> Option<&str> {
    presented
        .authorization
        .and_then(bearer)
        .or_else(|| presented.litellm.map(|value| bearer(value).unwrap_or(value.trim())))
        .or_else(|| presented.api_key.map(str::trim))
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, key) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

fn equal(a: &[u8], b: &[u8; 32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0_u8, |diff, (a, b)| diff | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::policy::Policy;

    fn known(keys: &[&str]) -> Vec<KnownKey> {
        keys.iter()
            .map(|key| {
                let hash = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
                let principal = Principal {
                    name: Some((*key).into()),
                    id: Some((*key).into()),
                    key: None,
                    user: None,
                    policy: Policy::default(),
                    is_admin: false,
                };
                KnownKey {
                    sha256: hash.as_ref().try_into().unwrap(),
                    principal: Arc::new(principal),
                }
            })
            .collect()
    }

    #[test]
    fn each_of_the_three_headers_carries_a_key() {
        let known = known(&["one", "two"]);
        let name = |presented| authenticate(&known, presented)?.name.clone();
        let with = KeyHeaders::default();
        assert_eq!(
            name(KeyHeaders { authorization: Some("Bearer one"), ..with }).as_deref(),
            Some("one")
        );
        assert_eq!(
            name(KeyHeaders { litellm: Some("bearer two"), ..with }).as_deref(),
            Some("two")
        );
        assert_eq!(name(KeyHeaders { api_key: Some("two"), ..with }).as_deref(), Some("two"));
        assert_eq!(name(KeyHeaders { authorization: Some("Basic one"), ..with }), None);
        assert_eq!(name(KeyHeaders { authorization: Some("Bearer three"), ..with }), None);
        assert_eq!(name(with), None);
    }
}
