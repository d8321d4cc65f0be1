//! Clones that become images of their own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ceph::{CloneFormat, CloneOptions, Flattening, Kind, Parent, Pool};

use crate::support::{MIB, eventually, kind, new_image, pattern, pool, read, shared, unique};

const SIZE_BYTES: u64 = 64 * MIB;

/// An image with some data at its ends, and a snapshot.
async fn parent(images: &Pool, name: &str) {
    let image = new_image(images, name, SIZE_BYTES).await;
    image.write(0, vec![pattern(1, 1 << 20)]).await.unwrap();
    image.write(SIZE_BYTES - MIB, vec![pattern(2, 1 << 20)]).await.unwrap();
    image.snapshot_create("snap").await.unwrap();
    image.close().await.unwrap();
}

async fn remove(images: &Pool, name: &str) {
    let image = images.open(name).await.unwrap();
    image.snapshot_remove("snap").await.unwrap();
    image.close().await.unwrap();
    images.remove_image(name).await.unwrap();
}

#[tokio::test]
async fn a_flattened_clone_stands_alone_with_its_own_layout_and_its_holes() {
    let _cluster = shared().await;
    let images = pool("admin", "images").await;
    let vms = images.cluster().pool("vms").await.unwrap();
    let (name, copy) = (unique("flat-parent"), unique("flat"));
    parent(&images, &name).await;
    // Objects of another size, data in another pool.
    let options =
        CloneOptions { format: CloneFormat::V2, features: Some(61), order: Some(23), data_pool: Some("images".into()) };
    images.clone_image(&name, "snap", &vms, &copy, &options).await.unwrap();
    let clone = vms.open(&copy).await.unwrap();
    let link = Parent { pool: "images".into(), image: name.clone(), snapshot: "snap".into(), trash: false };
    assert_eq!(clone.parent().await.unwrap(), Some(link));
    let state = Arc::new(Flattening::default());
    assert_eq!(state.objects(), (0, 0));
    clone.flatten(&state).await.unwrap();
    assert_eq!(state.objects().1, SIZE_BYTES / (8 * MIB));
    assert_eq!(clone.parent().await.unwrap(), None);
    assert_eq!(kind(clone.flatten(&Arc::default()).await), Kind::InvalidArgument);
    // The parent may go.
    remove(&images, &name).await;
    let stat = clone.stat().await.unwrap();
    assert_eq!((stat.size_bytes, stat.order, stat.features & 61), (SIZE_BYTES, 23, 61));
    assert_eq!(stat.data_pool_id, images.id());
    assert_eq!(read(&clone, 0, 1 << 20).await, pattern(1, 1 << 20));
    assert_eq!(read(&clone, SIZE_BYTES - MIB, 1 << 20).await, pattern(2, 1 << 20));
    let data: u64 = clone.allocated_extents(0, SIZE_BYTES).await.unwrap().iter().map(|extent| extent.length).sum();
    assert_eq!(data, 16 * MIB, "what the parent did not have was not written");
    clone.close().await.unwrap();
    vms.remove_image(&copy).await.unwrap();
}

#[tokio::test]
async fn flattening_is_cancelled_and_taken_up_again() {
    let _cluster = shared().await;
    let images = pool("admin", "images").await;
    let (name, copy) = (unique("cancel-parent"), unique("cancel"));
    parent(&images, &name).await;
    let options = CloneOptions { format: CloneFormat::V2, ..CloneOptions::default() };
    images.clone_image(&name, "snap", &images, &copy, &options).await.unwrap();
    let clone = images.open(&copy).await.unwrap();
    // 1. By word.
    let state = Arc::new(Flattening::default());
    state.cancel();
    assert_eq!(kind(clone.flatten(&state).await), Kind::Interrupted);
    assert!(clone.parent().await.unwrap().is_some());
    // 2. By dropping the future: it does not keep the image open for long.
    let begun = Instant::now();
    let _ = tokio::time::timeout(Duration::ZERO, clone.flatten(&Arc::default())).await;
    clone.close().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
    eventually("it is closed", Duration::from_secs(5), async || {
        images.open_read_only(&copy, None).await.unwrap().watchers().await.unwrap().is_empty()
    })
    .await;
    // 3. Taken up again, unless it was faster.
    let clone = images.open(&copy).await.unwrap();
    if clone.parent().await.unwrap().is_some() {
        clone.flatten(&Arc::default()).await.unwrap();
    }
    assert_eq!(read(&clone, SIZE_BYTES - MIB, 1 << 20).await, pattern(2, 1 << 20));
    clone.close().await.unwrap();
    let frozen = images.open_read_only(&copy, None).await.unwrap();
    assert_eq!(kind(frozen.flatten(&Arc::default()).await), Kind::ReadOnly);
    frozen.close().await.unwrap();
    images.remove_image(&copy).await.unwrap();
    remove(&images, &name).await;
}
