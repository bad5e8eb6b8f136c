//! What lists show: names, pages, views, pins, and what is listed while servers come and go.

pub(crate) mod first_lists;
pub(crate) mod late_names;
pub(crate) mod list_changes;
pub(crate) mod malformed_lists;
pub(crate) mod names;
pub(crate) mod owned_names;
pub(crate) mod pagination;
pub(crate) mod pins;
pub(crate) mod prompts;
pub(crate) mod reasons;
pub(crate) mod resources;
pub(crate) mod shared_pages;
pub(crate) mod stale;
pub(crate) mod views;
