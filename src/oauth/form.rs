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

    /// True if the form has a field of the name of this encoded pair.
    pub fn has_name_of(&self, pair: &str) -> bool {
        let name = decode(pair.split_once('=').map_or(pair, |(name, _)| name));
        name.is_some_and(|name| self.0.iter().any(|(it, _)| *it == name))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_written_as_browsers_write_it_and_read_again() {
        let mut form = Form::new();
        assert_eq!(form.query(), "");
        form.push("a b", "c&d=e+f");
        form.push("é", "");
        form.push_some("no", None);
        form.push_some("yes", Some("-._~\0\u{ff}"));
        assert_eq!(form.query(), "a+b=c%26d%3De%2Bf&%C3%A9=&yes=-._~%00%C3%BF");
        assert_eq!(Form::parse(&form.query()), Ok(form.clone()));
        assert_eq!(form.encoded().expose(), form.query());
        assert!(!format!("{form:?}").contains("c&d"));
    }

    #[test]
    fn every_character_comes_back() {
        let text: String = (0..=0x2ff).filter_map(char::from_u32).collect();
        let mut form = Form::new();
        form.push(&text, &text);
        assert_eq!(Form::parse(&form.query()), Ok(form));
    }

    #[test]
    fn a_query_of_others_is_read_within_bounds() {
        let once = |text: &str, name: &str| {
            let form = Form::parse(text)?;
            form.once(name).map(|it| it.map(str::to_owned))
        };
        let is = |value: &str| Ok(Some(value.to_owned()));
        assert_eq!(once("a=1&b=2", "b"), is("2"));
        assert_eq!(once("&&a=1&", "a"), is("1"));
        assert_eq!(once("a", "a"), is(""));
        assert_eq!(once("a=b=c", "a"), is("b=c"));
        assert_eq!(once("%61=%7a%7A", "a"), is("zz"));
        assert_eq!(once("a=%&b=%4&c=%zz", "a"), is("%"));
        assert_eq!(once("a=%&b=%4&c=%zz", "b"), is("%4"));
        assert_eq!(once("a=%&b=%4&c=%zz", "c"), is("%zz"));
        assert_eq!(once("a=1", "b"), Ok(None));
        assert!(once("a=1&%61=2", "a").is_err());
        assert!(once("a=%ff", "a").is_err());
        assert!(once(&"a=1&".repeat(OAUTH_FORM_FIELDS_MAX), "b").is_ok());
        assert!(once(&"a=1&".repeat(OAUTH_FORM_FIELDS_MAX + 1), "b").is_err());
        let whole = "state=%C3%A9&code=a%20b";
        for at in 0..whole.len() {
            // Whatever is cut, it is read or refused.
            drop(Form::parse(&whole[..at]));
        }
    }
}
