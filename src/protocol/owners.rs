//! Pure: the server that owns a name, by the configuration alone, whatever servers are up or
//! list.
//!
//! A name that begins with a server's NAME or alias and the separator belongs to that server; of
//! several such beginnings the longest decides. A name that ends as the hash forms of a server
//! end belongs to that server: four characters of the ending are the server's own, and come from
//! its NAME, so that no other server can bring about a name that ends in them.

use std::collections::BTreeMap;

use super::server_name::ServerName;

/// Characters of the ending of a hash form: `_`, those of the server, and those of the item.
pub const ENDING_CHARS: usize = 1 + 2 * PART_CHARS;
/// Characters of each half of an ending.
const PART_CHARS: usize = 4;
/// Characters of endings.
const DIGITS: [u8; 36] = *b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The names of all servers of the configuration, the disabled ones too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owners {
    /// Sorted by text; all differ.
    beginnings: Vec<Beginning>,
    /// The server of each first half of an ending.
    by_mark: BTreeMap<String, ServerName>,
    marks: BTreeMap<ServerName, String>,
}

/// A beginning of names that belong to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Beginning {
    /// A NAME or an alias, and the separator.
    text: String,
    server: ServerName,
    of: NameOf,
    /// The index of the longest other beginning with which this text begins.
    within: Option<usize>,
}

/// The kind of a beginning. Keys, paths and headers know no aliases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NameOf {
    Server,
    Alias,
}

impl Owners {
    /// From the servers' NAMEs, each with its alias if it has one; all differ.
    pub fn new<'a>(
        separator: &str,
        servers: impl IntoIterator<Item = (&'a ServerName, Option<&'a str>)>,
    ) -> Owners {
        let mut texts = BTreeMap::new();
        let mut marks = BTreeMap::new();
        for (server, alias) in servers {
            if let Some(alias) = alias {
                texts.insert(format!("{alias}{separator}"), (server.clone(), NameOf::Alias));
            }
            texts.insert(format!("{server}{separator}"), (server.clone(), NameOf::Server));
            marks.insert(server.clone(), String::new());
        }
        let mut by_mark: BTreeMap<String, ServerName> = BTreeMap::new();
        for (server, mark) in &mut marks {
            let mut tries = (0_u64..).map(|salt| digits(&[server.as_str().as_bytes()], salt));
            *mark = tries.find(|it| !by_mark.contains_key(it)).unwrap_or_default();
            by_mark.insert(mark.clone(), server.clone());
        }
        Owners { beginnings: nested(texts), by_mark, marks }
    }

    /// The server of that NAME.
    pub fn server(&self, name: &str) -> Option<&ServerName> {
        self.marks.get_key_value(name).map(|(server, _)| server)
    }

    /// Every server, sorted by NAME.
    pub fn servers(&self) -> impl Iterator<Item = &ServerName> {
        self.marks.keys()
    }

    /// The beginning of all full names of that server: its NAME and the separator.
    pub fn beginning(&self, server: &ServerName) -> Option<&str> {
        let is_its = |it: &&Beginning| it.of == NameOf::Server && it.server == *server;
        self.beginnings.iter().find(is_its).map(|it| it.text.as_str())
    }

    /// The server that owns a name; none where every server may list it.
    pub fn of(&self, name: &str) -> Option<&ServerName> {
        self.ended(name).or_else(|| Some(self.begun(name)?.0))
    }

    /// The owner of a name that `server` lists and must not have unchanged.
    pub fn other(&self, server: &ServerName, name: &str) -> Option<&ServerName> {
        let begins = self.begun(name).map(|(server, _)| server);
        let mut owners = [begins, self.ended(name)].into_iter().flatten();
        owners.find(|owner| *owner != server)
    }

    /// The names under which `server` may know its item with the full name `name`: the texts
    /// behind the alias, and behind the NAME.
    pub fn rests<'n>(
        &self,
        server: &ServerName,
        name: &'n str,
    ) -> impl Iterator<Item = &'n str> {
        let is_its = self.other(server, name).is_none();
        self.beginnings_of(name)
            .filter(move |(it, _)| is_its && it.server == *server)
            .map(|(_, rest)| rest)
    }

    /// The server whose NAME or alias, with the separator, a text begins with, the longest of
    /// several; and the rest of the text.
    fn begun<'n>(&self, text: &'n str) -> Option<(&ServerName, &'n str)> {
        self.beginnings_of(text).next().map(|(it, rest)| (&it.server, rest))
    }

    /// As `begun`, by NAME alone.
    pub fn begun_by_name<'n>(&self, text: &'n str) -> Option<(&ServerName, &'n str)> {
        let mut all = self.beginnings_of(text).filter(|(it, _)| it.of == NameOf::Server);
        all.next().map(|(it, rest)| (&it.server, rest))
    }

    /// All beginnings of a text, the longest first, each with the rest of the text.
    fn beginnings_of<'o, 'n>(
        &'o self,
        text: &'n str,
    ) -> impl Iterator<Item = (&'o Beginning, &'n str)> {
        // A text between a beginning and `text` in the order begins with that beginning too, so
        // that the last one before `text` is, or is within, the longest.
        let before = self.beginnings.partition_point(|it| it.text.as_str() <= text);
        let last = before.checked_sub(1).and_then(|at| self.beginnings.get(at));
        let all = std::iter::successors(last, |it| self.beginnings.get(it.within?));
        all.filter_map(move |it| Some((it, text.strip_prefix(it.text.as_str())?)))
    }

    /// The server whose hash forms have the ending of `name`.
    fn ended(&self, name: &str) -> Option<&ServerName> {
        let ending = name.get(name.len().checked_sub(ENDING_CHARS)?..)?;
        let halves = ending.strip_prefix('_')?;
        if !halves.bytes().all(|byte| DIGITS.contains(&byte)) {
            return None;
        }
        self.by_mark.get(halves.get(..PART_CHARS)?)
    }

    /// The ending of the hash form of the item that `server` calls `own`; a `salt` gives another
    /// one.
    pub fn ending(&self, server: &ServerName, own: &str, salt: u64) -> String {
        let name = server.as_str().as_bytes();
        let mark = self.marks.get(server).cloned().unwrap_or_else(|| digits(&[name], 0));
        format!("_{mark}{}", digits(&[name, own.as_bytes()], salt))
    }
}

/// Finds for each beginning the one that it is within. In sorted order, `open` holds the
/// beginnings of the text before, each within the one below it.
fn nested(texts: BTreeMap<String, (ServerName, NameOf)>) -> Vec<Beginning> {
    let mut open: Vec<(usize, String)> = Vec::new();
    let mut beginnings = Vec::with_capacity(texts.len());
    for (index, (text, (server, of))) in texts.into_iter().enumerate() {
        while open.last().is_some_and(|(_, last)| !text.starts_with(last.as_str())) {
            open.pop();
        }
        let within = open.last().map(|(index, _)| *index);
        open.push((index, text.clone()));
        beginnings.push(Beginning { text, server, of, within });
    }
    beginnings
}

/// Half an ending, from a hash.
fn digits(parts: &[&[u8]], salt: u64) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(part);
        context.update(&[0]);
    }
    context.update(&salt.to_be_bytes());
    let hash = context.finish();
    let bytes = hash.as_ref().iter().take(2 * PART_CHARS);
    let mut number = bytes.fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let n_digits = u64::try_from(DIGITS.len()).unwrap_or(1);
    let mut half = String::with_capacity(PART_CHARS);
    for _ in 0..PART_CHARS {
        let digit = usize::try_from(number % n_digits).unwrap_or_default();
        half.push(DIGITS.get(digit).copied().map_or('0', char::from));
        number /= n_digits;
    }
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ServerName {
        ServerName::parse(text).unwrap()
    }

    fn owners(servers: &[(&str, Option<&str>)]) -> Owners {
        let servers: Vec<_> = servers.iter().map(|(server, it)| (name(server), *it)).collect();
        Owners::new("-", servers.iter().map(|(server, alias)| (server, *alias)))
    }

    fn begun<'n>(owners: &Owners, text: &'n str) -> Option<(String, &'n str)> {
        owners.begun(text).map(|(server, rest)| (server.to_string(), rest))
    }

    #[test]
    fn the_longest_name_in_front_decides() {
        let servers = [("github", None), ("github-enterprise", None), ("g", Some("github-e"))];
        let owners = owners(&servers);
        for (asked, owner, rest) in [
            ("github-x", "github", "x"),
            ("github-", "github", ""),
            ("github-enterprise", "github", "enterprise"),
            ("github-enterprise-x", "github-enterprise", "x"),
            ("github-enterpris-x", "github", "enterpris-x"),
            ("github-enterprisf", "github", "enterprisf"),
            ("github-e-x", "g", "x"),
            ("github-f", "github", "f"),
            ("g-github-x", "g", "github-x"),
        ] {
            assert_eq!(begun(&owners, asked), Some((owner.to_owned(), rest)), "{asked}");
            assert_eq!(owners.of(asked).unwrap().as_str(), owner, "{asked}");
        }
        assert_eq!(
            owners.begun_by_name("github-e-x").map(|(server, rest)| (server.as_str(), rest)),
            Some(("github", "e-x"))
        );
        for asked in ["", "github", "g", "Github-x", "githubx-y", "x", "zz", "é-"] {
            assert_eq!(begun(&owners, asked), None, "{asked}");
        }
    }

    #[test]
    fn it_is_what_looking_at_each_name_would_find() {
        // All names of up to three parts of these, so that some begin with others.
        let parts = ["a", "b", "a-a", "-", "a-"];
        let mut names = std::collections::BTreeSet::new();
        for one in parts {
            for two in parts {
                names.insert(name(one));
                names.insert(name(&format!("{one}{two}")));
                names.insert(name(&format!("{one}-{two}")));
            }
        }
        let owners = Owners::new("-", names.iter().map(|it| (it, None)));
        let texts = names.iter().flat_map(|one| {
            ["", "x", "-", "-x", "--"].map(|rest| format!("{one}{rest}")).into_iter()
        });
        for text in texts {
            let begins = |it: &&ServerName| text.starts_with(&format!("{it}-"));
            let longest = names.iter().filter(begins).max_by_key(|it| it.as_str().len());
            assert_eq!(owners.begun(&text).map(|(server, _)| server), longest, "{text}");
        }
    }

    #[test]
    fn an_ending_says_whose_it_is_before_any_beginning() {
        let owners = owners(&[("a", None), ("a-b", None)]);
        let (a, b) = (name("a"), name("a-b"));
        let form = format!("a-b-c{}", owners.ending(&a, "b-c", 0));
        assert_eq!(owners.of(&form), Some(&a));
        assert_eq!(owners.other(&a, &form), Some(&b), "and is nobody's own name");
        assert_eq!(owners.other(&b, &form), Some(&a));
        assert_eq!(owners.rests(&a, &form).chain(owners.rests(&b, &form)).count(), 0);
        let own = format!("a-x{}", owners.ending(&a, "x", 0));
        assert_eq!(owners.of(&own), Some(&a));
        assert_eq!(owners.rests(&a, &own).next(), own.strip_prefix("a-"));
        assert_eq!(owners.other(&a, &own), None);
        assert_eq!(owners.of("x_12345678"), None);
        assert_eq!(owners.of("é_1234567é"), None);
    }

    #[test]
    fn a_full_name_has_the_alias_or_the_name_in_front() {
        let owners = owners(&[("a", Some("a-b")), ("c", None)]);
        let rests = |full: &str| -> Vec<String> {
            owners.rests(&name("a"), full).map(str::to_owned).collect()
        };
        assert_eq!(rests("a-b-x"), ["x", "b-x"]);
        assert_eq!(rests("a-x"), ["x"]);
        assert_eq!(rests("c-a-x"), Vec::<String>::new());
    }

    #[test]
    fn endings_differ_by_server_and_item_and_stay() {
        let all: Vec<ServerName> = (0..2000).map(|n| name(&format!("s{n}"))).collect();
        let many = Owners::new("-", all.iter().map(|it| (it, None)));
        let endings: std::collections::BTreeSet<String> =
            all.iter().map(|it| many.ending(it, "x", 0)[..1 + PART_CHARS].to_owned()).collect();
        assert_eq!(endings.len(), all.len());
        let few = owners(&[("s1", None)]);
        let ending = few.ending(&all[1], "x", 0);
        assert_eq!(ending.len(), ENDING_CHARS);
        assert_eq!(many.ending(&all[1], "x", 0), ending);
        assert_ne!(few.ending(&all[1], "x", 1), ending);
        assert_ne!(few.ending(&all[1], "y", 0), ending);
    }
}
