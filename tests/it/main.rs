//! The one integration binary.

mod http_engine;
mod http_hostile;
