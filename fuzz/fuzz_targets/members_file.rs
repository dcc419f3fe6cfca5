//! The members file: never a panic, and what parses is written so that it parses to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turbopump::model::MembersFile;

fuzz_target!(|text: &str| {
    if let Ok(file) = text.parse::<MembersFile>() {
        let written = file.to_string();
        let again: MembersFile = written.parse().expect("what was written parses");
        assert_eq!(again, file);
        assert_eq!(again.to_string(), written);
    }
});
