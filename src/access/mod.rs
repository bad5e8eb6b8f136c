//! Pure: access decisions: authentication, policies, origins, proxies and quotas. No socket, no
//! clock, no log.

pub mod authenticate;
pub mod glob;
pub mod origin;
pub mod policy;
pub mod proxies;
pub mod quota;
pub mod user;
