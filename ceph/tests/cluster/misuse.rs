//! What goes wrong, and what the error then says.

use std::path::PathBuf;

use ceph::{Cluster, ClusterConfig, CreateOptions, Kind};

use crate::support::{MIB, cluster, config, kind, new_image, pattern, pool, shared, sized, unique};

/// A keyring of client.rockpool that some other cluster would accept.
fn wrong_keyring(user: &str) -> PathBuf {
    let path = std::env::temp_dir().join(unique("keyring"));
    let text = format!("[client.{user}]\n\tkey = AQDmrYNlAAAAABAAyLzwQkSyaPc2xEwvNJcwsg==\n");
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn a_wrong_key_and_an_unknown_user_are_denied_at_once() {
    let _cluster = shared().await;
    for user in ["rockpool", "nobody-of-this-name"] {
        let keyring = wrong_keyring(user);
        let config = ClusterConfig { user: user.into(), keyring: Some(keyring.clone()), ..config("rockpool") };
        let start = std::time::Instant::now();
        let error = Cluster::connect(&config).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied, "{error}");
        assert_eq!((error.call(), error.object()), ("rados_connect", format!("client.{user}").as_str()));
        assert!(start.elapsed().as_secs() < 5);
        std::fs::remove_file(keyring).unwrap();
    }
}

#[tokio::test]
async fn missing_files_are_named() {
    let _cluster = shared().await;
    let keyring = ClusterConfig { keyring: Some("/nonexistent/keyring".into()), ..config("rockpool") };
    let error = Cluster::connect(&keyring).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("\"/nonexistent/keyring\""), "{error}");
    assert!(error.to_string().contains("the keyring is not readable"), "{error}");

    let conf = ClusterConfig { conf: "/nonexistent/ceph.conf".into(), ..config("rockpool") };
    let error = Cluster::connect(&conf).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("ceph.conf"), "{error}");

    // A keyring for somebody else.
    let other =
        ClusterConfig { keyring: Some(crate::support::folder().join("client.nova.keyring")), ..config("rockpool") };
    let error = Cluster::connect(&other).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Denied | Kind::NotFound), "{error}");
}

#[tokio::test]
async fn missing_pools_images_and_snapshots_are_not_found() {
    let _cluster = shared().await;
    let cluster = cluster("rockpool").await;
    let error = cluster.pool("no-such-pool").await.unwrap_err();
    assert_eq!(error.to_string(), "rados_ioctx_create \"no-such-pool\": No such file or directory (ENOENT)");
    assert_eq!(error.kind(), Kind::NotFound);

    let pool = cluster.pool("images").await.unwrap();
    let error = pool.open("no-such-image").await.unwrap_err();
    assert_eq!(error.to_string(), "rbd_open \"images/no-such-image\": No such file or directory (ENOENT)");
    let error = pool.open_read_only("no-such-image", Some("s")).await.unwrap_err();
    assert_eq!(error.object(), "images/no-such-image@s");
    assert_eq!(kind(pool.rename_image("no-such-image", "x").await), Kind::NotFound);
    assert_eq!(kind(pool.remove_image("no-such-image").await), Kind::NotFound);
    assert_eq!(kind(pool.open_by_id("no-such-id").await), Kind::NotFound);
    assert_eq!(kind(pool.trash_remove("no-such-id", false).await), Kind::NotFound);
    assert_eq!(kind(pool.trash_restore("no-such-id", "x").await), Kind::NotFound);
    assert_eq!(kind(pool.open("a\0b").await), Kind::InvalidArgument);

    let options = CreateOptions { data_pool: Some("no-such-pool".into()), ..sized(MIB) };
    assert_eq!(kind(pool.create_image(&unique("no"), &options).await), Kind::NotFound);
    let options = CreateOptions { order: 99, ..sized(MIB) };
    assert_eq!(kind(pool.create_image(&unique("no"), &options).await), Kind::InvalidArgument);

    let name = unique("no-snapshot");
    let image = new_image(&pool, &name, MIB).await;
    assert_eq!(kind(pool.open_read_only(&name, Some("s")).await), Kind::NotFound);
    assert_eq!(kind(image.snapshot_protect("s").await), Kind::NotFound);
    assert_eq!(kind(image.snapshot_remove("s").await), Kind::NotFound);
    image.close().await.unwrap();
    pool.remove_image(&name).await.unwrap();
}

#[tokio::test]
async fn what_the_caps_do_not_allow_is_denied() {
    let _cluster = shared().await;
    // Another pool can be named but not used.
    let vms = pool("rockpool", "vms").await;
    assert_eq!(kind(vms.create_image(&unique("no"), &sized(MIB)).await), Kind::Denied);
    assert_eq!(kind(vms.ping().await), Kind::Denied);
    let command = r#"{"prefix":"auth get-key","entity":"client.admin"}"#;
    let error = vms.cluster().mon_command(command).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{error}");
    let error = vms.cluster().mon_command(r#"{"prefix":"no such command"}"#).await.unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
}

#[tokio::test]
async fn a_full_pool_says_so_and_can_be_emptied() {
    let _cluster = shared().await;
    let admin = cluster("admin").await;
    let name = unique("quota");
    let command = |text: String| {
        let admin = admin.clone();
        async move { admin.mon_command(&text).await }
    };
    command(format!(r#"{{"prefix":"osd pool create","pool":"{name}","pg_num":1}}"#)).await.unwrap();
    command(format!(r#"{{"prefix":"osd pool application enable","pool":"{name}","app":"rbd"}}"#)).await.unwrap();
    command(format!(r#"{{"prefix":"osd pool set-quota","pool":"{name}","field":"max_bytes","val":"8388608"}}"#))
        .await
        .unwrap();
    let pool = admin.pool(&name).await.unwrap();
    let image = new_image(&pool, "big", 4096 * MIB).await;
    // The quota is enforced seconds late.
    let mut full = None;
    for block in 0..1024 {
        let start = std::time::Instant::now();
        if let Err(error) = image.write(block * 4 * MIB, vec![pattern(block, 4 << 20)]).await {
            full = Some((error, start.elapsed()));
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let (error, took) = full.unwrap();
    assert_eq!(error.kind(), Kind::NoSpace, "{error}");
    assert!(took.as_secs() < 5, "{took:?}");
    assert_eq!(kind(pool.create_image("another", &sized(MIB)).await), Kind::NoSpace);
    assert_eq!(pool.usage().await.unwrap().quota_bytes, Some(8 * MIB));
    image.close().await.unwrap();
    pool.remove_image("big").await.unwrap();
    drop(pool);
    command(format!(
        r#"{{"prefix":"osd pool delete","pool":"{name}","pool2":"{name}","yes_i_really_really_mean_it":true}}"#
    ))
    .await
    .unwrap();
}
