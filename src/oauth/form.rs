//! Pure: `application/x-www-form-urlencoded`, written and read.

use std::fmt;

use super::unusable::Unusable;
use crate::limits::OAUTH_FORM_FIELDS_MAX;
use crate::secret::Secret;

/// The fields of a form or of a query, in their order.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Form(Vec<(String, String)>);

impl Form {
    /// A form without fields.
    pub fn new() -> Form {
        Form::default()
    }

    /// Adds a field.
    pub fn push(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), value.to_owned()));
    }

    /// Adds a field if it has a value.
    pub fn push_some(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.push(name, value);
        }
    }

    /// The form encoded, for a body.
    pub fn encoded(&self) -> Secret {
        Secret::new(self.query())
    }

    /// The form encoded, for a URL.
    pub fn query(&self) -> String {
        let mut out = String::new();
        for (name, value) in &self.0 {
            if !out.is_empty() {
                out.push('&');
            }
            encode_into(&mut out, name);
            out.push('=');
            encode_into(&mut out, value);
        }
        out
    }

    /// Reads a query or a body.
    ///
    /// # Errors
    /// If it has more than [`OAUTH_FORM_FIELDS_MAX`] fields, or if what is encoded is no UTF-8.
    pub fn parse(text: &str) -> Result<Form, Unusable> {
        let mut fields = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if fields.len() >= OAUTH_FORM_FIELDS_MAX {
                let what = format!("there are over {OAUTH_FORM_FIELDS_MAX} parameters");
                return Err(Unusable::new(what));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let no_text = || Unusable::new("a parameter is no UTF-8 text");
            let name = decode(name).ok_or_else(no_text)?;
            fields.push((name, decode(value).ok_or_else(no_text)?));
        }
        Ok(Form(fields))
    }

    /// The value of a field that stands there at most once.
    ///
    /// # Errors
    /// If it stands there more than once: "request and response parameters MUST NOT be included
    /// more than once" (RFC 6749 section 3.1).
    pub fn once(&self, name: &str) -> Result<Option<&str>, Unusable> {
        let mut found = self.0.iter().filter(|(it, _)| it == name);
        let value = found.next().map(|(_, value)| value.as_str());
        if found.next().is_some() {
            return Err(Unusable::new(format!("the parameter {name} is there twice")));
        }
        Ok(value)
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values are codes, secrets and tokens.
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// Encodes one name or value, as RFC 6749 appendix B says.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    encode_into(&mut out, text);
    out
}

fn encode_into(out: &mut String, text: &str) {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or_default();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            other => out.extend(['%', digit(other >> 4), digit(other & 15)]),
        }
    }
}

/// Decodes one name or value. A `%` that no two digits follow stands for itself, as browsers have
/// it. Returns nothing for what is no UTF-8.
fn decode(text: &str) -> Option<String> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match (first, after) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    rest = after;
                }
                (None, _) | (_, None) => out.push(b'%'),
            },
            (other, _) => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}
