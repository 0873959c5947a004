//! Blobs of the store: in place only when they are proved, taken up where they broke off, fetched once.

use std::sync::atomic::AtomicUsize;

use super::*;
use crate::image::digest::{Algorithm, Verifier};
use crate::image::unpack::{Form, OverlayXattr, Ownership};

const FORM: Form = Form { ownership: Ownership::Record, overlay: OverlayXattr::User };

fn store() -> (tempfile::TempDir, Store) {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(&place.path().join("store"), FORM).unwrap();
    (place, store)
}

fn content() -> (Vec<u8>, Digest) {
    let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let digest = Digest::of(Algorithm::Sha256, &content);
    (content, digest)
}

fn ours(begun: Begun<'_>) -> Partial<'_> {
    match begun {
        Begun::Ours(partial) => partial,
        Begun::Present => panic!("it is there already"),
    }
}

#[test]
fn a_blob_is_taken_up_where_it_broke_off() {
    let (_place, store) = store();
    let (content, digest) = content();
    let size = content.len() as u64;
    let blobs = store.blobs().unwrap();
    let half = content.len() / 2;
    {
        let partial = ours(blobs.begin(&store, &digest, size, || {}).unwrap());
        let mut reader = partial.reader(|at| {
            assert_eq!(at, 0);
            Box::new(&content[..half])
        });
        io::copy(&mut reader, &mut io::sink()).unwrap();
    }
    assert!(store.open_blob(&digest).unwrap().is_none(), "half a blob is visible");
    let partial = ours(blobs.begin(&store, &digest, size, || {}).unwrap());
    assert_eq!(partial.length(), half as u64);
    let mut read = Vec::new();
    partial.reader(|at| Box::new(&content[usize::try_from(at).unwrap()..])).read_to_end(&mut read).unwrap();
    assert!(read == content, "what is read is not the whole blob");
    partial.publish().unwrap();
    assert!(store.has_blob(&digest, size).unwrap());
    assert!(matches!(blobs.begin(&store, &digest, size, || {}).unwrap(), Begun::Present));
    assert_eq!(std::fs::read_dir(store.path().join("tmp")).unwrap().count(), 0, "something is left in tmp");
}

#[test]
fn what_is_wrong_is_not_kept() {
    let (_place, store) = store();
    let (content, digest) = content();
    let blobs = store.blobs().unwrap();
    let partial = ours(blobs.begin(&store, &digest, content.len() as u64, || {}).unwrap());
    let wrong = vec![7; content.len()];
    let expected = Expected { digest: Some(digest), size: Some(content.len() as u64) };
    let mut verifier = Verifier::new(partial.reader(|_| Box::new(&wrong[..])), expected);
    io::copy(&mut verifier, &mut io::sink()).unwrap();
    assert!(verifier.finish().is_err());
    partial.discard();
    assert!(store.open_blob(&digest).unwrap().is_none());
    assert_eq!(ours(blobs.begin(&store, &digest, 10, || {}).unwrap()).length(), 0);
    assert!(blobs.put_document(&digest, b"something else").is_err());
}

#[test]
fn two_share_the_work() {
    let (_place, store) = store();
    let (content, digest) = content();
    let (blobs, fetched) = (store.blobs().unwrap(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let blobs = store.blobs().unwrap();
                let Begun::Ours(partial) = blobs.begin(&store, &digest, content.len() as u64, || {}).unwrap() else {
                    return;
                };
                fetched.fetch_add(1, Ordering::Relaxed);
                io::copy(&mut partial.reader(|_| Box::new(&content[..])), &mut io::sink()).unwrap();
                partial.publish().unwrap();
            });
        }
    });
    assert_eq!(fetched.load(Ordering::Relaxed), 1);
    assert!(matches!(blobs.begin(&store, &digest, content.len() as u64, || {}).unwrap(), Begun::Present));
}

#[test]
fn a_file_cut_by_a_power_failure_is_fetched_again() {
    let (_place, store) = store();
    let (content, digest) = content();
    let blobs = store.blobs().unwrap();
    blobs.put_document(&digest, &content).unwrap();
    let file = store.path().join("blobs/sha256").join(digest.hex());
    File::options().write(true).open(&file).unwrap().set_len(0).unwrap();
    assert!(store.read_document(&digest, 1 << 22).is_err());
    let partial = ours(blobs.begin(&store, &digest, content.len() as u64, || {}).unwrap());
    io::copy(&mut partial.reader(|_| Box::new(&content[..])), &mut io::sink()).unwrap();
    partial.publish().unwrap();
    assert_eq!(store.read_document(&digest, 1 << 22).unwrap(), content);
}
