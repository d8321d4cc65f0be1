#![no_main]

use rockpool::format::Format;

libfuzzer_sys::fuzz_target!(|data: &[u8]| rockpool_fuzz::disks::disk(Format::Vhdx, data));
