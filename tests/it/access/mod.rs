//! Who may come in, what a key may use and take, and what it hears of the rest.

pub(crate) mod behind_proxies;
pub(crate) mod hidden_servers;
pub(crate) mod keys;
pub(crate) mod quotas;
