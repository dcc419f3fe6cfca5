//! `turbopumpd sign`: a write is signed where the author's key is, which is not where a node is.
//!
//! Prints a query for `/write` or `/delete`; who sends it need not be trusted with anything.

use std::{
    fs, io,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use turbopump::{
    Identity, Key, Mirrors, Statement,
    model::{Digester, Kind, signature_text},
};

use crate::args::SignArgs;

/// Whose secret key is in a file.
///
/// # Errors
/// It can't be read, or holds none: as one line.
pub fn signer(path: &Path) -> Result<Identity, String> {
    let fail = |error: String| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    Identity::from_secret_text(&text).map_err(|e| fail(e.to_string()))
}

/// Signs the value on stdin.
///
/// # Errors
/// What is wrong, as one line.
pub fn run(args: &SignArgs, mirrors: Mirrors) -> Result<(), String> {
    let author = signer(&args.key_file)?;
    let key = Key::new(args.key.as_str()).map_err(|e| e.to_string())?;
    let mut value = Hashed::default();
    if !args.delete {
        io::copy(&mut io::stdin().lock(), &mut value).map_err(|e| format!("the value can't be read: {e}"))?;
    }
    let now_ms = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let statement = Statement {
        author: author.public_key(),
        sequence: args.sequence.unwrap_or_else(now_ms),
        kind: if args.delete { Kind::Tombstone } else { Kind::Value },
        len: value.len,
        digest: value.digester.digest(),
        mirrors,
        expires_ms: args.expires,
        context: args.context.clone(),
    };
    let seal = author.seal(&key, &statement).map_err(|e| e.to_string())?;
    let expires = args.expires.map(|at| format!("&expires={at}")).unwrap_or_default();
    println!(
        "name={}&mirrors={}&context={}{expires}&author={}&sequence={}&signature={}",
        utf8_percent_encode(key.as_str(), NON_ALPHANUMERIC),
        mirrors.0,
        args.context,
        seal.author,
        statement.sequence,
        signature_text(&seal.signature),
    );
    Ok(())
}

/// The digest of what is written to it.
#[derive(Default)]
struct Hashed {
    digester: Digester,
    len: u64,
}

impl io::Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.digester.add(bytes);
        self.len += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
