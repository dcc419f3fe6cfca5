//! The bearer token that clients show, where one is asked for.

use std::{fmt, fs, path::Path};

use subtle::ConstantTimeEq;

/// The shortest token, in bytes: short ones are guessed.
pub const MIN_TOKEN_BYTES: usize = 16;

/// What every request has to show.
#[derive(Clone)]
pub struct BearerToken(Box<[u8]>);

impl BearerToken {
    /// Reads it from a file, without the line break that editors put at its end.
    ///
    /// # Errors
    /// The file can't be read, or holds no token: one line of at least [`MIN_TOKEN_BYTES`] printable
    /// characters without blanks.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let token = text.trim_ascii_end();
        match token.len() >= MIN_TOKEN_BYTES && token.iter().all(u8::is_ascii_graphic) {
            true => Ok(Self(token.into())),
            false => Err(format!(
                "{}: a token is one line of at least {MIN_TOKEN_BYTES} characters, none of them a blank",
                path.display()
            )),
        }
    }

    /// The header that shows it, with its line break.
    pub fn header(&self) -> String {
        format!("Authorization: Bearer {}\r\n", String::from_utf8_lossy(&self.0))
    }

    /// Whether this is it. Takes as long for a nearly right one as for a wrong one of its length.
    pub(super) fn is(&self, shown: Option<&[u8]>) -> bool {
        shown.is_some_and(|shown| self.0.ct_eq(shown).into())
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken")
    }
}

/// The token in the value of an `Authorization` header.
pub(super) fn shown_in(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_itself_and_nothing_else() {
        let token = BearerToken((*b"0123456789abcdef").into());
        assert!(token.is(shown_in(b"Bearer 0123456789abcdef")));
        assert!(token.is(shown_in(b"bearer  0123456789abcdef")));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "0123456789abcdef",
            "Basic 0123456789abcdef",
            "Bearer 0123456789abcdeF",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Bearer0123456789abcdef",
        ] {
            assert!(!token.is(shown_in(wrong.as_bytes())), "{wrong:?}");
        }
        assert!(!token.is(None) && !format!("{token:?}").contains("0123"));
    }

    #[test]
    fn a_token_comes_from_one_line_that_is_long_enough() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, is_one) in [
            ("0123456789abcdef", true),
            ("0123456789abcdef\r\n", true),
            ("0123456789abcde\n", false),
            ("", false),
            ("0123456789 abcdef", false),
            ("0123456789abcdef\n0123456789abcdef\n", false),
        ] {
            fs::write(file.path(), text).unwrap();
            assert_eq!(BearerToken::read(file.path()).is_ok(), is_one, "{text:?}");
        }
        assert!(BearerToken::read(Path::new("/nonexistent")).unwrap_err().contains("/nonexistent"));
    }
}
