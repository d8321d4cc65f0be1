#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rockpool_fuzz::disks::unpack(data));
