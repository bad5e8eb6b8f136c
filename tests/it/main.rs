//! The one integration binary.

mod cli;
mod config_files;
