#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| rabia_bank_fuzz::tokens::check(input));
