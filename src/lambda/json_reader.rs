//! A reader of JSON that can be asked at any byte where it is. As strict as serde, but for UTF-8,
//! which it does not look at. Pure.

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct JsonReader {
    state: State,
    /// Open arrays and objects: a bit each, 1 for an object; the last is the innermost.
    open: Vec<u64>,
    depth: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Value,
    /// Behind `[`
    FirstValue,
    /// Behind `{`
    FirstKey,
    Key,
    Colon,
    AfterValue,
    Text(Role),
    Escape(Role),
    /// So many hexadecimal digits are missing.
    Hex(Role, u8),
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    ExponentMark,
    ExponentSign,
    Exponent,
    /// What is missing of `true`, `false` or `null`.
    Word(&'static [u8]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Key,
    Value,
}

enum Step {
    To(State),
    Open { object: bool },
    Close,
}

impl JsonReader {
    /// Takes the next byte; `false` if it cannot stand here.
    pub(super) fn read(&mut self, byte: u8) -> bool {
        match self.step(byte) {
            None => return false,
            Some(Step::To(state)) => self.state = state,
            Some(Step::Open { object }) => {
                if self.depth.is_multiple_of(64) {
                    self.open.push(0);
                }
                if let Some(bits) = self.open.last_mut() {
                    *bits = (*bits << 1) | u64::from(object);
                }
                self.depth += 1;
                self.state = if object { State::FirstKey } else { State::FirstValue };
            }
            Some(Step::Close) => {
                self.depth -= 1;
                if self.depth.is_multiple_of(64) {
                    self.open.pop();
                } else if let Some(bits) = self.open.last_mut() {
                    *bits >>= 1;
                }
                self.state = State::AfterValue;
            }
        }
        true
    }

    pub(super) fn accepts(&self, byte: u8) -> bool {
        self.step(byte).is_some()
    }

    /// How many of these bytes may be passed over: inside a text, up to what may end it, an escape,
    /// a brace, or a control character, which no text holds. It looks at no byte behind that: what
    /// cannot be passed over would be looked at anew from each byte before it.
    pub(super) fn plain_text(&self, bytes: &[u8]) -> usize {
        if !matches!(self.state, State::Text(_)) {
            return 0;
        }
        let ends = |byte: &u8| matches!(byte, b'"' | b'\\' | b'}' | ..=0x1f);
        bytes.iter().position(ends).unwrap_or(bytes.len())
    }

    /// Whether the innermost (0) or an outer (1, 2, …) open value is an object; `None` where none
    /// is open.
    fn is_object(&self, outwards: usize) -> Option<bool> {
        let index = self.depth.checked_sub(outwards + 1)?;
        let bits = self.open.get(index / 64)?;
        let last = if index / 64 == (self.depth - 1) / 64 { (self.depth - 1) % 64 } else { 63 };
        Some(bits >> (last - index % 64) & 1 == 1)
    }

    fn is_after_value(&self) -> bool {
        matches!(
            self.state,
            State::AfterValue | State::Zero | State::Digits | State::Fraction | State::Exponent
        )
    }

    /// A whole value, of which only a number could go on.
    pub(super) fn is_whole(&self) -> bool {
        self.depth == 0 && self.is_after_value()
    }

    /// A whole array, object, text or word.
    pub(super) fn is_closed(&self) -> bool {
        self.depth == 0 && self.state == State::AfterValue
    }

    /// Whether a closing brace would end the outermost object.
    pub(super) fn closes_envelope(&self) -> bool {
        self.depth == 1 && self.is_after_value()
    }

    /// Whether a closing brace would end an object after which another one may follow.
    pub(super) fn closes_object_in_array(&self) -> bool {
        self.is_after_value() && self.is_object(0) == Some(true) && self.is_object(1) == Some(false)
    }

    fn step(&self, byte: u8) -> Option<Step> {
        use State::*;
        let blank = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        let to = |state| Some(Step::To(state));
        match (self.state, byte) {
            (Value | FirstValue | FirstKey | Key | Colon | AfterValue, _) if blank => {
                to(self.state)
            }
            (FirstValue, b']') | (FirstKey, b'}') => Some(Step::Close),
            (Value | FirstValue, _) => match byte {
                b'"' => to(Text(Role::Value)),
                b'{' => Some(Step::Open { object: true }),
                b'[' => Some(Step::Open { object: false }),
                b'-' => to(Minus),
                b'0' => to(Zero),
                b'1'..=b'9' => to(Digits),
                b't' => to(Word(b"rue")),
                b'f' => to(Word(b"alse")),
                b'n' => to(Word(b"ull")),
                _ => None,
            },
            (FirstKey | Key, b'"') => to(Text(Role::Key)),
            (Colon, b':') => to(Value),
            (Text(role), b'"') => to(if role == Role::Key { Colon } else { AfterValue }),
            (Text(role), b'\\') => to(Escape(role)),
            (Text(_), b' '..) => to(self.state),
            (Escape(role), b'u') => to(Hex(role, 4)),
            (Escape(role), b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                to(Text(role))
            }
            (Hex(role, missing), _) if byte.is_ascii_hexdigit() => {
                to(if missing > 1 { Hex(role, missing - 1) } else { Text(role) })
            }
            (Minus, b'0') => to(Zero),
            (Minus, b'1'..=b'9') | (Digits, b'0'..=b'9') => to(Digits),
            (Zero | Digits, b'.') => to(Point),
            (Point | Fraction, b'0'..=b'9') => to(Fraction),
            (Zero | Digits | Fraction, b'e' | b'E') => to(ExponentMark),
            (ExponentMark, b'+' | b'-') => to(ExponentSign),
            (ExponentMark | ExponentSign | Exponent, b'0'..=b'9') => to(Exponent),
            (Word(rest), _) => match rest.split_first() {
                Some((next, [])) if *next == byte => to(AfterValue),
                Some((next, rest)) if *next == byte => to(Word(rest)),
                _ => None,
            },
            (AfterValue | Zero | Digits | Fraction | Exponent, _) => {
                match (self.is_object(0), byte) {
                    (Some(true), b'}') | (Some(false), b']') => Some(Step::Close),
                    (Some(true), b',') => to(Key),
                    (Some(false), b',') => to(Value),
                    (Some(_), _) if blank => to(AfterValue),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_passed_over_up_to_a_control_character() {
        let mut json = JsonReader::default();
        assert!(json.read(b'"'));
        for (text, expected) in
            [("plain", 5), ("pl\u{1}ain\"", 2), ("\u{1f}", 0), ("a}", 1), ("b\\n", 1), ("", 0)]
        {
            assert_eq!(json.plain_text(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn the_reader_of_json_is_as_strict_as_serde() {
        let samples = [
            r#"{"a":[1,-0,2.5,1e5,1E+5,1.5e-5,0],"b":{},"c":[],"d":[[{}]]}"#,
            r#"{"é":"\"\\\/\b\f\n\r\t\u00e9日"}"#,
            " [ true , false , null , { \"x\" : \"\" } ] ",
            "[01]",
            "[1.]",
            "[.5]",
            "[-]",
            "[+1]",
            "[1e]",
            "[1e+]",
            "[tru]",
            "[nulll]",
            r#"["\x"]"#,
            r#"["\u12g4"]"#,
            "[\"\t\"]",
            "[1,]",
            "[,1]",
            "{,}",
            r#"{"a"}"#,
            r#"{"a":1,}"#,
            r#"{1:2}"#,
            "[}",
            "{]",
            "[1 2]",
        ];
        let agree = |text: &str| {
            let mut json = JsonReader::default();
            let accepted = text
                .bytes()
                .all(|byte| (json.is_closed() && byte.is_ascii_whitespace()) || json.read(byte))
                && json.is_whole();
            let serde =
                serde_json::from_str::<&serde_json::value::RawValue>(text.trim_ascii_start())
                    .is_ok();
            assert_eq!(accepted, serde, "{text}");
        };
        for sample in samples {
            agree(sample);
            // And each of them with one byte less or another.
            for at in (0..sample.len())
                .filter(|at| sample.is_char_boundary(*at) && sample.is_char_boundary(at + 1))
            {
                agree(&format!("{}{}", &sample[..at], &sample[at + 1..]));
                for other in [
                    "0", "1", "-", ".", "e", "\"", "\\", "{", "}", "[", "]", ",", ":", " ", "u",
                    "t",
                ] {
                    agree(&format!("{}{other}{}", &sample[..at], &sample[at + 1..]));
                }
            }
        }
        let deep = format!("{}{}", "[{\"a\":".repeat(500), "}]".repeat(500));
        agree(&deep.replace("\"a\":}", "\"a\":1}"));
        agree(&deep);
    }
}
