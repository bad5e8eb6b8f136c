//! The support code proved against itself.

pub(crate) mod markdown;
pub(crate) mod sessions;
pub(crate) mod stateless;
pub(crate) mod support;
