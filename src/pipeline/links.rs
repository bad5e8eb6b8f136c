//! Links in results: changed so that a request for the URI comes back to the server that gave it.

use super::{CallOptions, Pipeline};
use crate::access::policy::Scope;
use crate::budget::{BUFFERED_BYTES_FULL, room_for_copy};
use crate::catalogue::Steps;
use crate::catalogue::name::of_server;
use crate::error::CallError;
use crate::limits::{
    LINK_LOOKED_UP_BYTES_MAX, LINKS_LOOKED_UP_MAX, LOOK_UP_STEPS_MAX, RESULT_LINKS_STEPS_MAX,
};
use crate::protocol::links;
use crate::protocol::method::Method;
use crate::protocol::raw::Raw;
use crate::protocol::server_name::ServerName;

impl Pipeline {
    /// A server's result for a client that sees several servers: each link has the form that
    /// leads back to that server. `asked` and `own` are the requested name or URI, in the
    /// client's and in the server's form, in JSON. None where the result needs no change.
    ///
    /// # Errors
    /// The budget of bytes has no room for the changed form.
    pub(super) fn led_back(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        server: &ServerName,
        method: Method,
        names: (&str, &str),
        result: &Raw,
    ) -> Result<Option<Raw>, CallError> {
        let Ok(_room) = room_for_copy(result) else {
            return Err(CallError::Overloaded { what: BUFFERED_BYTES_FULL.to_owned() });
        };
        Ok(self.led_back_text(scope, options, server, method, names, result))
    }

    fn led_back_text(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        server: &ServerName,
        method: Method,
        (asked, own): (&str, &str),
        result: &Raw,
    ) -> Option<Raw> {
        let text = match method {
            Method::ToolsCall | Method::PromptsGet | Method::TasksResult | Method::TasksGet => {
                if !links::may_hold(result.get()) || !self.sees_several(scope) {
                    return None;
                }
                let mut n_links = 0;
                let mut steps = Steps::new(RESULT_LINKS_STEPS_MAX);
                let mut instead = |uri: &str| {
                    n_links += 1;
                    let is_looked_up =
                        n_links <= LINKS_LOOKED_UP_MAX && uri.len() <= LINK_LOOKED_UP_BYTES_MAX;
                    let leads = links::is_data(uri)
                        || if is_looked_up {
                            steps.part(LOOK_UP_STEPS_MAX, |steps| {
                                self.leads_to(scope, options, server, uri, steps)
                            })
                        } else {
                            links::is_of_the_web(uri)
                        };
                    // The form with the server's NAME is never wrong, only longer, unless a
                    // client fetches the URI by itself.
                    (!leads).then(|| of_server(server, uri))
                };
                links::in_result(result.get(), &mut instead)
            }
            // The URI that was read is the requested one; any other URI in the contents stays the
            // server's.
            Method::ResourcesRead if asked != own => {
                let asked = serde_json::from_str::<String>(asked).ok()?;
                let own = serde_json::from_str::<String>(own).ok()?;
                if asked == own {
                    return None;
                }
                links::in_contents(result.get(), &mut |uri| (uri == own).then(|| asked.clone()))
            }
            Method::ResourcesRead
            | Method::CompletionComplete
            | Method::Initialize
            | Method::Ping
            | Method::ToolsList
            | Method::PromptsList
            | Method::ResourcesList
            | Method::ResourcesTemplatesList
            | Method::ResourcesSubscribe
            | Method::ResourcesUnsubscribe
            | Method::LoggingSetLevel
            | Method::TasksList
            | Method::TasksCancel
            | Method::TasksUpdate
            | Method::ServerDiscover
            | Method::SubscriptionsListen => None,
        };
        text.map(|text| result.rewritten(text))
    }

    fn sees_several(&self, scope: &Scope) -> bool {
        scope.only.is_none() && self.servers(scope).len() > 1
    }

    /// True if a read of a server's URI comes to that server, or to none because a client fetches
    /// it by itself. Where the steps are too few, that is not known.
    fn leads_to(
        &self,
        scope: &Scope,
        options: CallOptions<'_>,
        server: &ServerName,
        uri: &str,
        steps: &mut Steps,
    ) -> bool {
        match self.owner_by_uri(scope, options, uri, steps) {
            Ok((owner, own, _)) if !steps.is_cut() => owner == *server && own == uri,
            Ok(_) | Err(_) => links::is_of_the_web(uri),
        }
    }
}
