//! Reading and writing bytes.

use bytes::Bytes;
use ceph::{Extent, Kind};

use crate::support::{MIB, kind, new_image, pattern, pool, read, shared, unique};

#[tokio::test]
async fn any_number_of_pieces() {
    let _cluster = shared().await;
    let pool = pool("rockpool", "images").await;
    let name = unique("pieces");
    let image = new_image(&pool, &name, 16 * MIB).await;
    // Across an object boundary, in pieces of odd lengths; 1024 is what is passed on as it is.
    for (count, length) in [(1, 3_000_000), (1023, 4099), (1024, 4099), (1025, 4099), (5000, 1021), (5000, 1)] {
        let data = pattern(count as u64, count * length);
        let pieces = (0..count).map(|piece| data.slice(piece * length..(piece + 1) * length)).collect();
        let offset = 4 * MIB - 777;
        image.write(offset, pieces).await.unwrap();
        assert_eq!(read(&image, offset, data.len()).await, data, "{count} pieces of {length}");
    }
    image.write(0, Vec::new()).await.unwrap();
    image.write(0, vec![Bytes::new(), Bytes::new()]).await.unwrap();
    assert_eq!(read(&image, 0, 4096).await, [0; 4096]);
    image.close().await.unwrap();
    pool.remove_image(&name).await.unwrap();
}

#[tokio::test]
async fn nothing_is_written_or_read_beyond_the_end() {
    let _cluster = shared().await;
    let pool = pool("rockpool", "images").await;
    let name = unique("end");
    let image = new_image(&pool, &name, MIB + 100).await;
    let data = pattern(7, 4096);
    assert_eq!(kind(image.write(MIB, vec![data.clone()]).await), Kind::InvalidArgument);
    assert_eq!(kind(image.write(8 * MIB, vec![data.clone()]).await), Kind::InvalidArgument);
    assert_eq!(kind(image.write(u64::MAX, vec![data.clone()]).await), Kind::InvalidArgument);
    assert_eq!(kind(image.write_zeroes(MIB, 4096).await), Kind::InvalidArgument);
    assert_eq!(kind(image.discard(MIB, 4096).await), Kind::InvalidArgument);
    image.write(MIB, vec![data.slice(..100)]).await.unwrap();
    assert_eq!(read(&image, MIB, 4096).await, data[..100]);
    assert!(read(&image, MIB + 100, 4096).await.is_empty());
    assert!(read(&image, u64::MAX, 4096).await.is_empty());
    assert!(read(&image, 0, 0).await.is_empty());

    // Grown by another client: this one finds out when it matters.
    let other = pool.open(&name).await.unwrap();
    other.resize(2 * MIB).await.unwrap();
    other.close().await.unwrap();
    image.write(MIB, vec![data.clone()]).await.unwrap();
    assert_eq!(read(&image, MIB, 4096).await, data);
    image.close().await.unwrap();
    pool.remove_image(&name).await.unwrap();
}

#[tokio::test]
async fn zeros_discards_and_extents() {
    let _cluster = shared().await;
    let pool = pool("rockpool", "images").await;
    let name = unique("extents");
    let image = new_image(&pool, &name, 64 * MIB + 5).await;
    let all = 64 * MIB + 5;
    assert_eq!(image.allocated_extents(0, all).await.unwrap(), []);

    let data = pattern(3, 8 << 20);
    image.write(4 * MIB, vec![data.clone()]).await.unwrap();
    image.write(33 * MIB, vec![data.slice(..10)]).await.unwrap();
    image.write(64 * MIB, vec![data.slice(..5)]).await.unwrap();
    let extent = |offset, length| Extent { offset, length };
    let expected = [extent(4 * MIB, 8 * MIB), extent(32 * MIB, 4 * MIB), extent(64 * MIB, 5)];
    assert_eq!(image.allocated_extents(0, all).await.unwrap(), expected);
    assert_eq!(image.allocated_extents(6 * MIB, MIB).await.unwrap(), [extent(6 * MIB, MIB)]);
    assert_eq!(image.allocated_extents(12 * MIB, MIB).await.unwrap(), []);

    image.write_zeroes(4 * MIB + 1, 100).await.unwrap();
    assert_eq!(read(&image, 4 * MIB, 102).await, [&data[..1], &[0; 100], &data[101..102]].concat());
    image.discard(8 * MIB, 4 * MIB).await.unwrap();
    assert_eq!(read(&image, 8 * MIB, 4096).await, [0; 4096]);
    image.write_zeroes(32 * MIB, 4 * MIB).await.unwrap();
    let expected = [extent(4 * MIB, 4 * MIB), extent(64 * MIB, 5)];
    assert_eq!(image.allocated_extents(0, all).await.unwrap(), expected);

    // A clone holds what its parent holds.
    image.snapshot_create("snap").await.unwrap();
    image.snapshot_protect("snap").await.unwrap();
    let child_name = unique("extents-child");
    pool.clone_image(&name, "snap", &pool, &child_name, &ceph::CloneOptions::default()).await.unwrap();
    let child = pool.open_read_only(&child_name, None).await.unwrap();
    assert_eq!(child.allocated_extents(0, all).await.unwrap(), expected);
    child.close().await.unwrap();
    pool.remove_image(&child_name).await.unwrap();
    image.snapshot_unprotect("snap").await.unwrap();
    image.snapshot_remove("snap").await.unwrap();
    image.close().await.unwrap();
    pool.remove_image(&name).await.unwrap();
}

#[tokio::test]
async fn many_operations_at_once() {
    let _cluster = shared().await;
    let pool = pool("rockpool", "images").await;
    let name = unique("parallel");
    let image = new_image(&pool, &name, 64 * MIB).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..256_u64 {
        let image = image.clone();
        tasks.spawn(async move {
            let data = pattern(number, 256 << 10);
            let offset = number * (256 << 10);
            image.write(offset, vec![data.clone()]).await.unwrap();
            assert_eq!(read(&image, offset, data.len()).await, data);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    image.close().await.unwrap();
    pool.remove_image(&name).await.unwrap();
}

/// Every future can move between threads.
#[test]
fn futures_are_send() {
    fn require<T: Send>(_: impl Fn(&'static ceph::Image) -> T) {}
    require(|image| image.write(0, Vec::new()));
    require(|image| image.read(0, Vec::new()));
    require(|image| image.flush());
    require(|image| image.write_zeroes(0, 0));
    require(|image| image.clone().close());
    require(|image| image.children("snap"));
    require(|image| image.pool().usage());
    require(|image| image.pool().open("x"));
}
