//! The one integration binary.

#[cfg(test)]
mod upstream_links;
