//! The one integration binary.

mod config_files;
