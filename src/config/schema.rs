//! The JSON Schema of `config.json`, for editors. The tests hold it to the code: every key, every
//! default, every range, and what is judged otherwise than by the program.

/// JSON Schema, draft 2020-12.
pub const SCHEMA: &str = include_str!("schema.json");
