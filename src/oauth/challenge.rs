//! Pure: `WWW-Authenticate`, read and written (RFC 9110 section 11.6.1, RFC 6750 section 3, RFC
//! 9728 section 5.1).

use super::token::TokenType;
use crate::limits::{
    CHALLENGE_PARAMETERS_MAX, CHALLENGES_MAX, OAUTH_TEXT_BYTES_MAX, OAUTH_URL_BYTES_MAX,
};

/// One challenge of a `WWW-Authenticate` field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme as written.
    pub scheme: String,
    /// The parameters with their names in lower case, without quotes and escapes.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The value of a parameter, the first one where it is there twice. `name` is in lower case.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }
}

/// Reads the challenges of all fields of one answer, and skips what is none. Parameters without
/// quotes may have any characters but spaces and commas, and commas may be missing between
/// parameters: servers write both.
pub fn read<'a>(fields: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    for field in fields {
        read_field(field, &mut challenges);
    }
    challenges
}

fn read_field(field: &str, challenges: &mut Vec<Challenge>) {
    let mut cursor = Cursor { rest: field };
    // Parameters before the first scheme of a field are nobody's.
    let mut current: Option<Challenge> = None;
    loop {
        cursor.skip(|c| c == ',' || is_space(c));
        if cursor.rest.is_empty() {
            break;
        }
        let name = cursor.take(is_token_char);
        if name.is_empty() {
            // No name begins here: on to the next element.
            cursor.skip_element();
            continue;
        }
        if let Some(parameter) = cursor.parameter(name) {
            if let (Some(challenge), Value::Text(value)) = (&mut current, parameter) {
                add(challenge, name, value);
            }
            continue;
        }
        challenges.extend(current.take());
        if challenges.len() >= CHALLENGES_MAX {
            return;
        }
        current = Some(Challenge { scheme: name.to_owned(), parameters: Vec::new() });
        cursor.skip_token68();
    }
    challenges.extend(current);
}

fn add(challenge: &mut Challenge, name: &str, value: String) {
    let is_fit = name.len() <= OAUTH_TEXT_BYTES_MAX && !value.contains(char::is_control);
    if is_fit && challenge.parameters.len() < CHALLENGE_PARAMETERS_MAX {
        challenge.parameters.push((name.to_ascii_lowercase(), value));
    }
}

/// The value behind a name and `=`.
enum Value {
    Text(String),
    /// A quoted text without its end.
    Cut,
}

struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, is_wanted: fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !is_wanted(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn skip(&mut self, is_skipped: fn(char) -> bool) {
        self.rest = self.rest.trim_start_matches(is_skipped);
    }

    /// Goes to the next comma or space that is in no quoted text.
    fn skip_element(&mut self) {
        if self.rest.starts_with('"') {
            if let Value::Cut = self.quoted() {
                self.rest = "";
            }
        } else {
            let mut chars = self.rest.chars();
            chars.next();
            self.rest = chars.as_str();
        }
    }

    /// The value of a parameter whose name was read, if `=` follows.
    fn parameter(&mut self, name: &str) -> Option<Value> {
        let after = self.rest.trim_start_matches(is_space).strip_prefix('=')?;
        let after = after.trim_start_matches(is_space);
        // `abc==`: the end of a token68, or of nothing.
        if name.is_empty() || after.starts_with('=') {
            return None;
        }
        self.rest = after;
        if after.starts_with('"') {
            return Some(self.quoted());
        }
        Some(Value::Text(self.take(|c| c != ',' && !is_space(c)).to_owned()))
    }

    /// Reads a quoted text with its escapes, up to and with its end.
    fn quoted(&mut self) -> Value {
        let mut text = String::new();
        let mut chars = self.rest.chars();
        chars.next();
        while let Some(c) = chars.next() {
            match c {
                '"' => {
                    self.rest = chars.as_str();
                    return Value::Text(text);
                }
                '\\' => text.extend(chars.next()),
                other => text.push(other),
            }
        }
        self.rest = "";
        Value::Cut
    }

    /// Goes past the one value of challenges such as `Negotiate abc==`.
    fn skip_token68(&mut self) {
        let rest = self.rest.trim_start_matches(is_space);
        let is_token68_char = |c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c);
        let after = rest.trim_start_matches(is_token68_char);
        let ended = after.trim_start_matches('=').trim_start_matches(is_space);
        // One `=` with something behind it is a parameter.
        let is_whole = ended.is_empty() || ended.starts_with(',');
        if rest.len() != self.rest.len() && after.len() != rest.len() && is_whole {
            self.rest = ended;
        }
    }
}

fn is_space(c: char) -> bool {
    c == ' ' || c == '\t'
}

/// True for a character of a `token` (RFC 9110 section 5.6.2).
fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// A challenge that asks for an access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenChallenge {
    /// The scheme: `Bearer`, or `DPoP` (RFC 9449 section 7.1).
    pub token_type: TokenType,
    /// `resource_metadata`: where the protected resource's metadata are.
    pub resource_metadata: Option<String>,
    /// `scope`: the scopes that the request needs, with spaces between them.
    pub scope: Option<String>,
    /// `error`: `invalid_token`, `insufficient_scope`, `invalid_request`, `use_dpop_nonce`, …
    pub error: Option<String>,
    /// `error_description`.
    pub error_description: Option<String>,
    /// `algs` of a DPoP challenge.
    pub algorithms: Option<String>,
}

impl TokenChallenge {
    /// A challenge without parameters.
    pub fn new(token_type: TokenType) -> TokenChallenge {
        TokenChallenge {
            token_type,
            resource_metadata: None,
            scope: None,
            error: None,
            error_description: None,
            algorithms: None,
        }
    }

    /// The first challenge of the fields that asks for an access token, filled up from later ones:
    /// a server that takes both kinds of tokens often writes its parameters in one of the two.
    pub fn read<'a>(fields: impl IntoIterator<Item = &'a str>) -> Option<TokenChallenge> {
        let mut found: Option<TokenChallenge> = None;
        for challenge in read(fields) {
            let Some(token_type) = TokenType::parse(&challenge.scheme) else { continue };
            let found = found.get_or_insert_with(|| TokenChallenge::new(token_type));
            let fill = |place: &mut Option<String>, name: &str, bytes_max: usize| {
                let value = challenge.parameter(name);
                let value = value.filter(|it| !it.is_empty() && it.len() <= bytes_max);
                if let (None, Some(value)) = (&place, value) {
                    *place = Some(value.to_owned());
                }
            };
            fill(&mut found.resource_metadata, "resource_metadata", OAUTH_URL_BYTES_MAX);
            fill(&mut found.scope, "scope", OAUTH_URL_BYTES_MAX);
            fill(&mut found.error, "error", OAUTH_TEXT_BYTES_MAX);
            fill(&mut found.error_description, "error_description", OAUTH_TEXT_BYTES_MAX);
            fill(&mut found.algorithms, "algs", OAUTH_TEXT_BYTES_MAX);
        }
        found
    }

    /// The field's value.
    pub fn field(&self) -> String {
        let parameters = [
            ("resource_metadata", &self.resource_metadata),
            ("error", &self.error),
            ("error_description", &self.error_description),
            ("scope", &self.scope),
            ("algs", &self.algorithms),
        ];
        let mut out = self.token_type.as_str().to_owned();
        let given = parameters.into_iter().filter_map(|(name, it)| Some((name, it.as_ref()?)));
        for (n_before, (name, value)) in given.enumerate() {
            out.push_str(if n_before == 0 { " " } else { ", " });
            out.push_str(name);
            out.push_str("=\"");
            out.extend(value.chars().map(in_quotes));
            out.push('"');
        }
        out
    }
}

/// The character as it may stand between quotes. Of the values of RFC 6750 section 3 none has a
/// quote, a backslash or what is not ASCII.
fn in_quotes(c: char) -> char {
    match c {
        '"' | '\\' => '\'',
        ' '..='~' => c,
        _ => '?',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of the fields, as `scheme name=value name=value`.
    fn told(fields: &[&str]) -> Vec<String> {
        let told = |it: &Challenge| {
            let parameters =
                it.parameters.iter().map(|(name, value)| format!(" {name}={value}"));
            it.scheme.clone() + &parameters.collect::<String>()
        };
        read(fields.iter().copied()).iter().map(told).collect()
    }

    #[test]
    fn challenges_are_read_in_every_form_that_servers_write() {
        for (field, expected) in [
            ("Bearer", vec!["Bearer"]),
            (r#"Bearer realm="a, b", scope="x y""#, vec!["Bearer realm=a, b scope=x y"]),
            (
                r#"bearer Error = "invalid_token" ,SCOPE=x"#,
                vec!["bearer error=invalid_token scope=x"],
            ),
            (r#"Bearer a="q\"u\\o", b="""#, vec![r#"Bearer a=q"u\o b="#]),
            // Without quotes, and without commas.
            (
                "Bearer resource_metadata=https://h/a?b=c, scope=x:y",
                vec!["Bearer resource_metadata=https://h/a?b=c scope=x:y"],
            ),
            (r#"Bearer scope="x" error="e""#, vec!["Bearer scope=x error=e"]),
            // Several in one field.
            (
                r#"Basic realm="r", Bearer scope="x", DPoP algs="ES256""#,
                vec!["Basic realm=r", "Bearer scope=x", "DPoP algs=ES256"],
            ),
            ("Negotiate, Bearer scope=x", vec!["Negotiate", "Bearer scope=x"]),
            ("Negotiate YWJj/+==, Bearer scope=x", vec!["Negotiate", "Bearer scope=x"]),
            ("NTLM abc, Bearer", vec!["NTLM", "Bearer"]),
            // What is no challenge is left out.
            ("", vec![]),
            (" , ,", vec![]),
            (r#"realm="x", scope="y""#, vec![]),
            (r#""quoted, text" Bearer a=b"#, vec!["Bearer a=b"]),
            ("@@ Bearer a=b", vec!["Bearer a=b"]),
            (r#"Bearer a="cut"#, vec!["Bearer"]),
            ("Bearer a=\"x\ty\", b=c", vec!["Bearer b=c"]),
        ] {
            assert_eq!(told(&[field]), expected, "{field}");
        }
        assert_eq!(told(&["Basic", "Bearer a=b"]), ["Basic", "Bearer a=b"]);
        // A parameter at the start of a field is not that of the field before.
        assert_eq!(told(&["Bearer a=b", "c=d"]), ["Bearer a=b"]);
    }

    #[test]
    fn a_field_that_is_cut_or_changed_anywhere_is_read_all_the_same() {
        let field =
            r#"Negotiate ab==, Bearer realm="é \" x", scope=a, DPoP algs="ES256 RS256""#;
        for (at, _) in field.char_indices() {
            let (head, tail) = field.split_at(at);
            let whole: Vec<_> = read([head]);
            assert!(whole.len() <= 3, "{head}");
            for other in ['"', '\\', ',', '=', ' ', 'é', '\u{1}'] {
                let changed: String = head.chars().chain([other]).chain(tail.chars()).collect();
                let read = read([changed.as_str()]);
                assert!(!read.iter().any(|it| it.scheme.is_empty()), "{changed}");
            }
        }
    }

    #[test]
    fn many_challenges_and_parameters_are_bounded() {
        let many = "A a=b, ".repeat(1000);
        assert_eq!(read([many.as_str(), many.as_str()]).len(), CHALLENGES_MAX);
        let many = format!("A {}", "a=b, ".repeat(1000));
        assert_eq!(read([many.as_str()])[0].parameters.len(), CHALLENGE_PARAMETERS_MAX);
    }

    #[test]
    fn a_token_s_challenge_is_found_among_others() {
        let field = r#"Basic realm="r", Bearer resource_metadata="https://h/m", scope="""#;
        let read = TokenChallenge::read([field, r#"DPoP algs="ES256", scope="a b""#]).unwrap();
        let expected = TokenChallenge {
            resource_metadata: Some("https://h/m".to_owned()),
            scope: Some("a b".to_owned()),
            algorithms: Some("ES256".to_owned()),
            ..TokenChallenge::new(TokenType::Bearer)
        };
        assert_eq!(read, expected);
        assert_eq!(TokenChallenge::read(["Basic realm=x"]), None);
        assert_eq!(TokenChallenge::read([]), None);
        let dpop = TokenChallenge::read([r#"dpop error="use_dpop_nonce""#]).unwrap();
        assert_eq!(dpop.token_type, TokenType::DPoP);
        assert_eq!(dpop.error.as_deref(), Some("use_dpop_nonce"));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut challenge = TokenChallenge::new(TokenType::Bearer);
        assert_eq!(challenge.field(), "Bearer");
        challenge.resource_metadata = Some("https://h/.well-known/x".to_owned());
        challenge.error = Some("insufficient_scope".to_owned());
        challenge.scope = Some("a b".to_owned());
        assert_eq!(
            challenge.field(),
            "Bearer resource_metadata=\"https://h/.well-known/x\", error=\"insufficient_scope\", \
             scope=\"a b\""
        );
        assert_eq!(TokenChallenge::read([challenge.field().as_str()]), Some(challenge.clone()));
        challenge.error_description = Some("a \"quoted\"\r\nX-Evil: \\ é".to_owned());
        let field = challenge.field();
        assert!(field.contains("error_description=\"a 'quoted'??X-Evil: ' ?\""), "{field}");
    }
}
