//! Pure: what is kept of a sign-in, and of registrations, as JSON texts.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::config::Secret;
use crate::limits::{
    REGISTRATIONS_MAX, TOKEN_RENEWAL_DIVISOR, TOKEN_RENEWAL_MARGIN, TOKEN_RENEWED_LIFE_MIN,
    TOKEN_USE_MIN,
};
use crate::oauth::client_authentication::AuthenticationMethod;
use crate::oauth::scope::Scopes;
use crate::oauth::token::{TokenAnswer, TokenType};
use crate::oauth::web_url::WebUrl;

use super::CALLBACK_PATH;
use super::holder::{Holder, HolderJson};

/// An OAuth client as one authorization server knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) id: String,
    pub(super) secret: Option<Secret>,
    pub(super) method: AuthenticationMethod,
}

/// The authorization server that has issued tokens, and what requests for further ones say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grantor {
    /// The URL of the server that the tokens are for: they are sent to no other.
    pub(super) server: String,
    /// The word of the grant by which the first token was had, where it is known: a token of a person
    /// is not one of a machine.
    pub(super) grant: Option<String>,
    /// Empty for one without metadata.
    pub(super) issuer: String,
    pub(super) token_endpoint: WebUrl,
    pub(super) revocation_endpoint: Option<WebUrl>,
    /// The algorithms that it takes in assertions and in proofs, where it says so.
    pub(super) algorithms: Algorithms,
    /// The `resource` parameter.
    pub(super) resource: String,
    pub(super) client: Client,
    /// The private key to which tokens are bound, as PKCS#8.
    pub(super) dpop_key: Option<DpopKey>,
}

/// Algorithms of signatures, by their registered names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Algorithms {
    pub(super) assertions: Option<Vec<String>>,
    pub(super) proofs: Option<Vec<String>>,
}

/// A private key that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct DpopKey(pub(super) Vec<u8>);

impl std::fmt::Debug for DpopKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[private key]")
    }
}

/// An access token, what it was had with, and what the next one is had with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) grantor: Grantor,
    pub(super) access_token: Secret,
    pub(super) token_type: TokenType,
    pub(super) refresh_token: Option<Secret>,
    /// Seconds since 1970.
    pub(super) obtained_at: u64,
    /// Seconds since 1970; none if the authorization server has not said when it ends.
    pub(super) expires_at: Option<u64>,
    /// The scopes that were granted: those that the answer names, or else those that were asked for
    /// (RFC 6749, section 5.1).
    pub(super) scopes: Scopes,
    /// The scopes that a request needed which the token is not good for. The next sign-in asks for
    /// them, whichever process makes it.
    pub(super) wanted: Scopes,
}

impl Kept {
    /// The tokens of an answer. `before`: those that were renewed, whose refresh token stays where
    /// the answer has none, as do the scopes that are wanted.
    pub(super) fn of(
        answer: TokenAnswer,
        grantor: Grantor,
        requested: &Scopes,
        before: Option<&Kept>,
        now: u64,
    ) -> Kept {
        let kept = before.and_then(|kept| kept.refresh_token.clone());
        Kept {
            grantor,
            access_token: answer.access_token,
            token_type: answer.token_type,
            refresh_token: answer.refresh_token.or(kept),
            obtained_at: now,
            expires_at: answer.expires_in.map(|life| now.saturating_add(life.as_secs())),
            scopes: answer.scopes.unwrap_or_else(|| requested.clone()),
            wanted: before.map(|kept| kept.wanted.clone()).unwrap_or_default(),
        }
    }

    /// The end of the access token, in seconds since 1970; none if it does not end. One that is said
    /// to end at once is used for a while all the same: the server says if it is good.
    fn end(&self) -> Option<u64> {
        let least = self.obtained_at.saturating_add(TOKEN_USE_MIN.as_secs());
        Some(self.expires_at?.max(least))
    }

    /// True once the access token has ended.
    pub(super) fn is_over(&self, now: u64) -> bool {
        self.end().is_some_and(|end| now >= end)
    }

    /// When it should be renewed in advance, in seconds since 1970; none if it does not end, or so
    /// soon that it would be renewed all the time: it is renewed when a request needs it.
    pub(super) fn renew_at(&self) -> Option<u64> {
        let end = self.end()?;
        let life = Duration::from_secs(end.saturating_sub(self.obtained_at));
        if life < TOKEN_RENEWED_LIFE_MIN {
            return None;
        }
        let margin = TOKEN_RENEWAL_MARGIN.min(life / TOKEN_RENEWAL_DIVISOR);
        Some(end.saturating_sub(margin.as_secs()))
    }

    /// The text for a file, which names the holder too.
    pub(super) fn to_json(&self, holder: &Holder) -> String {
        let Grantor {
            server,
            grant,
            issuer,
            token_endpoint,
            revocation_endpoint,
            algorithms,
            resource,
            client,
            dpop_key,
        } = &self.grantor;
        let written = KeptJson {
            server: server.clone(),
            grant: grant.clone(),
            issuer: issuer.clone(),
            token_endpoint: token_endpoint.as_str().to_owned(),
            revocation_endpoint: revocation_endpoint.as_ref().map(|it| it.as_str().to_owned()),
            algorithms: algorithms.clone(),
            resource: resource.clone(),
            client: ClientJson::of(client),
            dpop_key: dpop_key.as_ref().map(|key| STANDARD.encode(&key.0)),
            access_token: self.access_token.expose().to_owned(),
            token_type: self.token_type.as_str().to_owned(),
            refresh_token: self.refresh_token.as_ref().map(|it| it.expose().to_owned()),
            obtained_at: self.obtained_at,
            expires_at: self.expires_at,
            scopes: self.scopes.to_string(),
            wanted: self.wanted.to_string(),
            holder: holder.to_json(),
        };
        serde_json::to_string(&written).unwrap_or_default()
    }

    /// Reads such a text; none if it is none.
    pub(super) fn from_json(text: &str) -> Option<Kept> {
        let read: KeptJson = serde_json::from_str(text).ok()?;
        let url = |text: &str| WebUrl::parse(text).ok();
        let key = read.dpop_key.map(|key| STANDARD.decode(key).map(DpopKey));
        Some(Kept {
            grantor: Grantor {
                server: read.server,
                grant: read.grant,
                issuer: read.issuer,
                token_endpoint: url(&read.token_endpoint)?,
                revocation_endpoint: read.revocation_endpoint.as_deref().and_then(url),
                algorithms: read.algorithms,
                resource: read.resource,
                client: read.client.read()?,
                dpop_key: key.transpose().ok()?,
            },
            access_token: Secret::new(read.access_token),
            token_type: TokenType::parse(&read.token_type)?,
            refresh_token: read.refresh_token.map(Secret::new),
            obtained_at: read.obtained_at,
            expires_at: read.expires_at,
            scopes: Scopes::parse(&read.scopes),
            wanted: Scopes::parse(&read.wanted),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct KeptJson {
    server: String,
    #[serde(default)]
    grant: Option<String>,
    issuer: String,
    token_endpoint: String,
    revocation_endpoint: Option<String>,
    #[serde(default)]
    algorithms: Algorithms,
    resource: String,
    client: ClientJson,
    dpop_key: Option<String>,
    access_token: String,
    token_type: String,
    refresh_token: Option<String>,
    obtained_at: u64,
    expires_at: Option<u64>,
    scopes: String,
    #[serde(default)]
    wanted: String,
    /// The user, where they are a user's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holder: Option<HolderJson>,
}

#[derive(Serialize, Deserialize)]
struct ClientJson {
    id: String,
    secret: Option<String>,
    method: String,
}

impl ClientJson {
    fn of(client: &Client) -> ClientJson {
        ClientJson {
            id: client.id.clone(),
            secret: client.secret.as_ref().map(|it| it.expose().to_owned()),
            method: client.method.as_str().to_owned(),
        }
    }

    fn read(self) -> Option<Client> {
        let method = AuthenticationMethod::parse(&self.method)?;
        Some(Client { id: self.id, secret: self.secret.map(Secret::new), method })
    }
}

/// The registrations of this OAuth client for one server: each belongs to one issuer, and is good
/// for one address to come back to.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Registrations {
    dynamic: Vec<RegistrationJson>,
    /// The issuer with which each `client_id` of the configuration was used first.
    configured: Vec<(String, String)>,
}

#[derive(Serialize, Deserialize)]
struct RegistrationJson {
    issuer: String,
    redirect_uri: String,
    client: ClientJson,
    /// Seconds since 1970.
    secret_expires_at: Option<u64>,
    /// The sign-ins that have begun with it since somebody finished one.
    #[serde(default)]
    n_unfinished: u32,
}

impl Registrations {
    /// The text for a file.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads such a text; none if it is none.
    pub(super) fn from_json(text: &str) -> Option<Registrations> {
        serde_json::from_str(text).ok()
    }

    /// The client that is registered there, if its secret has not ended.
    pub(super) fn client(&self, issuer: &str, redirect_uri: &str, now: u64) -> Option<Client> {
        let is_it = |it: &&RegistrationJson| {
            let is_over = it.secret_expires_at.is_some_and(|at| now >= at);
            it.issuer == issuer && it.redirect_uri == redirect_uri && !is_over
        };
        let ClientJson { id, secret, method } = &self.dynamic.iter().find(is_it)?.client;
        ClientJson { id: id.clone(), secret: secret.clone(), method: method.clone() }.read()
    }

    /// Adds a registration in place of an older one. The oldest of too many are forgotten.
    pub(super) fn add(
        &mut self,
        issuer: &str,
        redirect_uri: &str,
        client: &Client,
        secret_expires_at: Option<u64>,
    ) {
        self.dynamic.retain(|it| it.issuer != issuer || it.redirect_uri != redirect_uri);
        let n_over = (self.dynamic.len() + 1).saturating_sub(REGISTRATIONS_MAX);
        self.dynamic.drain(..n_over);
        self.dynamic.push(RegistrationJson {
            issuer: issuer.to_owned(),
            redirect_uri: redirect_uri.to_owned(),
            client: ClientJson::of(client),
            secret_expires_at,
            n_unfinished: 0,
        });
    }

    fn get_mut(&mut self, issuer: &str, client_id: &str) -> Option<&mut RegistrationJson> {
        self.dynamic.iter_mut().find(|it| it.issuer == issuer && it.client.id == client_id)
    }

    /// A person is led to the authorization server. Returns how many were before, of whom none
    /// has finished.
    pub(super) fn sign_in_begins(&mut self, issuer: &str, client_id: &str) -> u32 {
        let Some(it) = self.get_mut(issuer, client_id) else { return 0 };
        let n_before = it.n_unfinished;
        it.n_unfinished = n_before.saturating_add(1);
        n_before
    }

    /// A person has finished a sign-in: the authorization server knows the client.
    pub(super) fn sign_in_finished(&mut self, issuer: &str, client_id: &str) {
        if let Some(it) = self.get_mut(issuer, client_id) {
            it.n_unfinished = 0;
        }
    }

    /// The ports of addresses on loopback to come back to, the newest first.
    pub(super) fn loopback_ports(&self) -> Vec<u16> {
        let port = |it: &RegistrationJson| {
            let rest = it.redirect_uri.strip_prefix("http://127.0.0.1:")?;
            rest.strip_suffix(CALLBACK_PATH)?.parse().ok()
        };
        self.dynamic.iter().rev().filter_map(port).collect()
    }

    /// Forgets the registration of a client that its authorization server does not know any more.
    pub(super) fn forget(&mut self, issuer: &str, client_id: &str) {
        self.dynamic.retain(|it| it.issuer != issuer || it.client.id != client_id);
    }

    /// The issuer that a `client_id` of the configuration belongs to: the one with which it is
    /// used first.
    pub(super) fn issuer_of_configured(&mut self, client_id: &str, issuer: &str) -> String {
        if let Some((_, first)) = self.configured.iter().find(|(id, _)| id == client_id) {
            return first.clone();
        }
        let n_over = (self.configured.len() + 1).saturating_sub(REGISTRATIONS_MAX);
        self.configured.drain(..n_over);
        self.configured.push((client_id.to_owned(), issuer.to_owned()));
        issuer.to_owned()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn client(id: &str) -> Client {
        let method = AuthenticationMethod::ClientSecretBasic;
        Client { id: id.to_owned(), secret: Some(Secret::new("hush".to_owned())), method }
    }

    pub(in super::super) fn kept(expires_in: Option<u64>) -> Kept {
        let url = |text: &str| WebUrl::parse(text).unwrap();
        let answer = TokenAnswer {
            access_token: Secret::new("access-token".to_owned()),
            token_type: TokenType::DPoP,
            expires_in: expires_in.map(Duration::from_secs),
            scopes: Some(Scopes::parse("b c")),
            refresh_token: Some(Secret::new("refresh-token".to_owned())),
            id_token: None,
        };
        let grantor = Grantor {
            server: "https://mcp.example/mcp".to_owned(),
            grant: Some("authorization_code".to_owned()),
            issuer: "https://as.example".to_owned(),
            token_endpoint: url("https://as.example/token"),
            revocation_endpoint: Some(url("https://as.example/revoke")),
            algorithms: Algorithms::default(),
            resource: "https://mcp.example/mcp".to_owned(),
            client: client("me"),
            dpop_key: Some(DpopKey(vec![1, 2, 3])),
        };
        Kept::of(answer, grantor, &Scopes::parse("a b"), None, 1000)
    }

    #[test]
    fn what_is_kept_is_read_as_it_was_written_and_never_printed() {
        let kept = Kept { wanted: Scopes::parse("d"), ..kept(Some(3600)) };
        assert_eq!(Kept::from_json(&kept.to_json(&Holder::default())).unwrap(), kept);
        assert_eq!(kept.scopes.to_string(), "b c", "what was granted");
        let printed = format!("{kept:?}");
        for secret in ["access-token", "refresh-token", "hush", "[1, 2, 3]"] {
            assert!(!printed.contains(secret), "{printed}");
        }
        assert!(Kept::from_json("{}").is_none());
    }

    #[test]
    fn a_token_is_renewed_a_minute_before_its_end_and_a_short_one_in_its_last_quarter() {
        for (life, due, end) in [
            (Some(3600), Some(4540), 4600),
            (Some(40), Some(1030), 1040),
            (Some(0), None, 1002),
            (Some(2), None, 1002),
            (Some(4), Some(1003), 1004),
            (None, None, u64::MAX),
        ] {
            let kept = kept(life);
            assert_eq!(kept.renew_at(), due, "{life:?}");
            assert!(!kept.is_over(end - 1), "{life:?}");
            assert_eq!(kept.is_over(end), life.is_some(), "{life:?}");
        }
    }

    #[test]
    fn a_refresh_token_stays_where_an_answer_has_none_and_what_is_wanted_until_a_sign_in() {
        let before = Kept { wanted: Scopes::parse("d"), ..kept(Some(1)) };
        let answer = TokenAnswer {
            access_token: Secret::new("next".to_owned()),
            token_type: TokenType::Bearer,
            expires_in: None,
            scopes: None,
            refresh_token: None,
            id_token: None,
        };
        let grantor = before.grantor.clone();
        let after =
            Kept::of(answer.clone(), grantor.clone(), &before.scopes, Some(&before), 2000);
        assert_eq!(after.refresh_token, before.refresh_token);
        assert_eq!((&after.scopes, &after.wanted), (&before.scopes, &before.wanted));
        let anew = Kept::of(answer, grantor, &Scopes::parse("x"), None, 2000);
        assert_eq!(anew.scopes.to_string(), "x", "those that were asked for");
        assert!(anew.wanted.is_empty());
    }

    #[test]
    fn registrations_belong_to_an_issuer_and_an_address_and_are_bounded() {
        let mut all = Registrations::default();
        all.add("https://one", "http://here/cb", &client("one"), None);
        all.add("https://two", "http://here/cb", &client("two"), Some(50));
        let all = Registrations::from_json(&all.to_json());
        let mut all = all.unwrap();
        let id = |all: &Registrations, issuer: &str, uri: &str, now| {
            all.client(issuer, uri, now).map(|it| it.id)
        };
        assert_eq!(id(&all, "https://one", "http://here/cb", 99), Some("one".to_owned()));
        assert_eq!(id(&all, "https://one", "http://there/cb", 99), None);
        assert_eq!(id(&all, "https://two", "http://here/cb", 49), Some("two".to_owned()));
        assert_eq!(id(&all, "https://two", "http://here/cb", 50), None, "its secret has ended");
        assert_eq!([(); 2].map(|()| all.sign_in_begins("https://one", "one")), [0, 1]);
        all.sign_in_finished("https://one", "one");
        assert_eq!(all.sign_in_begins("https://one", "one"), 0);
        all.forget("https://one", "two");
        assert_eq!(id(&all, "https://one", "http://here/cb", 99), Some("one".to_owned()));
        all.forget("https://one", "one");
        assert_eq!(id(&all, "https://one", "http://here/cb", 0), None);
        for n in 0..100 {
            all.add(&format!("https://{n}"), "http://here/cb", &client("x"), None);
        }
        assert_eq!(all.dynamic.len(), REGISTRATIONS_MAX);
        for (n, at) in ["127.0.0.1:40", "127.0.0.1:41", "10.0.0.1:42"].into_iter().enumerate() {
            let uri = format!("http://{at}{CALLBACK_PATH}");
            all.add(&format!("https://{n}"), &uri, &client("x"), None);
        }
        assert_eq!(all.loopback_ports(), [41, 40]);
        assert_eq!(all.issuer_of_configured("me", "https://a"), "https://a");
        assert_eq!(all.issuer_of_configured("me", "https://b"), "https://a");
    }
}
