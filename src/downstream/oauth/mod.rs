//! OAuth 2 at the doors: the gateway as a protected resource.

pub(super) mod protected_resource;
