//! The life of an image, as each kind of user may live it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use ceph::{Children, CloneFormat, CloneOptions, CreateOptions, Kind, Pool, TrashSource};

use crate::support::{MIB, cluster, kind, new_image, pattern, pool, read, shared, sized, unique};

#[tokio::test]
async fn with_the_caps_of_profile_rbd() {
    let _cluster = shared().await;
    whole_life(&pool("rockpool", "images").await).await;
}

#[tokio::test]
async fn with_classic_caps() {
    let _cluster = shared().await;
    whole_life(&pool("classic", "images").await).await;
}

/// What the gateway does with an image, in its order.
async fn whole_life(pool: &Pool) {
    let (attempt, name) = (unique("life-attempt"), unique("life"));
    let options = CreateOptions { size_bytes: 24 * MIB, order: 23, features: None, data_pool: None };
    pool.create_image(&attempt, &options).await.unwrap();
    assert_eq!(kind(pool.create_image(&attempt, &options).await), Kind::Exists);

    let image = pool.open(&attempt).await.unwrap();
    let stat = image.stat().await.unwrap();
    assert_eq!((stat.size_bytes, stat.order, stat.objects), (24 * MIB, 23, 3));
    assert!(stat.object_prefix.starts_with("rbd_data."), "{}", stat.object_prefix);
    assert_eq!(stat.object_prefix, format!("rbd_data.{}", image.id().await.unwrap()));
    assert_eq!(stat.data_pool_id, pool.id());
    assert_eq!(stat.features & 1, 1, "layering");

    let data = pattern(1, 8 << 20);
    image.write(0, vec![data.slice(..1000), data.slice(1000..)]).await.unwrap();
    image.write_zeroes(4096, 4096).await.unwrap();
    image.resize(16 * MIB).await.unwrap();
    image.flush().await.unwrap();
    image.metadata_set("rockpool.name", "a name").await.unwrap();
    image.snapshot_create("snap").await.unwrap();
    assert_eq!(kind(image.snapshot_create("snap").await), Kind::Exists);
    image.snapshot_protect("snap").await.unwrap();
    image.close().await.unwrap();

    pool.rename_image(&attempt, &name).await.unwrap();
    assert_eq!(kind(pool.open(&attempt).await), Kind::NotFound);
    assert!(pool.object_exists(&format!("rbd_id.{name}")).await.unwrap());
    assert!(!pool.object_exists(&format!("rbd_id.{attempt}")).await.unwrap());
    assert!(pool.list_images().await.unwrap().iter().any(|image| image.name == name));
    // Page by page, in order, and all of it.
    let mut names = vec![String::new()];
    while let Some(last) =
        pool.list_images_after(&names[names.len() - 1], 2).await.unwrap().last().map(|i| i.name.clone())
    {
        names.push(last);
    }
    assert!(names.is_sorted());
    let before = names.iter().rfind(|page| **page < name).unwrap();
    assert!(pool.list_images_after(before, 2).await.unwrap().iter().any(|image| image.name == name));

    let snapshot = pool.open_read_only(&name, Some("snap")).await.unwrap();
    let mut expected = data.to_vec();
    expected[4096..8192].fill(0);
    assert_eq!(read(&snapshot, 0, 8 << 20).await, expected);
    assert_eq!(kind(snapshot.write(0, vec![data.clone()]).await), Kind::ReadOnly);
    snapshot.close().await.unwrap();

    let image = pool.open(&name).await.unwrap();
    let snapshots = image.snapshots().await.unwrap();
    assert_eq!(snapshots.len(), 1);
    assert_eq!((snapshots[0].name.as_str(), snapshots[0].size_bytes), ("snap", 16 * MIB));
    assert!(snapshots[0].protected);

    let child = unique("life-child");
    let v1 = CloneOptions { format: CloneFormat::V1, ..CloneOptions::default() };
    pool.clone_image(&name, "snap", pool, &child, &v1).await.unwrap();
    assert_eq!(kind(image.snapshot_unprotect("snap").await), Kind::HasChildren);
    let Children::Known(children) = image.children("snap").await.unwrap() else {
        panic!("a child in the same pool is known");
    };
    assert_eq!((children[0].pool.as_str(), children[0].image.as_str()), ("images", child.as_str()));
    assert_eq!(kind(pool.remove_image(&name).await), Kind::Busy);
    pool.remove_image(&child).await.unwrap();
    assert!(image.children("snap").await.unwrap().is_empty());

    assert_eq!(kind(image.snapshot_remove("snap").await), Kind::Busy);
    image.snapshot_unprotect("snap").await.unwrap();
    image.snapshot_remove("snap").await.unwrap();
    assert_eq!(image.snapshots().await.unwrap(), []);
    assert_eq!(kind(pool.remove_image(&name).await), Kind::Busy);
    image.close().await.unwrap();

    trash_cycle(pool, &name).await;
    pool.remove_image(&name).await.unwrap();
    assert_eq!(kind(pool.remove_image(&name).await), Kind::NotFound);
}

async fn trash_cycle(pool: &Pool, name: &str) {
    pool.trash_move(name, Duration::from_secs(3600)).await.unwrap();
    assert_eq!(kind(pool.open(name).await), Kind::NotFound);
    let entry = pool.trash_list().await.unwrap().into_iter().find(|entry| entry.name == name).unwrap();
    assert_eq!(entry.source, TrashSource::User);
    let deferment = entry.deferment_end.duration_since(entry.deleted_at).unwrap();
    assert_eq!(deferment.as_secs(), 3600);
    assert!(entry.deleted_at > SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000));

    let image = pool.open_by_id(&entry.id).await.unwrap();
    assert_eq!(image.id().await.unwrap(), entry.id);
    image.close().await.unwrap();
    assert_eq!(kind(pool.trash_remove(&entry.id, false).await), Kind::Denied);
    pool.trash_restore(&entry.id, name).await.unwrap();
    assert_eq!(pool.open(name).await.unwrap().id().await.unwrap(), entry.id);

    let other = unique("trash");
    let image = new_image(pool, &other, 8 * MIB).await;
    image.write(0, vec![pattern(1, 4096)]).await.unwrap();
    let id = image.id().await.unwrap();
    image.close().await.unwrap();
    pool.trash_move(&other, Duration::from_secs(3600)).await.unwrap();
    pool.trash_remove(&id, true).await.unwrap();
    assert!(!pool.trash_list().await.unwrap().iter().any(|entry| entry.id == id));
    assert!(!pool.object_exists(&format!("rbd_header.{id}")).await.unwrap());
}

#[tokio::test]
async fn metadata_is_paged_and_of_any_length() {
    let _cluster = shared().await;
    let pool = pool("rockpool", "images").await;
    let name = unique("metadata");
    let image = new_image(&pool, &name, MIB).await;
    assert_eq!(image.metadata_list().await.unwrap(), BTreeMap::new());

    let mut expected = BTreeMap::new();
    for number in 0..300 {
        // Empty, short, and longer than any first buffer; 100 to 200 are as long as a page's buffer together.
        let length = match number {
            0..100 => number,
            100..200 => 1000,
            _ => 3,
        };
        expected.insert(format!("key.{number}"), "ä".repeat(length));
    }
    expected.insert("long".to_owned(), "x".repeat(60_000));
    for (key, value) in &expected {
        image.metadata_set(key, value).await.unwrap();
    }
    assert_eq!(image.metadata_list().await.unwrap(), expected);
    assert_eq!(image.metadata_get("long").await.unwrap().as_ref(), expected.get("long"));
    assert_eq!(image.metadata_get("key.0").await.unwrap().as_deref(), Some(""));
    assert_eq!(image.metadata_get("key.1000").await.unwrap(), None);
    image.metadata_remove("long").await.unwrap();
    assert_eq!(image.metadata_get("long").await.unwrap(), None);
    assert_eq!(kind(image.metadata_remove("long").await), Kind::NotFound);
    image.close().await.unwrap();
    pool.remove_image(&name).await.unwrap();
}

#[tokio::test]
async fn lists_more_images_and_snapshots_than_fit_the_first_buffer() {
    let _cluster = shared().await;
    let pool = pool("rockpool", "images").await;
    let prefix = unique("many");
    for number in 0..40 {
        pool.create_image(&format!("{prefix}-{number}"), &sized(MIB)).await.unwrap();
    }
    let image = pool.open(&format!("{prefix}-0")).await.unwrap();
    // Taking one costs a round of the monitors; more than 16 do not fit.
    for number in 0..18 {
        image.snapshot_create(&format!("s{number}")).await.unwrap();
    }
    let names: Vec<String> = image.snapshots().await.unwrap().into_iter().map(|snapshot| snapshot.name).collect();
    assert_eq!(names, (0..18).map(|number| format!("s{number}")).collect::<Vec<_>>());
    for name in names {
        image.snapshot_remove(&name).await.unwrap();
    }
    image.close().await.unwrap();
    let mine = |image: &ceph::ImageId| image.name.starts_with(&format!("{prefix}-"));
    let images: Vec<_> = pool.list_images().await.unwrap().into_iter().filter(mine).collect();
    assert_eq!(images.len(), 40);
    assert!(images.iter().all(|image| !image.id.is_empty()));
    for image in images {
        pool.remove_image(&image.name).await.unwrap();
    }
}

#[tokio::test]
async fn tells_what_the_cluster_is() {
    let _cluster = shared().await;
    let cluster = cluster("rockpool").await;
    assert_eq!(cluster.fsid().len(), 36);
    assert!(cluster.addrs().contains(":0/"), "{}", cluster.addrs());
    let features = cluster.config_option("rbd_default_features").await.unwrap();
    assert!(features.is_some_and(|features| !features.is_empty()));
    assert_eq!(cluster.config_option("rbd_cache").await.unwrap().as_deref(), Some("false"));
    assert_eq!(cluster.config_option("rados_osd_op_timeout").await.unwrap().as_deref(), Some("20"));
    assert_eq!(cluster.config_option("no_such_option").await.unwrap(), None);
    let version = cluster.mon_command(r#"{"prefix":"version","format":"json"}"#).await.unwrap();
    assert!(String::from_utf8(version).unwrap().contains("ceph version"));

    for user in ["rockpool", "classic"] {
        let pool = pool(user, "images").await;
        pool.ping().await.unwrap();
        let usage = pool.usage().await.unwrap();
        assert!(usage.max_available_bytes.is_some_and(|bytes| bytes > MIB), "{user}: {usage:?}");
        assert_eq!(usage.quota_bytes, None);
    }
}
