//! A decoder of base64, for `session_key`.

/// Decodes base64, of the usual or the URL-safe alphabet, with or without its padding.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if padding > 0 && (padding > 2 || !text.len().is_multiple_of(4)) {
        return None;
    }
    let (mut bits, mut n_bits) = (0_u32, 0_u32);
    let mut out = Vec::with_capacity(digits.len() * 3 / 4);
    for digit in digits.bytes() {
        bits = (bits << 6) | u32::from(value(digit)?);
        n_bits += 6;
        if n_bits >= 8 {
            n_bits -= 8;
            out.push(u8::try_from(bits >> n_bits).ok()?);
            bits &= (1 << n_bits) - 1;
        }
    }
    // A digit that no byte needs, or bits that no byte took, show a text that was cut.
    (n_bits < 6 && bits == 0).then_some(out)
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn the_examples_of_rfc_4648_decode() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
            ("Zg", "f"),
        ] {
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()), "{text}");
        }
        assert_eq!(decode("-_-_"), decode("+/+/"));
    }

    #[test]
    fn what_is_cut_or_foreign_does_not() {
        for text in ["Z", "Zh==", "Z===", "Zm9=v", "Zm 9", "Zg=", "Zé=="] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
