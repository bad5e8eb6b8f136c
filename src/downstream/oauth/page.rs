//! Pure: the pages that a person's browser shows while they sign in: small, without a script, and
//! with nothing of others in them that is not escaped.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The style of every page.
const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:12vh auto;\
    padding:0 1.25rem;color:#1c2330;background:#fff}h1{font-size:1.35rem;margin:0 0 1rem}\
    dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1rem;margin:1rem 0}\
    dt{color:#5a6475}dd{margin:0;overflow-wrap:anywhere}label{display:block;margin:1rem 0 .25rem}\
    input{font:inherit;width:100%;box-sizing:border-box;padding:.5rem;border:1px solid #8a94a6;\
    border-radius:.375rem;background:inherit;color:inherit}button,.button{font:inherit;\
    display:inline-block;margin-top:1rem;padding:.5rem 1.1rem;border:0;border-radius:.375rem;\
    background:#1f5fd0;color:#fff;text-decoration:none;cursor:pointer}.wrong{color:#b3261e}\
    @media(prefers-color-scheme:dark){body{color:#e4e8ef;background:#14181f}dt{color:#9aa5b5}\
    .wrong{color:#ff8a80}}";

/// Allows the page's own style and a form to the gateway, and nothing else.
pub(crate) static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = ring::digest::digest(&ring::digest::SHA256, STYLE.as_bytes());
    format!(
        "default-src 'none'; style-src 'sha256-{}'; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'",
        STANDARD.encode(hash.as_ref())
    )
});

/// A page in the making.
#[derive(Debug)]
pub(crate) struct Page {
    title: String,
    head: String,
    body: String,
}

impl Page {
    /// A page with this title, which is its heading too.
    pub(crate) fn new(title: &str) -> Page {
        let title = escaped(title);
        let body = format!("<h1>{title}</h1>\n");
        Page { title, head: String::new(), body }
    }

    /// Adds a paragraph.
    pub(crate) fn text(mut self, text: &str) -> Page {
        self.body.push_str(&format!("<p>{}</p>\n", escaped(text)));
        self
    }

    /// Adds a paragraph that tells of a mistake.
    pub(crate) fn wrong(mut self, text: &str) -> Page {
        self.body
            .push_str(&format!("<p class=\"wrong\" role=\"alert\">{}</p>\n", escaped(text)));
        self
    }

    /// Adds a list of names and values.
    pub(crate) fn facts(mut self, facts: &[(&str, &str)]) -> Page {
        let rows = facts.iter().filter(|(_, value)| !value.is_empty());
        let rows = rows.map(|(name, value)| {
            format!("<dt>{}</dt><dd>{}</dd>\n", escaped(name), escaped(value))
        });
        self.body.push_str(&format!("<dl>\n{}</dl>\n", rows.collect::<String>()));
        self
    }

    /// Adds a form that is sent to the page's own address, with a button.
    pub(crate) fn form(mut self, fields: Fields, button: &str) -> Page {
        let label = match fields {
            Fields::None => None,
            Fields::Key => Some("Your key for this gateway"),
            Fields::KeyOrToken => {
                Some("Your key for this gateway, or an access token of yours")
            }
        };
        let fields = label.map_or_else(String::new, |label| {
            format!(
                "<label for=\"key\">{label}</label>\n<input id=\"key\" name=\"key\" \
                 type=\"password\" autocomplete=\"current-password\" required autofocus>\n"
            )
        });
        self.body.push_str(&format!(
            "<form method=\"post\">\n{fields}<button>{}</button>\n</form>\n",
            escaped(button)
        ));
        self
    }

    /// Leads on to another page at once, and by a link where the browser does not.
    pub(crate) fn leads_to(mut self, url: &str, link: &str) -> Page {
        let url = escaped(url);
        self.head = format!("<meta http-equiv=\"refresh\" content=\"0; url={url}\">\n");
        self.body.push_str(&format!(
            "<p><a class=\"button\" rel=\"noreferrer\" href=\"{url}\">{}</a></p>\n",
            escaped(link)
        ));
        self
    }

    /// The page as HTML.
    pub(crate) fn html(&self) -> String {
        let Page { title, head, body } = self;
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"robots\" content=\"noindex\">\n{head}<title>{title} · Trunkline</title>\n\
             <style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
        )
    }
}

/// The fields of a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fields {
    /// None: its button is enough.
    None,
    /// The key of whoever began.
    Key,
    /// The key, or an access token, of whoever began.
    KeyOrToken,
}

/// A text in which nothing is markup, in elements and in quoted attributes. Control characters,
/// and those that turn the direction of writing, are left out.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => (),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// The mark of a browser among its cookies.
pub(crate) fn mark_in<'a>(
    cookies: impl Iterator<Item = &'a str>,
    name: &str,
) -> Option<&'a str> {
    cookies
        .flat_map(|field| field.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(found, value)| *found == name && is_mark(value))
        .map(|(_, value)| value)
}

/// True for a value that can be a mark: nothing else is looked up.
fn is_mark(value: &str) -> bool {
    let ok = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    value.len() == MARK_CHARS && value.bytes().all(ok)
}

/// Characters of 32 bytes in base64.
const MARK_CHARS: usize = 43;

/// How a browser is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marking {
    /// Over TLS: the name's prefix has the browser take it from this host alone (RFC 6265bis,
    /// section 4.1.3.2).
    Secure,
    /// Over plain HTTP, on one machine.
    Plain,
}

impl Marking {
    /// The marking of a gateway that browsers reach at this URL.
    pub(crate) fn at(url: Option<&str>) -> Marking {
        let is_https = url.is_some_and(|url| {
            url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
        });
        if is_https { Marking::Secure } else { Marking::Plain }
    }

    /// The name of the cookie.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Secure => "__Host-trunkline-browser",
            Self::Plain => "trunkline-browser",
        }
    }

    /// The value of `Set-Cookie`. `Lax`, because the way back from the authorization server is a
    /// link of another site; the cookie ends with the browser.
    pub(crate) fn cookie(self, mark: &str) -> String {
        let secure = match self {
            Self::Secure => "; Secure",
            Self::Plain => "",
        };
        format!("{}={mark}; Path=/; HttpOnly; SameSite=Lax{secure}", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_others_say_is_markup() {
        let hostile = "\"><script>alert(1)</script>'&\u{202e}x\u{7}";
        let page = Page::new(hostile)
            .text(hostile)
            .wrong(hostile)
            .facts(&[(hostile, hostile), ("empty", "")])
            .form(Fields::Key, hostile)
            .leads_to(hostile, hostile)
            .html();
        assert!(
            !page.contains("<script") && !page.contains('\u{202e}') && !page.contains('\u{7}')
        );
        assert_eq!(escaped("a<b>\"'&"), "a&lt;b&gt;&quot;&#39;&amp;");
        assert!(!page.contains("empty"));
        // The policy admits no script, and the style that stands there.
        assert!(POLICY.contains("default-src 'none'; style-src 'sha256-"));
        assert!(page.contains(&format!("<style>{STYLE}</style>")));
    }

    #[test]
    fn a_mark_is_found_among_cookies() {
        let mark = "A".repeat(MARK_CHARS);
        let name = Marking::Plain.name();
        let cookies = format!("a=1; {name}={mark}; b=2");
        assert_eq!(mark_in([cookies.as_str()].into_iter(), name), Some(mark.as_str()));
        for wrong in ["", "a=1", "trunkline-browser=short", "xtrunkline-browser=1"] {
            assert_eq!(mark_in([wrong].into_iter(), name), None, "{wrong}");
        }
        let told = Marking::at(Some("HTTPS://a.example/oauth/callback")).cookie(&mark);
        let flags = "Path=/; HttpOnly; SameSite=Lax; Secure";
        assert_eq!(told, format!("__Host-trunkline-browser={mark}; {flags}"));
        assert!(!Marking::at(Some("http://127.0.0.1:1/")).cookie(&mark).contains("Secure"));
    }
}
