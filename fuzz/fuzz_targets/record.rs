//! A version's metadata as a storage keeps it: never a panic, and what decodes is written so that it
//! decodes to the same. Contexts and versions as text, too, which clients send.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turbopump::{
    Context, Dot,
    storage::{decode_version, encode_version},
};

fuzz_target!(|data: &[u8]| {
    if let Ok(version) = decode_version(data) {
        let again = decode_version(&encode_version(&version)).expect("what was encoded decodes");
        assert_eq!(again, version);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(context) = text.parse::<Context>() {
        let ranges: Vec<_> = context.ranges().collect();
        assert!(ranges.windows(2).all(|w| w[0].0 < w[1].0 || w[0].2 < w[1].1), "{context:?}");
        assert_eq!(context.to_string().parse(), Ok(context.clone()));
        assert!(context.includes(&context));
    }
    if let Ok(dot) = text.parse::<Dot>() {
        assert_eq!(dot.to_string().parse(), Ok(dot));
    }
});
