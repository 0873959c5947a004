#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| husk::fuzzing::dns_messages(bytes));
