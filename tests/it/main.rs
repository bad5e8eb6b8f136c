//! The one integration binary.

mod event_stream;
mod http_engine;
mod http_hostile;
