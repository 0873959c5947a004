//! The least that bringing an image here can cost: its layers hashed, inflated and hashed again on two cores, without
//! anything being fetched or written; and the tree copied.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use flate2::bufread::GzDecoder;
use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest, Sha256};

use crate::Result;
use crate::measure::Sample;

const CORES: usize = 2;

/// Hashes and inflates the layers.
pub fn inflate(layers: &[PathBuf]) -> Result<Sample> {
    // The largest first, so that the cores end at about the same time.
    let mut sized = layers.iter().map(|path| Ok((path.metadata()?.len(), path))).collect::<io::Result<Vec<_>>>()?;
    sized.sort();
    let next = AtomicUsize::new(0);
    let work = || -> io::Result<()> {
        while let Some((_, path)) = sized.iter().rev().nth(next.fetch_add(1, Ordering::Relaxed)) {
            let packed = Hashing { inner: File::open(path)?, hash: Sha256::new() };
            let mut unpacked =
                Hashing { inner: GzDecoder::new(BufReader::with_capacity(1 << 17, packed)), hash: Sha256::new() };
            let mut buffer = vec![0; 1 << 17];
            while unpacked.read(&mut buffer)? > 0 {}
            std::hint::black_box(unpacked.hash.finalize());
        }
        Ok(())
    };
    let (start, before) = (Instant::now(), processor());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CORES).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| io::Error::other("a thread panicked"))?)
    })?;
    let nanoseconds = u64::try_from(start.elapsed().as_nanos())?;
    Ok(Sample { nanoseconds, kilobytes: 0, processor: processor() - before, written: 0 })
}

/// Gives the processor time of this process.
fn processor() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap_or_default()
}

struct Hashing<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hash.update(&buffer[..length]);
        Ok(length)
    }
}
