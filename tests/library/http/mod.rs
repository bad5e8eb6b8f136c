//! The HTTP engine on a real port.

#[cfg(not(feature = "tiny_http"))]
pub(crate) mod bounds_named;
#[cfg(not(feature = "tiny_http"))]
pub(crate) mod engine;
#[cfg(not(feature = "tiny_http"))]
pub(crate) mod hostile;
#[cfg(feature = "tiny_http")]
pub(crate) mod tiny;
