//! Differences between the protocol's revisions, and the gateway's translation of each where a
//! client and a server speak different revisions. The table is made from the changelogs and from
//! comparing the definitions of all `schema.json`, revision by revision. "Older" and "newer" are
//! seen from the revision that is named. The last column names the tests that hold a row. No
//! schema forbids unknown members (`additionalProperties` is nowhere false), so a member that
//! only adds information passes unchanged.
//!
//! Tools, results and content:
//!
//! | in which revisions | what | towards the others | held by |
//! |---|---|---|---|
//! | 2026-07-28 | `outputSchema` of any type, `structuredContent` any value; else both are an object's | both are wrapped alike, `{"result": …}`, with references inside the schema rewritten (`output_schema.rs`); a value without any text beside it is told as text too | `structured_results_of_any_type_are_wrapped_for_clients_of_sessions` |
//! | 2026-07-28 | properties of a schema may be `true` and `false`; else they are objects | lists have objects for clients of all revisions | `every_revision_s_lists_hold` |
//! | from 2025-03-26 | content `audio` (tools, prompts, sampling) | a text that says so (`for_revision.rs`) | `content_of_later_revisions_becomes_text` |
//! | from 2025-06-18 | content `resource_link` (tools, prompts) | a text with its title and URI | `content_of_later_revisions_becomes_text` |
//! | from 2025-06-18 | `structuredContent`, `outputSchema`, `title`, `_meta` of items, `lastModified` | pass: they say more | `listed_tools_are_untouched_but_for_their_name` |
//! | from 2025-03-26 | annotations of tools, `message` of progress | pass | `every_revision_s_lists_hold` |
//! | from 2025-11-25 | `icons`, `websiteUrl`, `theme` | pass | `listed_tools_are_untouched_but_for_their_name` |
//! | 2025-11-25 | `execution.taskSupport` of a tool | passes: without tasks it says nothing | `listed_tools_are_untouched_but_for_their_name` |
//! | 2026-07-28 | `resultType`, `_meta` `serverInfo` of results | taken out of a server's, added for a client | `every_result_says_what_it_is_and_how_long_it_is_fresh`, `legacy_clients_see_nothing_of_it` |
//! | 2026-07-28 | `ttlMs`, `cacheScope` of lists and reads | taken out of reads, added with what is known; lists are the gateway's own | `a_read_carries_what_its_server_said`, `legacy_clients_see_nothing_of_it` |
//! | 2026-07-28 | at most 100 values of a completion | the first 100, with `hasMore` | `a_completion_has_no_more_values_than_its_revision_allows` |
//!
//! Requests of clients:
//!
//! | in which revisions | what | towards the others | held by |
//! |---|---|---|---|
//! | up to 2025-11-25 | `initialize`, `notifications/initialized`, `ping` | the gateway answers; upstream `server/discover` and `_meta` | `an_initialize_of_any_revision`, `discovery_says_what_the_gateway_is_and_what_is_behind_it` |
//! | up to 2025-11-25 | `logging/setLevel` | `_meta` `logLevel` of each request, and back | `the_lowest_wanted_level_is_set_upstream`, `a_log_message_goes_to_the_only_call_that_wants_any` |
//! | up to 2025-11-25 | `resources/subscribe`, `resources/unsubscribe`, GET streams, `Last-Event-ID` | `subscriptions/listen`, and back | `a_resource_is_subscribed_to_once_for_all_clients_of_both_eras` |
//! | up to 2025-11-25 | `notifications/roots/list_changed` | told to servers of sessions alone | `changed_roots_are_told_on_the_clients_own_session_alone` |
//! | 2025-03-26 | batches | refused in other revisions, as they say | `batches_belong_to_one_revision` |
//! | from 2025-06-18 | `context` of a completion, `title` of a reference | pass: they say more | `every_transport_and_door_carries_prompts_and_completion` |
//! | 2025-11-25 | `task` of a request | taken out of requests of clients of other revisions: a server that has tasks would answer with one | `a_task_is_asked_for_in_the_revision_that_has_them_alone` |
//! | 2025-11-25 | `tasks/get`, `tasks/result`, `tasks/list`, `tasks/cancel`, the capability `tasks` | method not found; the capability is not shown across revisions | `revisions_without_tasks_have_none` |
//! | 2026-07-28 | `inputResponses`, `requestState` | the gateway's own towards servers; taken out of requests of sessions | `what_only_a_retry_carries_is_not_taken_from_a_session` |
//! | 2026-07-28 | `extensions` in capabilities | not shown across eras: they are negotiated within one | `discovery_offers_what_any_of_them_has` |
//! | from 2025-03-26 | the capability `completions` | passes | `every_revision_opens_a_session_and_serves` |
//!
//! Questions of servers:
//!
//! | in which revisions | what | towards the others | held by |
//! |---|---|---|---|
//! | up to 2025-11-25 | requests of servers during a call | `input_required` (2026-07-28), and back | `both_ask_clients_of_both_eras` |
//! | from 2025-06-18 | `elicitation/create` | refused for the client, which does not declare it | `a_client_that_lacks_the_capability_is_not_asked` |
//! | from 2025-11-25 | `mode` `url` | refused for clients that do not declare it | `url_mode_is_refused_for_a_client_that_has_forms_alone` |
//! | 2025-11-25 | `elicitationId`, required with a URL, and `notifications/elicitation/complete` | one is made for a server of 2026-07-28, and the end is told when the retried request is answered with something else; for clients of 2026-07-28 both are left out | `the_elicitation_of_a_url_has_an_id_and_an_end_where_its_revision_wants_them`, `a_stateless_client_has_neither_the_id_nor_the_end` |
//! | 2025-11-25 | error -32042, a URL must be visited first | -32603 for clients of 2026-07-28; passes to older ones | `errors_of_earlier_revisions_are_not_given_on` |
//! | from 2025-11-25 | titled choices (`oneOf` with `const` and `title`) in a form | `enum` and `enumNames` | `a_form_has_choices_as_its_client_s_revision_has_them` |
//! | from 2025-11-25 | choices of several (`array`) in a form | an older client's answer cannot hold them: not asked for where they may be left out, else refused with -32602 (`cancel` for a server without sessions) | `a_form_has_choices_as_its_client_s_revision_has_them` |
//! | from 2025-11-25 | `default` of texts, numbers and choices in a form | passes | `titled_choices_have_their_titles_beside_them_where_there_are_no_others` |
//! | from 2025-11-25 | several blocks in a message for sampling | a message each, in their order | `messages_for_sampling_are_those_of_the_client_s_revision` |
//! | from 2025-11-25 | `tools` and `toolChoice` in sampling | refused for clients that do not declare `sampling.tools` | `messages_for_sampling_are_those_of_the_client_s_revision` |
//! | from 2025-11-25 | `tool_use`, `tool_result` in messages | refused with -32602 for older clients | `tools_in_sampling_have_structured_results_of_the_revision` |
//! | 2026-07-28 | `structuredContent` of a `tool_result`, `outputSchema` of such tools, of any type | wrapped as above | `messages_for_sampling_are_those_of_the_client_s_revision` |
//! | 2025-11-25 | `task` of a question | taken out for clients of other revisions | `an_elicitation_has_what_its_revision_has` |
//! | up to 2025-11-25 | an error as the answer to a question | logged with its text; to a server of 2026-07-28 `cancel` for an elicitation, else the call fails | `an_error_as_an_answer_is_told_to_operators`, `a_legacy_client_s_refusal_ends_the_call` |
//! | from 2025-11-25 | lists of texts in the answer to a form, several blocks in an answer to sampling | pass: only who was asked for them gives them | `answers_pass_as_they_were_written` |
//!
//! Notifications and errors of servers:
//!
//! | in which revisions | what | towards the others | held by |
//! |---|---|---|---|
//! | 2025-11-25 | `notifications/tasks/status` | not passed on | `notifications_of_one_revision_are_heard_in_that_alone` |
//! | 2026-07-28 | `notifications/subscriptions/acknowledged`, `subscriptionId` | the gateway's own | `the_acknowledgement_comes_first_and_names_what_is_honoured` |
//! | 2026-07-28 | `notifications/message` only where a request asks for it | held to for clients of it; a level is asked for for sessions | `a_log_message_goes_to_the_only_call_that_wants_any` |
//! | up to 2025-11-25 | -32002, no such resource | -32602 with the URI, and back | `unknown_resources_have_the_code_of_the_client_s_era` |
//! | 2026-07-28 | -32020 (headers), -32022 (revision) | the gateway's own affair towards a server | `a_header_mismatch_lets_the_tools_be_listed_again` |
//! | 2026-07-28 | -32021, a capability is missing | passes: a number among those that servers may choose | `a_client_that_lacks_the_capability_is_told_so` |
//! | up to 2025-11-25 | `requestId` of a cancellation may be left out in 2025-11-25 | the gateway's own always has it | `a_withdrawn_question_is_withdrawn_from_the_client` |
//!
//! Transports: `MCP-Protocol-Version` from 2025-06-18, `Mcp-Method`, `Mcp-Name` and `Mcp-Param-*`
//! in 2026-07-28, `Mcp-Session-Id` up to 2025-11-25; the gateway keeps to each, towards clients
//! and towards servers. Members that `schema.json` of 2025-11-25 has as integers (`minimum`,
//! `default` of a number) are numbers: the next revision says that this was the generator's
//! mistake.
//!
//! [`super::revision::Revision`] has a method for each feature of a revision;
//! [`super::for_revision`] adapts messages, [`super::output_schema`] schemas, and the two eras'
//! readers adapt the rest.

#[cfg(test)]
mod tests {
    #[test]
    fn every_row_says_what_becomes_of_it_and_what_holds_it() {
        let source = include_str!("revision_differences.rs");
        let rows: Vec<&str> = source
            .lines()
            .filter_map(|line| line.strip_prefix("//! | "))
            .filter(|row| !row.starts_with("in which"))
            .collect();
        assert!(rows.len() > 40, "{}", rows.len());
        for row in rows {
            let cells: Vec<&str> = row.trim_end_matches('|').split(" | ").collect();
            assert!(cells.len() == 4 && cells.iter().all(|cell| cell.len() > 3), "{row}");
        }
    }
}
