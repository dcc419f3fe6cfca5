//! The query of a call, taken apart into typed parameters.
//!
//! Pure: text in, values out; any text is either understood or refused with an answer that names
//! the parameter. Percent-encoding only: a plus sign is a plus sign. Unknown parameters are
//! skipped, as HTTP services do, and a parameter given twice is refused, for nobody could say
//! which one counts.
//!
//! Limits: the gate cuts the request line at 8 KiB, so a query is never longer.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use percent_encoding::percent_decode_str;
use turbopump::{
    Ack, Context, Dot, Key, Mirrors, NodeId, PublicKey, Read, Seal, Warrant,
    model::{KeyError, MAX_ADDRS, MAX_KEY_BYTES, parse_signature},
};

/// Longest time to live: 100 years, in seconds. Longer ones are mistakes.
const MAX_TTL_SECONDS: f64 = 100.0 * 365.25 * 86_400.0;

/// Longest wait, in seconds.
const MAX_WAIT_SECONDS: f64 = 3_600.0;

/// Keys of a page, where nothing else is asked for.
pub const DEFAULT_PAGE_KEYS: usize = 1_000;

/// How long `/wait` waits, where nothing else is asked for.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(30);

/// What the parts of a signature look like.
const AUTHOR_FORM: &str = "a public key, 64 hexadecimal digits";
const SEQUENCE_FORM: &str = "the number that the author gave this write";
const SIGNATURE_FORM: &str = "a signature, 128 hexadecimal digits";

/// Why a call can't be understood. Always a 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamError {
    /// It needs to be there.
    #[error("The parameter {name} is missing: {expected}.")]
    Missing {
        /// Which.
        name: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// It can't be read.
    #[error("The parameter {name} is malformed: {expected}.")]
    Malformed {
        /// Which.
        name: String,
        /// What it should be.
        expected: String,
    },
    /// It is longer than allowed.
    #[error("The parameter {name} is too long: it has {len} bytes, at most {max} are allowed.")]
    TooLong {
        /// Which.
        name: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
}

impl ParamError {
    /// The code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing_parameter",
            Self::Malformed { .. } => "malformed_parameter",
            Self::TooLong { .. } => "too_long_parameter",
        }
    }

    fn malformed(name: &str, expected: impl Into<String>) -> Self {
        Self::Malformed { name: name.chars().take(64).collect(), expected: expected.into() }
    }
}

/// The parameters of one call, decoded.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Params {
    pairs: Vec<(String, String)>,
}

/// Path and query of a target.
pub fn split_target(target: &str) -> (&str, &str) {
    target.split_once('?').unwrap_or((target, ""))
}

impl Params {
    /// Takes a query apart.
    ///
    /// # Errors
    /// A name or value that is no percent-encoded UTF-8, or a name that stands there twice.
    pub fn parse(query: &str) -> Result<Self, ParamError> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).map_err(|e| ParamError::malformed(name, e))?;
            let value = decode(value).map_err(|e| ParamError::malformed(&name, e))?;
            if pairs.iter().any(|(n, _)| *n == name) {
                return Err(ParamError::malformed(&name, "it is given twice"));
            }
            pairs.push((name, value));
        }
        Ok(Self { pairs })
    }

    /// The text of a parameter.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// `name`: the key.
    ///
    /// # Errors
    /// Missing, empty or too long.
    pub fn key(&self) -> Result<Key, ParamError> {
        self.key_or_none()?.ok_or(ParamError::Missing { name: "name", expected: "the name of a key" })
    }

    /// `name`, where it may be left out.
    ///
    /// # Errors
    /// Empty or too long.
    pub fn key_or_none(&self) -> Result<Option<Key>, ParamError> {
        let Some(text) = self.text("name") else { return Ok(None) };
        match Key::new(text) {
            Ok(key) => Ok(Some(key)),
            Err(KeyError::Empty) => Err(ParamError::malformed("name", "a name has at least one byte")),
            Err(KeyError::Reserved) => Err(ParamError::malformed("name", "it belongs to the store itself")),
            Err(KeyError::TooLong(len)) => Err(ParamError::TooLong { name: "name", len, max: MAX_KEY_BYTES }),
        }
    }

    /// `mirrors`, also called `copies`: 0 to 65535, 0 for all nodes.
    ///
    /// # Errors
    /// No such number, or both names at once.
    pub fn mirrors(&self) -> Result<Option<Mirrors>, ParamError> {
        if self.text("mirrors").is_some() && self.text("copies").is_some() {
            return Err(ParamError::malformed("copies", "it is another name of mirrors; give one of them"));
        }
        let name = if self.text("mirrors").is_some() { "mirrors" } else { "copies" };
        let expected = "a number from 0 to 65535, where 0 means all nodes";
        Ok(self.number(name, expected)?.map(Mirrors))
    }

    /// `ack`: `local`, a number from 1, `quorum` or `all`.
    ///
    /// # Errors
    /// None of these.
    pub fn ack(&self) -> Result<Option<Ack>, ParamError> {
        self.parsed("ack", |t| parse_ack(t).ok_or(ACK_FORMS))
    }

    /// `read`: `one`, `quorum` or `all`.
    ///
    /// # Errors
    /// None of these.
    pub fn read(&self) -> Result<Option<Read>, ParamError> {
        self.parsed("read", |t| match t {
            "one" => Ok(Read::One),
            "quorum" => Ok(Read::Quorum),
            "all" => Ok(Read::All),
            _ => Err("one, quorum or all"),
        })
    }

    /// `context`, as a read or write gave it out. The empty text is the context that covers nothing.
    ///
    /// # Errors
    /// Not of that form.
    pub fn context(&self) -> Result<Option<Context>, ParamError> {
        self.parsed("context", |t| t.parse().map_err(|_| "what Turbopump-Context said, unchanged"))
    }

    /// `version`, as a read or write gave it out.
    ///
    /// # Errors
    /// Not of that form.
    pub fn version(&self) -> Result<Option<Dot>, ParamError> {
        self.parsed("version", |t| t.parse().map_err(|_| "what Turbopump-Version said, unchanged"))
    }

    /// `ttl` in seconds, more than 0.
    ///
    /// # Errors
    /// No such number.
    pub fn ttl(&self) -> Result<Option<Duration>, ParamError> {
        let expected = "seconds, more than 0 and at most 100 years";
        self.parsed("ttl", |t| match seconds(t) {
            Some(s) if s > 0.0 && s <= MAX_TTL_SECONDS => Ok(Duration::from_secs_f64(s)),
            _ => Err(expected),
        })
    }

    /// `timeout` in seconds, 0 to 3600.
    ///
    /// # Errors
    /// No such number.
    pub fn timeout(&self) -> Result<Option<Duration>, ParamError> {
        self.parsed("timeout", |t| match seconds(t) {
            Some(s) if (0.0..=MAX_WAIT_SECONDS).contains(&s) => Ok(Duration::from_secs_f64(s)),
            _ => Err("seconds, from 0 to 3600"),
        })
    }

    /// `limit`: keys of a page, from 1.
    ///
    /// # Errors
    /// No such number.
    pub fn limit(&self) -> Result<usize, ParamError> {
        let expected = "a number from 1 to 10000";
        match self.number::<usize>("limit", expected)? {
            None => Ok(DEFAULT_PAGE_KEYS),
            Some(n @ 1..=10_000) => Ok(n),
            Some(_) => Err(ParamError::malformed("limit", expected)),
        }
    }

    /// A switch: `1`, `true` or nothing behind the name; `0` or `false`.
    ///
    /// # Errors
    /// None of these.
    pub fn flag(&self, name: &'static str) -> Result<bool, ParamError> {
        let parsed = self.parsed(name, |t| match t {
            "1" | "true" | "" => Ok(true),
            "0" | "false" => Ok(false),
            _ => Err("1 or 0"),
        })?;
        Ok(parsed.unwrap_or(false))
    }

    /// `siblings=all`.
    ///
    /// # Errors
    /// Another value.
    pub fn all_siblings(&self) -> Result<bool, ParamError> {
        let parsed = self.parsed("siblings", |t| if t == "all" { Ok(true) } else { Err("all") })?;
        Ok(parsed.unwrap_or(false))
    }

    /// `uid`: the id of a node.
    ///
    /// # Errors
    /// Missing, or no id.
    pub fn node_id(&self) -> Result<NodeId, ParamError> {
        let expected = "the id of a node, 1 to 32 characters out of A-Z a-z 0-9 . _ -";
        let text = self.text("uid").ok_or(ParamError::Missing { name: "uid", expected })?;
        text.parse().map_err(|_| ParamError::malformed("uid", expected))
    }

    /// `ip`: one or several `IP:PORT`, a bar between two.
    ///
    /// # Errors
    /// Missing, no address, or too many.
    pub fn addrs(&self) -> Result<Vec<SocketAddr>, ParamError> {
        let expected = "IP:PORT of one host, or several with a bar between two";
        let text = self.text("ip").ok_or(ParamError::Missing { name: "ip", expected })?;
        parse_addrs(text).ok_or_else(|| ParamError::malformed("ip", expected))
    }

    /// `expires`: milliseconds since 1970.
    ///
    /// # Errors
    /// No such number.
    pub fn expires(&self) -> Result<Option<u64>, ParamError> {
        self.number("expires", "milliseconds since 1970")
    }

    /// `author`, `sequence` and `signature`, if the call is signed: the sequence, and the seal.
    ///
    /// # Errors
    /// One of them is missing or malformed.
    pub fn seal(&self) -> Result<Option<(u64, Seal)>, ParamError> {
        let author = self.parsed("author", |t| t.parse().map_err(|_| AUTHOR_FORM))?;
        let sequence = self.number("sequence", SEQUENCE_FORM)?;
        let signature = self.signature()?;
        let missing = |name, expected| ParamError::Missing { name, expected };
        if author.is_none() && sequence.is_none() && signature.is_none() {
            return Ok(None);
        }
        let author = author.ok_or(missing("author", AUTHOR_FORM))?;
        let signature = signature.ok_or(missing("signature", SIGNATURE_FORM))?;
        let sequence = sequence.ok_or(missing("sequence", SEQUENCE_FORM))?;
        Ok(Some((sequence, Seal { author, signature })))
    }

    /// `generation`, `signer` and `signature`, if somebody signed the call.
    ///
    /// # Errors
    /// One of the latter two is missing, or one is malformed.
    pub fn warrant(&self) -> Result<Option<(u32, Warrant)>, ParamError> {
        let generation = self.number("generation", "the number that its signer gave this appointment")?;
        let signer = self.parsed("signer", |t| t.parse().map_err(|_| AUTHOR_FORM))?;
        let signature = self.signature()?;
        let missing = |name, expected| ParamError::Missing { name, expected };
        match (signer, signature) {
            (None, None) => Ok(None),
            (Some(signer), Some(signature)) => {
                Ok(Some((generation.unwrap_or(0), Warrant { signer, signature })))
            }
            (None, _) => Err(missing("signer", AUTHOR_FORM)),
            (_, None) => Err(missing("signature", SIGNATURE_FORM)),
        }
    }

    /// `key`: the public key of a node, if it is given.
    ///
    /// # Errors
    /// It is none.
    pub fn public_key(&self) -> Result<Option<PublicKey>, ParamError> {
        self.parsed("key", |t| t.parse().map_err(|_| "the public key of a node, 64 hexadecimal digits"))
    }

    fn signature(&self) -> Result<Option<[u8; 64]>, ParamError> {
        self.parsed("signature", |t| parse_signature(t).ok_or(SIGNATURE_FORM))
    }

    fn number<N: FromStr>(&self, name: &str, expected: &'static str) -> Result<Option<N>, ParamError> {
        self.parsed(name, |t| if is_digits(t) { t.parse().map_err(|_| expected) } else { Err(expected) })
    }

    fn parsed<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Result<Option<T>, ParamError> {
        self.text(name)
            .map(|t| parse(t).map_err(|expected| ParamError::malformed(name, expected)))
            .transpose()
    }
}

/// Reads addresses of one host, a bar between two: of a call or of the command line.
pub fn parse_addrs(text: &str) -> Option<Vec<SocketAddr>> {
    let addrs: Vec<SocketAddr> = text.split('|').map(str::parse).collect::<Result<_, _>>().ok()?;
    (addrs.len() <= MAX_ADDRS && addrs.iter().all(is_of_a_host)).then_some(addrs)
}

/// What an `ack` looks like.
pub const ACK_FORMS: &str = "local, quorum, all or a number of mirrors from 1 to 65535";

/// Reads an `ack`: of a call or of the command line.
pub fn parse_ack(text: &str) -> Option<Ack> {
    match text {
        "local" => Some(Ack::Local),
        "quorum" => Some(Ack::Quorum),
        "all" => Some(Ack::All),
        _ if is_digits(text) => text.parse().ok().filter(|n| *n > 0).map(Ack::Mirrors),
        _ => None,
    }
}

/// For fuzzing: takes any query through every parameter there is.
pub fn check_all(target: &str) {
    let Ok(params) = Params::parse(split_target(target).1) else { return };
    let _ = (params.key(), params.key_or_none(), params.mirrors(), params.ack(), params.read());
    let _ = (params.context(), params.version(), params.ttl(), params.timeout(), params.limit());
    let _ = (params.flag("local"), params.all_siblings(), params.node_id(), params.addrs());
    let _ = (params.expires(), params.seal());
}

/// Whether it can be dialled: an address that means any host or many is none to dial.
pub fn is_of_a_host(addr: &SocketAddr) -> bool {
    let ip = addr.ip();
    addr.port() != 0
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && ip != IpAddr::V4(std::net::Ipv4Addr::BROADCAST)
}

fn decode(text: &str) -> Result<String, &'static str> {
    let bytes = text.as_bytes();
    for (i, _) in bytes.iter().enumerate().filter(|(_, b)| **b == b'%') {
        let is_escape = bytes.get(i + 1..i + 3).is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit));
        if !is_escape {
            return Err("a percent sign is followed by two hexadecimal digits");
        }
    }
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| "it is not UTF-8")?;
    Ok(decoded.into_owned())
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Digits with at most one point: no sign, no exponent, no infinity.
fn seconds(text: &str) -> Option<f64> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if is_plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        Params::parse(query).unwrap()
    }

    #[test]
    fn names_are_percent_decoded_and_nothing_else() {
        let name = |q: &str| params(q).key().unwrap().as_str().to_owned();
        assert_eq!(name("name=a%20b%2Fc%26d+e"), "a b/c&d+e");
        assert_eq!(name("x=1&name=%C3%A4=%25"), "\u{e4}=%");
        assert_eq!(name("name=../../x"), "../../x");
    }

    #[test]
    fn what_is_malformed_is_refused_by_name() {
        for query in ["name=%", "name=%4", "name=%zz", "name=%ff", "name=a&name=a", "%ff=1"] {
            assert_eq!(Params::parse(query).unwrap_err().code(), "malformed_parameter", "{query}");
        }
        assert_eq!(params("").key().unwrap_err().code(), "missing_parameter");
        assert_eq!(params("name=").key().unwrap_err().code(), "malformed_parameter");
        let long = format!("name={}", "x".repeat(1_025));
        assert_eq!(params(&long).key().unwrap_err().code(), "too_long_parameter");
        assert!(params(&format!("name={}", "x".repeat(1_024))).key().is_ok());
        for query in
            ["mirrors=-1", "mirrors=65536", "mirrors=", "mirrors=+1", "mirrors=x", "mirrors=1&copies=1"]
        {
            assert!(params(query).mirrors().is_err(), "{query}");
        }
        for query in ["ack=0", "ack=some", "ack=", "ack=-1"] {
            assert!(params(query).ack().is_err(), "{query}");
        }
        for query in ["ttl=0", "ttl=-1", "ttl=1e9", "ttl=inf", "ttl=NaN", "ttl=.", "ttl=99999999999999"] {
            assert!(params(query).ttl().is_err(), "{query}");
        }
        for query in [
            "ip=1.2.3.4",
            "ip=localhost:1",
            "ip=1.2.3.4:0",
            "ip=",
            "ip=1.2.3.4:1|",
            "x",
            "ip=0.0.0.0:1",
            "ip=[::]:1",
            "ip=224.0.0.1:1",
            "ip=255.255.255.255:1",
        ] {
            assert!(params(query).addrs().is_err(), "{query}");
        }
        assert!(params("context=zz").context().is_err());
        assert!(params("version=1-1").version().is_err());
        assert!(params("limit=0").limit().is_err());
        assert!(params("local=2").flag("local").is_err());
        assert!(params("uid=a%20b").node_id().is_err());
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let none = params("");
        assert_eq!((none.mirrors(), none.ack(), none.read()), (Ok(None), Ok(None), Ok(None)));
        assert_eq!((none.limit(), none.flag("all")), (Ok(1_000), Ok(false)));
        assert_eq!(params("copies=0").mirrors(), Ok(Some(Mirrors::ALL)));
        assert_eq!(params("ack=2").ack(), Ok(Some(Ack::Mirrors(2))));
        assert_eq!(params("ttl=0.5").ttl(), Ok(Some(Duration::from_millis(500))));
        assert_eq!(params("context=").context(), Ok(Some(Context::EMPTY)));
    }
}
