//! The one integration binary.

#[cfg(not(feature = "tiny_http"))]
mod event_stream;
#[cfg(not(feature = "tiny_http"))]
mod http_engine;
#[cfg(not(feature = "tiny_http"))]
mod http_hostile;
#[cfg(feature = "tiny_http")]
mod http_tiny;
