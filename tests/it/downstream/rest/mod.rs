//! Tools as plain JSON, and the document that describes it.

pub(crate) mod dialect;
pub(crate) mod litellm;
pub(crate) mod openapi;
