//! Pure: the names of issuers for people, in the names of their users.

use std::sync::Arc;

use super::web_url::WebUrl;

/// The names of issuers, in their order: the host. Where several have one host, the path stands
/// behind it, then the port, and at last the whole identifier, as far as is needed to tell the
/// issuers apart.
pub fn issuer_names<'a>(issuers: impl IntoIterator<Item = &'a str>) -> Vec<Arc<str>> {
    let candidates: Vec<[String; 4]> = issuers.into_iter().map(candidates).collect();
    let is_unique = |at: usize, name: &str| {
        let has_it = |of: &&[String; 4]| of.get(at).is_some_and(|it| it == name);
        candidates.iter().filter(has_it).count() == 1
    };
    let name = |of: &[String; 4]| {
        let mut each = of.iter().enumerate();
        let found = each.find(|(at, name)| is_unique(*at, name)).map(|(_, name)| name);
        let [.., whole] = of;
        found.unwrap_or(whole).as_str().into()
    };
    candidates.iter().map(name).collect()
}

/// The names that an issuer could have, from the shortest on.
fn candidates(issuer: &str) -> [String; 4] {
    let whole = issuer.to_owned();
    let Ok(url) = WebUrl::parse(issuer) else {
        return [whole.clone(), whole.clone(), whole.clone(), whole];
    };
    let (host, path) = (url.host(), url.path().trim_end_matches('/'));
    [host.to_owned(), format!("{host}{path}"), format!("{host}:{}{path}", url.port()), whole]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_are_told_apart_by_as_little_as_possible() {
        let of = |issuers: &[&str]| -> Vec<String> {
            issuer_names(issuers.iter().copied()).iter().map(|it| (**it).to_owned()).collect()
        };
        let all = ["https://a.example/one", "https://a.example/two/", "https://b.example/x"];
        assert_eq!(of(&all), ["a.example/one", "a.example/two", "b.example"]);
        assert_eq!(of(&["https://h:8443", "https://h:9443/"]), ["h:8443", "h:9443"]);
        assert_eq!(of(&["http://h", "https://h", "https://h/x"]), ["h:80", "h:443", "h/x"]);
        assert_eq!(of(&["https://h:8443/a", "https://h:9443/b"]), ["h/a", "h/b"]);
        let alike = ["http://h:1", "https://h:1", "https://h:1/"];
        assert_eq!(of(&alike), alike);
    }
}
