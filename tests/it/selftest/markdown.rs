//! What is found in documents.

use crate::support::markdown::{Document, commands};

#[test]
fn blocks_code_links_and_anchors_are_found() {
    let text = "# A `b` c\n- x\n  ```sh\n  one\n\n    two\n  ```\n[l](d.md#e) `trunkline x`\n";
    let document = Document { name: "d".to_owned(), text: text.to_owned() };
    let [block] = &document.blocks()[..] else { panic!() };
    assert_eq!((block.place.as_str(), block.kind.as_str()), ("d:3", "sh"));
    assert_eq!(block.text, "one\n\n  two");
    assert_eq!(document.anchors(), ["a-b-c"]);
    assert_eq!(document.links(), [("d:8".to_owned(), "d.md#e".to_owned())]);
    let code: Vec<_> = document.code().into_iter().map(|(_, code)| code).collect();
    assert_eq!(code, ["b", "trunkline x"]);
}

#[test]
fn commands_are_logical_lines() {
    let script = "# c\na b  # d\n\ne \\\n  'f\n#g' h#i\n";
    assert_eq!(commands(script), ["a b", "e    'f\n#g' h#i"]);
}
