//! The JSON Schema of `config.json`, for editors. Tests compare it with the code: every key,
//! every default, every range, and values that it judges otherwise than the program.

/// JSON Schema, draft 2020-12.
pub const SCHEMA: &str = include_str!("schema.json");
