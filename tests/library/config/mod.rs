//! Configurations as the library reads them.

pub(crate) mod files;
pub(crate) mod schema;
