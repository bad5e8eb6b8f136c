//! Levels of log messages (2025-11-25, server/utilities/logging, Log Levels).

/// A level, the least important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// `debug`
    Debug,
    /// `info`
    Info,
    /// `notice`
    Notice,
    /// `warning`
    Warning,
    /// `error`
    Error,
    /// `critical`
    Critical,
    /// `alert`
    Alert,
    /// `emergency`
    Emergency,
}

impl LogLevel {
    /// Every level, least important first.
    pub const ALL: [LogLevel; 8] = [
        Self::Debug,
        Self::Info,
        Self::Notice,
        Self::Warning,
        Self::Error,
        Self::Critical,
        Self::Alert,
        Self::Emergency,
    ];

    /// The level for a client that has set none, where another client has.
    pub const USUAL: LogLevel = LogLevel::Info;

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Alert => "alert",
            Self::Emergency => "emergency",
        }
    }

    /// The level of that word.
    pub fn parse(word: &str) -> Option<LogLevel> {
        Self::ALL.into_iter().find(|level| level.as_str() == word)
    }

    /// The level of a message, from the parameters of `notifications/message`.
    pub fn of_message(params: &str) -> Option<LogLevel> {
        let fields = super::raw::RawObject::parse(params).ok()?;
        LogLevel::parse(&fields.string("level").ok()??)
    }
}

#[cfg(test)]
mod tests {
    use super::LogLevel;

    #[test]
    fn levels_have_their_order_and_their_words() {
        assert!(LogLevel::Debug < LogLevel::Emergency);
        for level in LogLevel::ALL {
            assert_eq!(LogLevel::parse(level.as_str()), Some(level));
        }
        assert_eq!(
            LogLevel::of_message(r#"{"level":"alert","data":1}"#),
            Some(LogLevel::Alert)
        );
    }
}
