//! Events to the bodies that are posted, whole or with records cut as Lambda cuts them. Pure.

/// How records that are too long are cut: in the middle of their JSON, into pieces that are events of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Records of `function` and `extension` longer than this are cut; 256 KiB in Lambda.
    pub over: usize,
    /// Where the pieces go.
    pub form: CutForm,
}

/// Where the pieces of a cut record go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutForm {
    /// All within one POST, with envelopes between them.
    Within,
    /// A POST ends after each piece, and the next begins with the next piece.
    Across,
}

/// One event to be posted.
#[derive(Clone, Debug)]
pub(crate) struct Envelope<'a> {
    pub(crate) index: usize,
    pub(crate) time: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) record: &'a [u8],
}

/// One POST, and the events whose last byte is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    pub(crate) completes: Vec<usize>,
}

/// One event as JSON, around whatever bytes its record, or the piece of it, has.
pub(crate) fn enclose(time: &str, kind: &str, record: &[u8]) -> Vec<u8> {
    let mut bytes = format!(r#"{{"time":"{time}","type":"{kind}","record":"#).into_bytes();
    bytes.extend_from_slice(record);
    bytes.push(b'}');
    bytes
}

/// The bodies in which these events go.
pub(crate) fn bodies(events: &[Envelope<'_>], cut: Option<Cut>) -> Vec<Body> {
    let mut done = Vec::new();
    let mut open = Body { bytes: Vec::new(), completes: Vec::new() };
    for event in events {
        let pieces = pieces(event, cut);
        let last = pieces.len() - 1;
        for (number, piece) in pieces.into_iter().enumerate() {
            open.bytes.push(if open.bytes.is_empty() { b'[' } else { b',' });
            open.bytes.extend(enclose(event.time, event.kind, piece));
            if number < last && cut.is_some_and(|cut| cut.form == CutForm::Across) {
                open.bytes.push(b']');
                done.push(std::mem::replace(
                    &mut open,
                    Body { bytes: Vec::new(), completes: Vec::new() },
                ));
            }
        }
        open.completes.push(event.index);
    }
    open.bytes.push(b']');
    done.push(open);
    done
}

fn pieces<'a>(event: &Envelope<'a>, cut: Option<Cut>) -> Vec<&'a [u8]> {
    match cut {
        Some(cut)
            if event.record.len() > cut.over && matches!(event.kind, "function" | "extension") =>
        {
            event.record.chunks(cut.over.max(1)).collect()
        }
        _ => vec![event.record],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Vec<Envelope<'static>> {
        let event = |index, kind, record: &'static str| Envelope {
            index,
            time: "T",
            kind,
            record: record.as_bytes(),
        };
        vec![
            event(0, "function", r#"{"message":"AAAABBBB"}"#),
            event(1, "platform.runtimeDone", r#"{"requestId":"x"}"#),
        ]
    }

    fn texts(cut: Option<Cut>) -> Vec<String> {
        bodies(&events(), cut)
            .into_iter()
            .map(|body| String::from_utf8(body.bytes).unwrap())
            .collect()
    }

    #[test]
    fn whole_events_are_one_array() {
        let body = &texts(None)[0];
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(body).unwrap().as_array().unwrap().len(),
            2
        );
    }

    #[test]
    fn pieces_within_one_post() {
        assert_eq!(
            texts(Some(Cut { over: 16, form: CutForm::Within })),
            [concat!(
                r#"[{"time":"T","type":"function","record":{"message":"AAAA},"#,
                r#"{"time":"T","type":"function","record":BBBB"}},"#,
                r#"{"time":"T","type":"platform.runtimeDone","record":{"requestId":"x"}}]"#
            )]
        );
    }

    #[test]
    fn pieces_across_posts() {
        let cut = Some(Cut { over: 16, form: CutForm::Across });
        assert_eq!(
            texts(cut),
            [
                r#"[{"time":"T","type":"function","record":{"message":"AAAA}]"#,
                concat!(
                    r#"[{"time":"T","type":"function","record":BBBB"}},"#,
                    r#"{"time":"T","type":"platform.runtimeDone","record":{"requestId":"x"}}]"#
                )
            ]
        );
        let completes: Vec<_> =
            bodies(&events(), cut).into_iter().map(|body| body.completes).collect();
        assert_eq!(completes, [vec![], vec![0, 1]]);
    }
}
