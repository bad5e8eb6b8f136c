//! Pure: the URIs of a server that cannot be used because a withheld item covers them.

use std::sync::Arc;

use super::template_set::TemplateSet;
use super::{Catalogue, Item, Steps, template};
use crate::limits::{TEMPLATE_BYTES_MAX, TEMPLATES_STEPS_MAX};
use crate::protocol::call::Kind;
use crate::protocol::server_name::ServerName;

/// The templates of a server of which some are withheld.
#[derive(Debug)]
pub(super) struct Guarded {
    /// The templates that may be used.
    open: TemplateSet,
    withheld: TemplateSet,
    /// The withheld templates as they are written.
    names: Vec<String>,
}

impl Guarded {
    /// None where no template is withheld.
    pub(super) fn new(templates: &[&Arc<Item>]) -> Option<Guarded> {
        let those = |is_withheld: bool| {
            let those = templates.iter().filter(move |item| item.is_withheld == is_withheld);
            those.map(|item| item.own.as_str())
        };
        those(true).next()?;
        let names = those(true).map(str::to_owned).collect();
        let (open, withheld) = (TemplateSet::new(those(false)), TemplateSet::new(those(true)));
        Some(Guarded { open, withheld, names })
    }

    /// The withheld template that covers a URI, unless one that may be used covers it too. Where
    /// the match takes too long, or the template or URI is too long to match, the URI counts as
    /// covered: the server chooses its templates.
    fn of(&self, uri: &str) -> Option<String> {
        let spelled = template::spelled(uri);
        let is_tried = uri.len() <= TEMPLATE_BYTES_MAX;
        if is_tried && self.open.covers(&spelled, &mut Steps::new(TEMPLATES_STEPS_MAX)) {
            return None;
        }
        let mut steps = Steps::new(TEMPLATES_STEPS_MAX);
        let too_long = self.names.iter().find(|name| name.len() > TEMPLATE_BYTES_MAX);
        let is_covered = is_tried && self.withheld.covers(&spelled, &mut steps);
        if is_tried && !is_covered && !steps.is_cut() && too_long.is_none() {
            return None;
        }
        let mut becomes = |name: &&String| {
            let is_tried = is_covered && steps.take(name.len());
            is_tried && TemplateSet::new([name.as_str()]).covers(&spelled, &mut steps)
        };
        let name = self.names.iter().find(|name| becomes(name)).or(too_long);
        Some(name.map_or_else(|| uri.to_owned(), Clone::clone))
    }
}

impl Catalogue {
    /// The withheld item that keeps a server's URI, in the server's spelling, from being used:
    /// the resource or template itself, or the template that covers the URI.
    pub fn withheld(&self, server: &ServerName, own: &str) -> Option<(Kind, String)> {
        for kind in [Kind::Resource, Kind::Template] {
            let mut items = self.called(kind, own).iter().filter(|item| item.server == *server);
            if let Some(item) = items.next() {
                return item.is_withheld.then(|| (kind, own.to_owned()));
            }
        }
        let (_, guarded) = self.templates.guarded.iter().find(|(of, _)| of == server)?;
        Some((Kind::Template, guarded.of(own)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::for_revision::Output;
    use crate::protocol::raw::Raw;

    fn template(own: &str, is_withheld: bool) -> Arc<Item> {
        let object = Raw::from_valid("{}".to_owned());
        Arc::new(Item {
            kind: Kind::Template,
            server: ServerName::parse("a").unwrap(),
            own: own.to_owned(),
            offered: own.to_owned(),
            qualified: own.to_owned(),
            offered_object: object.clone(),
            own_object: object,
            is_withheld,
            mirrors: Ok(Vec::new()),
            output: Output::Object,
            label: Arc::default(),
            alone: None,
        })
    }

    fn guarded(open: &[&str], withheld: &[&str]) -> Option<Guarded> {
        let mut all: Vec<_> = open.iter().map(|own| template(own, false)).collect();
        all.extend(withheld.iter().map(|own| template(own, true)));
        Guarded::new(&all.iter().collect::<Vec<_>>())
    }

    #[test]
    fn a_uri_is_withheld_with_the_template_that_it_is_of() {
        let guarded = guarded(&["x://open/{id}"], &["x://{any}/7", "y://é/{id}"]).unwrap();
        for (uri, template) in [
            ("x://open/7", None),
            ("x://other/8", None),
            ("x://other/7", Some("x://{any}/7")),
            ("y://%C3%A9/1", Some("y://é/{id}")),
        ] {
            assert_eq!(guarded.of(uri).as_deref(), template, "{uri}");
        }
    }

    #[test]
    fn where_no_template_is_withheld_nothing_is_looked_at() {
        assert!(guarded(&["x://{id}"], &[]).is_none());
    }

    #[test]
    fn what_is_too_long_or_too_much_to_be_tried_is_withheld() {
        let long = format!("x://{{id}}/{}", "z".repeat(TEMPLATE_BYTES_MAX));
        let one = guarded(&["y://{id}"], &[&long]).unwrap();
        assert_eq!(one.of("y://1"), None);
        assert_eq!(one.of("x://1"), Some(long));
        assert!(one.of(&"y".repeat(TEMPLATE_BYTES_MAX + 1)).is_some());
        let costly: Vec<String> =
            (0..5000).map(|n| format!("{{a}}{{b}}{{+c}}-{n}{{+d}}!")).collect();
        let costly: Vec<&str> = costly.iter().map(String::as_str).collect();
        let uri = format!("{}!", "-".repeat(1500));
        assert!(guarded(&[], &costly).unwrap().of(&uri).is_some());
    }
}
