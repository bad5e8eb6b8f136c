//! Environment variables in strings: `${NAME}`, `${NAME:-default}`, and `$$` for a dollar.

/// Looks a variable of the environment up. Tests supply their own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Replaces the variables in `text`. A dollar before anything else stays as it is. As in a
/// shell, `:-` also replaces an empty variable.
///
/// # Errors
/// What is wrong, in words that hold no variable's value.
pub(super) fn expand(text: &str, environment: Environment<'_>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let (inside, after) =
                after.split_once('}').ok_or("\"${\" has no \"}\" (\"$$\" is a dollar)")?;
            out.push_str(&variable(inside, environment)?);
            rest = after;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn variable(inside: &str, environment: Environment<'_>) -> Result<String, String> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let ok = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty()
        || name.starts_with(|c: char| c.is_ascii_digit())
        || !name.chars().all(ok)
    {
        return Err("\"${…}\" does not hold the name of a variable".to_owned());
    }
    match (environment(name), default) {
        (Some(value), _) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (Some(empty), None) => Ok(empty),
        (None, None) => Err(format!("the environment variable {name} is not set")),
    }
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let environment = |name: &str| match name {
            "A" => Some("x".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${A}".to_owned()),
            _ => None,
        };
        match (expand(text, &environment), expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected),
            (Err(got), Err(part)) => assert!(got.contains(part), "{got}"),
            (got, expected) => panic!("{got:?} is not {expected:?}"),
        }
    }

    #[test]
    fn variables_are_replaced_where_they_stand() {
        check("${A}", Ok("x"));
        check("a${A}b${A}c", Ok("axbxc"));
        check("${B:-y}${A:-y}", Ok("yx"));
        check("${B:-}", Ok(""));
        check("${EMPTY}${EMPTY:-z}", Ok("z"));
        // A value is not read again: it may hold what looks like a variable.
        check("${NESTED}", Ok("${A}"));
    }

    #[test]
    fn two_dollars_are_one_and_a_lone_one_stays() {
        check("$${A}", Ok("${A}"));
        check("$$$$", Ok("$$"));
        check("5$ $x $", Ok("5$ $x $"));
    }

    #[test]
    fn what_cannot_be_replaced_is_a_problem() {
        check("${B}", Err("B is not set"));
        check("${A", Err("has no"));
        check("${}", Err("name"));
        check("${1A}", Err("name"));
        check("${A B}", Err("name"));
    }
}
