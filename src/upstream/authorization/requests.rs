//! What requests carry to a server, and how its refusals are read. Read this first.

use std::sync::Arc;
use std::time::Instant;

use ureq::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use crate::error::Stage;
use crate::oauth::challenge::TokenChallenge;
use crate::oauth::dpop::{self, ProofRequest};
use crate::oauth::scope::Scopes;
use crate::oauth::web_url::WebUrl;
use crate::upstream::failure::{Failure, FailureKind, Unauthorized};
use crate::upstream::http_client::HttpResponse;
use crate::upstream::http_client::credentials::{Demand, RequestCredentials, TokenNumber};
use crate::wait::Wait;

use super::refusal::{Verdict, verdict};
use super::server_authorization::{Carried, ServerAuthorization};
use super::want::Want;

/// Error codes of challenges (RFC 6750, section 3.1; RFC 9449, section 9).
const INSUFFICIENT_SCOPE: &str = "insufficient_scope";
const USE_DPOP_NONCE: &str = "use_dpop_nonce";

const DPOP: HeaderName = HeaderName::from_static("dpop");
const DPOP_NONCE: &str = "dpop-nonce";

impl RequestCredentials for ServerAuthorization {
    fn token(&self, wait: &Arc<Wait>) -> Result<Option<TokenNumber>, Failure> {
        Ok(self.number(wait)?.map(TokenNumber))
    }

    fn write(
        &self,
        _: TokenNumber,
        method: &Method,
        uri: &Uri,
        headers: &mut HeaderMap,
    ) -> Result<(), Failure> {
        // If it is another one by now, that is the better one.
        let Some(Carried { kept, key, nonce }) = self.carried() else { return Ok(()) };
        let unusable =
            |what: String| Failure::new(FailureKind::Nonsense, Stage::Authorization, what);
        let secret = |text: &str| {
            let value = HeaderValue::from_str(text);
            let mut value = value
                .map_err(|_| unusable("the access token fits into no header".to_owned()))?;
            value.set_sensitive(true);
            Ok::<_, Failure>(value)
        };
        if let Some(key) = key {
            let proof = WebUrl::parse(&uri.to_string()).and_then(|url| {
                let request = ProofRequest {
                    method: method.as_str(),
                    url: &url,
                    now: self.shared.now(),
                    access_token: Some(&kept.access_token),
                    nonce: nonce.as_deref(),
                };
                dpop::proof(&key, key.choose_algorithm(None)?, &request, &self.shared.random)
            });
            let proof = proof.map_err(|error| unusable(error.to_string()))?;
            headers.insert(DPOP, secret(proof.expose())?);
        }
        let scheme = kept.token_type.as_str();
        let value = secret(&format!("{scheme} {}", kept.access_token.expose()))?;
        headers.insert(AUTHORIZATION, value);
        Ok(())
    }

    fn demand(&self, token: Option<TokenNumber>, answer: &HttpResponse<'_>) -> Option<Demand> {
        let nonce = answer.header(DPOP_NONCE);
        if let Some(nonce) = nonce {
            self.heard_nonce(nonce);
        }
        let verdict = verdict(answer.status);
        if verdict == Verdict::Passed {
            let mut state = self.lock();
            if token == Some(TokenNumber(state.number)) {
                state.refusals.passed();
            }
            return None;
        }
        let fields = answer.headers.get_all(WWW_AUTHENTICATE).into_iter();
        let challenge = TokenChallenge::read(fields.filter_map(|it| it.to_str().ok()));
        let error = challenge.as_ref().and_then(|it| it.error.clone());
        match verdict {
            Verdict::Passed => None,
            Verdict::Unauthorized
                if error.as_deref() == Some(USE_DPOP_NONCE) && token.is_some() =>
            {
                nonce.map(|_| Demand::Nonce)
            }
            Verdict::Unauthorized => {
                if challenge.is_some() {
                    self.lock().challenge = challenge;
                }
                Some(Demand::Token)
            }
            Verdict::Forbidden if error.as_deref() == Some(INSUFFICIENT_SCOPE) => {
                let wanted = challenge.and_then(|it| it.scope).unwrap_or_default();
                let scopes = Scopes::parse(&wanted);
                let state = self.lock();
                let kept = state.kept.as_ref().filter(|_| token.is_some())?;
                // A token that has these scopes, or was asked for with them a short time ago, will
                // not be better next time.
                let is_in_vain = kept.scopes.covers(&scopes)
                    || state.step_ups.were_denied(&scopes, Instant::now());
                (!is_in_vain).then_some(Demand::Scopes(wanted))
            }
            Verdict::Forbidden => None,
        }
    }

    fn satisfy(
        &self,
        demand: &Demand,
        token: Option<TokenNumber>,
        wait: &Arc<Wait>,
    ) -> Result<(), Failure> {
        let number = token.map(|token| token.0);
        match demand {
            Demand::Nonce => Ok(()),
            Demand::Token => self.another(number, &Want::Refused(number), wait),
            Demand::Scopes(scopes) => {
                let still_wanted =
                    self.lock().still_wanted(self.token_source(), scopes, Instant::now());
                if let Some(reason) = still_wanted {
                    return Err(self.failure(reason.kind, &reason.why));
                }
                self.may_step_up(scopes)
                    .map_err(|why| self.failure(Unauthorized::Unavailable, &why))?;
                self.another(number, &Want::Scopes(scopes.clone()), wait)
            }
        }
    }
}
