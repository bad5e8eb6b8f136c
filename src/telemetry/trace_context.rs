//! Pure: the `traceparent` of W3C Trace Context, as a header and in `params._meta` (2026-07-28,
//! basic/index, `_meta`).

use super::ids::hex;

/// The position of a span in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TraceContext {
    /// The trace; never all zero.
    pub(super) trace_id: [u8; 16],
    /// The span that is the parent of later ones; never all zero.
    pub(super) span_id: [u8; 8],
    /// True if the beginner of the trace records it.
    pub(super) is_sampled: bool,
}

/// Bytes of a `traceparent` of version 00.
const BYTES: usize = 55;

impl TraceContext {
    /// Reads a `traceparent`. Of a later version, the parts that version 00 has are read (W3C
    /// Trace Context, section 4.3).
    pub(super) fn parse(text: &str) -> Option<TraceContext> {
        let text = text.trim();
        let version = text.get(..2)?;
        let has_end = match version {
            "00" => text.len() == BYTES,
            _ => text.len() == BYTES || text.as_bytes().get(BYTES) == Some(&b'-'),
        };
        let mut parts = text.get(2..BYTES)?.strip_prefix('-')?.split('-');
        let (trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?);
        let is_plain = has_end && parts.next().is_none() && version != "ff";
        unhex::<1>(version)?;
        let (trace_id, span_id) = (unhex::<16>(trace)?, unhex::<8>(span)?);
        let [flags] = unhex::<1>(flags)?;
        let is_there = trace_id != [0; 16] && span_id != [0; 8];
        (is_plain && is_there).then_some(TraceContext {
            trace_id,
            span_id,
            is_sampled: flags & 1 == 1,
        })
    }

    /// The `traceparent`.
    pub(super) fn to_text(self) -> String {
        let flags = if self.is_sampled { "01" } else { "00" };
        format!("00-{}-{}-{flags}", to_hex(&self.trace_id), to_hex(&self.span_id))
    }
}

/// The bytes in hexadecimal.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| hex(*byte)).map(char::from).collect()
}

/// Reads hexadecimal digits; only lower case is valid (section 3.2.2.3).
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_reads_and_writes() {
        let context = TraceContext::parse(VALID).unwrap();
        assert!(context.is_sampled);
        assert_eq!(context.to_text(), VALID);
        let later = format!("cc{}-what-comes", &VALID[2..]);
        assert_eq!(TraceContext::parse(&later), Some(context));
        let unsampled = TraceContext::parse(&VALID.replace("-01", "-00")).unwrap();
        assert!(!unsampled.is_sampled);
    }

    #[test]
    fn what_is_none_is_not_taken() {
        for n in 0..VALID.len() {
            assert_eq!(TraceContext::parse(&VALID[..n]), None, "{n}");
        }
        let zero_trace = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
        let zero_span = format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", "0".repeat(16));
        let (upper, longer) = (VALID.to_uppercase(), format!("{VALID}-x"));
        let invalid = VALID.replacen("00", "ff", 1);
        for text in [&zero_trace, &zero_span, &upper, &longer, &invalid, "é", ""] {
            assert_eq!(TraceContext::parse(text), None, "{text}");
        }
    }
}
