//! Who asks, and with whose credentials: users who sign in at the gateway, and sign-in at servers.

mod asked_to_sign_in;
mod login_command;
mod over_http_sse;
mod per_user;
pub(crate) mod resource_server;
mod several_processes;
mod sign_in_pages;
mod signing_users_out;
mod upstream_grants;
mod upstream_sign_in;
mod waiting_for_sign_in;
