//! What is legal in one revision of the protocol and not in another, and what the gateway makes of
//! it where a client and a server speak different ones. Made from the changelogs and from
//! comparing the definitions of all `schema.json`, revision by revision. "Older" and "newer" are
//! seen from the revision that is named. No schema forbids members that it does not know
//! (`additionalProperties` is nowhere false), so a member that only says more passes unchanged.
//!
//! Tools, results and content:
//!
//! | in which revisions | what | towards the others |
//! |---|---|---|
//! | 2026-07-28 | `outputSchema` of any type, `structuredContent` any value; else both are an object's | both are wrapped alike, `{"result": …}`, with references inside the schema rewritten (`output_schema.rs`); a value without any text beside it is told as text too |
//! | 2026-07-28 | properties of a schema may be `true` and `false`; else they are objects | lists have objects for clients of all revisions |
//! | from 2025-03-26 | content `audio` (tools, prompts, sampling) | a text that says so (`for_revision.rs`) |
//! | from 2025-06-18 | content `resource_link` (tools, prompts) | a text with its title and URI |
//! | from 2025-06-18 | `structuredContent`, `outputSchema`, `title`, `_meta` of items, `lastModified` | pass: they say more |
//! | from 2025-03-26 | annotations of tools, `message` of progress | pass |
//! | from 2025-11-25 | `icons`, `websiteUrl`, `theme` | pass |
//! | 2025-11-25 | `execution.taskSupport` of a tool | passes: without tasks it says nothing |
//! | 2026-07-28 | `resultType`, `_meta` `serverInfo` of results | taken out of a server's, added for a client |
//! | 2026-07-28 | `ttlMs`, `cacheScope` of lists and reads | taken out of reads, added with what is known; lists are the gateway's own |
//! | 2026-07-28 | at most 100 values of a completion | the first 100, with `hasMore` |
//!
//! Requests of clients:
//!
//! | in which revisions | what | towards the others |
//! |---|---|---|
//! | up to 2025-11-25 | `initialize`, `notifications/initialized`, `ping` | the doors answer; upstream `server/discover` and `_meta` |
//! | up to 2025-11-25 | `logging/setLevel` | `_meta` `logLevel` of each request, and back |
//! | up to 2025-11-25 | `resources/subscribe`, `resources/unsubscribe`, GET streams, `Last-Event-ID` | `subscriptions/listen`, and back |
//! | up to 2025-11-25 | `notifications/roots/list_changed` | told to servers of sessions alone |
//! | 2025-03-26 | batches | refused in other revisions, as they say |
//! | from 2025-06-18 | `context` of a completion, `title` of a reference | pass: they say more |
//! | 2025-11-25 | `task` of a request | taken out of requests of clients of other revisions: a server that has tasks would answer with one |
//! | 2025-11-25 | `tasks/get`, `tasks/result`, `tasks/list`, `tasks/cancel`, the capability `tasks` | method not found; the capability is not shown across revisions |
//! | 2026-07-28 | `inputResponses`, `requestState` | the gateway's own towards servers; taken out of requests of sessions |
//! | 2026-07-28 | `extensions` in capabilities | not shown across eras: they are negotiated within one |
//! | from 2025-03-26 | the capability `completions` | passes |
//!
//! Questions of servers:
//!
//! | in which revisions | what | towards the others |
//! |---|---|---|
//! | up to 2025-11-25 | requests of servers during a call | `input_required` (2026-07-28), and back |
//! | from 2025-06-18 | `elicitation/create` | refused for the client, which does not declare it |
//! | from 2025-11-25 | `mode` `url` | refused for clients that do not declare it |
//! | 2025-11-25 | `elicitationId`, required with a URL, and `notifications/elicitation/complete` | one is made for a server of 2026-07-28, and the end is told when the retried request is answered with something else; for clients of 2026-07-28 both are left out |
//! | 2025-11-25 | error -32042, a URL must be visited first | -32603 for clients of 2026-07-28; passes to older ones |
//! | from 2025-11-25 | titled choices (`oneOf` with `const` and `title`) in a form | `enum` and `enumNames` |
//! | from 2025-11-25 | choices of several (`array`) in a form | an older client's answer cannot hold them: not asked for where they may be left out, else refused with -32602 (`cancel` for a server without sessions) |
//! | from 2025-11-25 | `default` of texts, numbers and choices in a form | passes |
//! | from 2025-11-25 | several blocks in a message for sampling | a message each, in their order |
//! | from 2025-11-25 | `tools` and `toolChoice` in sampling | refused for clients that do not declare `sampling.tools` |
//! | from 2025-11-25 | `tool_use`, `tool_result` in messages | refused with -32602 for older clients |
//! | 2026-07-28 | `structuredContent` of a `tool_result`, `outputSchema` of such tools, of any type | wrapped as above |
//! | 2025-11-25 | `task` of a question | taken out for clients of other revisions |
//! | up to 2025-11-25 | an error as the answer to a question | logged with its text; to a server of 2026-07-28 `cancel` for an elicitation, else the call fails |
//! | from 2025-11-25 | lists of texts in the answer to a form, several blocks in an answer to sampling | pass: only who was asked for them gives them |
//!
//! Notifications and errors of servers:
//!
//! | in which revisions | what | towards the others |
//! |---|---|---|
//! | 2025-11-25 | `notifications/tasks/status` | not passed on |
//! | 2026-07-28 | `notifications/subscriptions/acknowledged`, `subscriptionId` | the gateway's own |
//! | 2026-07-28 | `notifications/message` only where a request asks for it | held to for clients of it; a level is asked for for sessions |
//! | up to 2025-11-25 | -32002, no such resource | -32602 with the URI, and back |
//! | 2026-07-28 | -32020 (headers), -32022 (revision) | the gateway's own affair towards a server |
//! | 2026-07-28 | -32021, a capability is missing | passes: a number among those that servers may choose |
//! | up to 2025-11-25 | `requestId` of a cancellation may be left out in 2025-11-25 | the gateway's own always has it |
//!
//! Transports: `MCP-Protocol-Version` from 2025-06-18, `Mcp-Method`, `Mcp-Name` and `Mcp-Param-*`
//! in 2026-07-28, `Mcp-Session-Id` up to 2025-11-25; the doors and the links hold to each. What
//! `schema.json` of 2025-11-25 has as integers (`minimum`, `default` of a number) are numbers: its
//! successor says that this was the generator's mistake.
//!
//! What a revision has is asked of [`super::revision::Revision`] by name; [`super::for_revision`]
//! adapts what passes through, [`super::output_schema`] schemas, the two eras' readers the rest.

/// Rows of the tables above.
#[cfg(test)]
pub(crate) const N_ROWS: usize = 44;

#[cfg(test)]
mod tests {
    #[test]
    fn every_row_says_what_becomes_of_it() {
        let source = include_str!("revision_differences.rs");
        let rows: Vec<&str> = source
            .lines()
            .filter_map(|line| line.strip_prefix("//! | "))
            .filter(|row| !row.starts_with("in which"))
            .collect();
        assert_eq!(rows.len(), super::N_ROWS);
        for row in rows {
            let cells: Vec<&str> = row.trim_end_matches('|').split(" | ").collect();
            assert!(cells.len() == 3 && cells.iter().all(|cell| cell.len() > 3), "{row}");
        }
    }
}
