//! The same types on tiny_http.
