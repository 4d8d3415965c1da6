//! Output of strangers as text that may be shown anywhere: what could change how other text is seen, or drive a terminal, is
//! spelled out. Pure, and piece by piece: a character or a sequence may be cut anywhere between two pieces.

/// Longest sequence of a colour that is taken for one.
const COLOUR: usize = 32;

/// The last `lines` lines, the last of which need not have ended.
pub(crate) fn last_lines(text: &[u8], lines: usize) -> &[u8] {
    let Some(before) = lines.checked_sub(1) else { return &[] };
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let mut breaks = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    breaks.nth(before).map_or(text, |(at, _)| &text[at + 1..])
}

/// Makes text of bytes.
///
/// Line breaks and tabs stay; a carriage return, as progress bars use it, is a line break too, and none of its own before one.
/// Colours (`ESC [ … m`) go. All other control characters, marks that turn the direction of writing, and characters that nobody
/// sees become escapes, `\u{1b}`. What is no UTF-8 becomes U+FFFD.
#[derive(Debug, Default)]
pub(crate) struct Readable {
    /// A character whose end has not come.
    cut: Vec<u8>,
    /// An escape sequence whose end has not come.
    escape: String,
    /// A carriage return came, and nothing behind it.
    returned: bool,
}

impl Readable {
    /// All of `bytes`.
    pub(crate) fn whole(bytes: &[u8]) -> String {
        let mut readable = Self::default();
        let mut text = readable.push(bytes);
        text += &readable.end();
        text
    }

    /// The next piece, as far as it is whole.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        let mut pending = std::mem::take(&mut self.cut);
        pending.extend_from_slice(bytes);
        let mut out = String::with_capacity(pending.len());
        let mut rest = pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    text.chars().for_each(|c| self.take(c, &mut out));
                    return out;
                }
                Err(error) => {
                    let (good, bad) = rest.split_at(error.valid_up_to());
                    std::str::from_utf8(good)
                        .unwrap_or_default()
                        .chars()
                        .for_each(|c| self.take(c, &mut out));
                    let Some(length) = error.error_len() else {
                        self.cut = bad.to_vec();
                        return out;
                    };
                    self.take(char::REPLACEMENT_CHARACTER, &mut out);
                    rest = &bad[length..];
                }
            }
        }
    }

    /// What is left when nothing more comes.
    pub(crate) fn end(&mut self) -> String {
        let mut out = String::new();
        if !std::mem::take(&mut self.cut).is_empty() {
            self.take(char::REPLACEMENT_CHARACTER, &mut out);
        }
        self.give_up_escape(&mut out);
        if std::mem::take(&mut self.returned) {
            out.push('\n');
        }
        out
    }

    fn take(&mut self, c: char, out: &mut String) {
        if std::mem::take(&mut self.returned) {
            out.push('\n');
            if c == '\n' {
                return;
            }
        }
        if !self.escape.is_empty() {
            let opens = self.escape.len() == 1 && c == '[';
            let goes_on = self.escape.len() > 1 && (c.is_ascii_digit() || matches!(c, ';' | ':'));
            if self.escape.len() > 1 && c == 'm' {
                self.escape.clear();
                return;
            }
            if (opens || goes_on) && self.escape.len() < COLOUR {
                self.escape.push(c);
                return;
            }
            self.give_up_escape(out);
        }
        match c {
            '\n' | '\t' => out.push(c),
            '\r' => self.returned = true,
            '\u{1b}' => self.escape.push(c),
            c if is_unseen(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }

    /// It was no colour.
    fn give_up_escape(&mut self, out: &mut String) {
        for c in std::mem::take(&mut self.escape).chars() {
            if is_unseen(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
        }
    }
}

/// Control characters, line and paragraph separators, zero-width characters, direction marks, embeddings, overrides and
/// isolates, tags: as the web page has them, too.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_lines_are_lines_whether_or_not_the_last_has_ended() {
        for (text, lines, last) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 5, "a\nb\n"),
            ("a\n", 0, ""),
            ("", 3, ""),
            ("\n\n\n", 2, "\n\n"),
        ] {
            assert_eq!(last_lines(text.as_bytes(), lines), last.as_bytes(), "{text:?}");
        }
    }

    #[test]
    fn hostile_output_is_spelled_out_and_lines_stay_lines() {
        for (printed, shown) in [
            ("plain ü 漢\tx\n", "plain ü 漢\tx\n"),
            ("a\r\nb\r\nc", "a\nb\nc"),
            ("10%\r50%\r100%\n", "10%\n50%\n100%\n"),
            ("\u{1b}[31mred\u{1b}[0m \u{1b}[1;38;5;9mx\u{1b}[m", "red x"),
            ("\u{1b}[2J\u{1b}]0;title\u{7}\u{1b}", "\\u{1b}[2J\\u{1b}]0;title\\u{7}\\u{1b}"),
            ("\u{1b}\u{1b}[31mx", "\\u{1b}x"),
            ("\u{202e}abc\u{2066}\u{feff}\u{9b}31m", "\\u{202e}abc\\u{2066}\\u{feff}\\u{9b}31m"),
            ("<script>alert(1)</script>&amp;", "<script>alert(1)</script>&amp;"),
        ] {
            assert_eq!(Readable::whole(printed.as_bytes()), shown, "{printed:?}");
        }
        assert_eq!(Readable::whole(b"\xff\xe6\xbc"), "\u{fffd}\u{fffd}");
        let long = format!("\u{1b}[{}m", "1;".repeat(1000));
        assert!(Readable::whole(long.as_bytes()).starts_with("\\u{1b}[1;1;"));
    }

    proptest! {
        #[test]
        fn however_output_is_cut_the_text_is_the_same_and_harmless(
            pieces in prop::collection::vec(
                prop_oneof![
                    any::<Vec<u8>>(),
                    "[a-zé漢\r\n\t\u{1b}\\[0-9;m\u{202e}\u{9b}]{0,20}".prop_map(String::into_bytes),
                ],
                0..8,
            ),
            width in 1_usize..7,
        ) {
            let all = pieces.concat();
            let whole = Readable::whole(&all);
            let mut readable = Readable::default();
            let mut cut: String = all.chunks(width).map(|piece| readable.push(piece)).collect();
            cut += &readable.end();
            prop_assert_eq!(&cut, &whole);
            prop_assert!(!whole.chars().any(|c| is_unseen(c) && c != '\n' && c != '\t'), "{:?}", whole);
        }
    }
}
