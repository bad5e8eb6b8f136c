//! What the documents have in them: fenced blocks, code in the text, links, headings.

use std::path::PathBuf;

use super::program::root;

/// A document for users.
#[derive(Debug)]
pub struct Document {
    /// Its path below the repository's root.
    pub name: String,
    pub text: String,
}

/// A fenced block of a document.
#[derive(Debug)]
pub struct Block {
    /// `README.md:12`, the line on which it opens.
    pub place: String,
    /// What stands behind the opening fence.
    pub kind: String,
    pub text: String,
}

/// The README and all that is in `docs/`.
pub fn documents() -> Vec<Document> {
    let mut paths = vec![PathBuf::from("README.md")];
    if let Ok(entries) = std::fs::read_dir(root().join("docs")) {
        let names = entries.map(|entry| PathBuf::from("docs").join(entry.unwrap().file_name()));
        let mut found: Vec<_> = names
            .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
            .collect();
        found.sort();
        paths.extend(found);
    }
    let read = |path: PathBuf| Document {
        text: std::fs::read_to_string(root().join(&path)).unwrap(),
        name: path.to_str().unwrap().to_owned(),
    };
    paths.into_iter().map(read).collect()
}

impl Document {
    /// Each line with its number, and whether it is of a fenced block (its fences among them).
    fn lines(&self) -> impl Iterator<Item = (usize, &str, bool)> {
        let mut is_inside = false;
        self.text.lines().enumerate().map(move |(index, line)| {
            let is_fence = line.trim_start().starts_with("```");
            let was_inside = is_inside;
            is_inside ^= is_fence;
            (index + 1, line, was_inside || is_fence)
        })
    }

    /// The fenced blocks, without the indentation that they have in lists.
    pub fn blocks(&self) -> Vec<Block> {
        let mut found = Vec::new();
        let mut lines = self.text.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            let Some(kind) = line.trim_start().strip_prefix("```") else { continue };
            let indentation = line.len() - line.trim_start().len();
            let place = format!("{}:{}", self.name, index + 1);
            let mut text = Vec::new();
            loop {
                let next = lines.next().map(|(_, line)| line);
                let line = next.unwrap_or_else(|| panic!("{place}: the block has no end"));
                if line.trim() == "```" {
                    break;
                }
                text.push(line.get(indentation..).unwrap_or_default());
            }
            found.push(Block { place, kind: kind.trim().to_owned(), text: text.join("\n") });
        }
        found
    }

    /// The texts between backticks outside of blocks, each with its place.
    pub fn code(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for (number, line, _) in self.lines().filter(|(_, _, is_of_block)| !is_of_block) {
            let spans = line.split('`').skip(1).step_by(2);
            found
                .extend(spans.map(|span| (format!("{}:{number}", self.name), span.to_owned())));
        }
        found
    }

    /// The targets of `[…](target)` outside of blocks, each with its place.
    pub fn links(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for (number, line, _) in self.lines().filter(|(_, _, is_of_block)| !is_of_block) {
            let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
            let placed = targets
                .map(|(target, _)| (format!("{}:{number}", self.name), target.to_owned()));
            found.extend(placed);
        }
        found
    }

    /// The anchors that its headings have.
    pub fn anchors(&self) -> Vec<String> {
        let lines = self.lines().filter(|(_, _, is_of_block)| !is_of_block);
        let headings = lines.filter(|(_, line, _)| line.starts_with('#'));
        headings.map(|(_, line, _)| anchor(line.trim_start_matches('#').trim())).collect()
    }
}

/// What a heading is called in links, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// The commands of a block in a shell's language, one a logical line: a line that ends in `\`,
/// or within quotes, goes on in the next one. Comments are left out.
pub fn commands(script: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut command = String::new();
    let mut quote = None;
    let mut last = '\n';
    let mut chars = script.chars().peekable();
    while let Some(char) = chars.next() {
        match (quote, char) {
            (None, '\\') if chars.peek() == Some(&'\n') => {
                chars.next();
                command.push(' ');
            }
            (None, '#') if last.is_whitespace() => {
                while chars.peek().is_some_and(|next| *next != '\n') {
                    chars.next();
                }
            }
            (None, '\n') => found.push(std::mem::take(&mut command)),
            (None, '\'' | '"') => {
                quote = Some(char);
                command.push(char);
            }
            (Some(open), close) if open == close => {
                quote = None;
                command.push(close);
            }
            (_, other) => command.push(other),
        }
        last = char;
    }
    found.push(command);
    let trimmed = found.iter().map(|command| command.trim().to_owned());
    trimmed.filter(|command| !command.is_empty()).collect()
}
