//! Pure: a value that is never printed.

/// A value that must never be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    value: String,
    is_told: bool,
}

impl Secret {
    /// Wraps a value.
    pub fn new(value: String) -> Secret {
        Secret { value, is_told: false }
    }

    /// Wraps a value that stands where secrets stand and is none, such as a user's name: texts that
    /// hold it are shown as they are.
    pub fn told(value: String) -> Secret {
        Secret { value, is_told: true }
    }

    /// True if texts that hold the value are shown as they are.
    pub fn is_told(&self) -> bool {
        self.is_told
    }

    /// The value, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.value
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}
