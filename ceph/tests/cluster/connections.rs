//! A connection that repairs itself.

use std::path::Path;
use std::time::Duration;

use ceph::{Cluster, ClusterConfig, Connection, Kind};

use crate::support::{MIB, cluster, config, eventually, kind, new_image, pattern, shared, sized, unique};

#[tokio::test]
async fn one_connection_serves_all() {
    let _cluster = shared().await;
    let connection = Connection::new(config("rockpool"));
    let (one, two, three) = tokio::join!(connection.current(), connection.current(), connection.current());
    let one = one.unwrap();
    assert!(one.is_same(&two.unwrap()) && one.is_same(&three.unwrap()));
    // Only the one in use can be given up, and once.
    let other = cluster("rockpool").await;
    connection.invalidate(&other);
    assert!(one.is_same(&connection.current().await.unwrap()));
    connection.invalidate(&one);
    let next = connection.current().await.unwrap();
    assert!(!one.is_same(&next));
    connection.invalidate(&one);
    assert!(next.is_same(&connection.current().await.unwrap()));
    // The old one lives as long as it has users.
    one.pool("images").await.unwrap().ping().await.unwrap();
}

#[tokio::test]
async fn a_caller_who_gives_up_does_not_waste_the_attempt() {
    let _cluster = shared().await;
    let connection = Connection::new(config("rockpool"));
    tokio::select! {
        biased;
        _ = connection.current() => {}
        () = tokio::task::yield_now() => {}
    }
    connection.current().await.unwrap();
}

#[tokio::test]
async fn a_blocklisted_client_comes_back() {
    let _cluster = shared().await;
    let admin = cluster("admin").await;
    let connection = Connection::new(config("rockpool"));
    let before = connection.current().await.unwrap();
    let pool = before.pool("images").await.unwrap();
    let name = unique("blocklisted");
    let image = new_image(&pool, &name, 8 * MIB).await;
    image.write(0, vec![pattern(1, 4096)]).await.unwrap();

    blocklist(&admin, "add", before.addrs()).await;
    eventually("the OSD refuses the client", Duration::from_secs(10), async || {
        pool.ping().await.is_err_and(|error| error.kind() == Kind::Blocklisted)
    })
    .await;
    let error = image.write(0, vec![pattern(2, 4096)]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Blocklisted, "{error}");
    assert!(error.is_connection_fault());
    assert_eq!(kind(pool.create_image(&unique("no"), &sized(MIB)).await), Kind::Blocklisted);

    connection.invalidate(&before);
    let after = connection.current().await.unwrap();
    assert!(!after.is_same(&before));
    assert_ne!(after.addrs(), before.addrs());
    let fresh = after.pool("images").await.unwrap();
    // A blocklisted client's watch and lock do not stand in the way.
    let again = fresh.open(&name).await.unwrap();
    again.write(4096, vec![pattern(3, 4096)]).await.unwrap();
    again.close().await.unwrap();
    // Whether the old handle closes cleanly or not: it closes.
    let _ = image.close().await;
    eventually("the image can be removed", Duration::from_secs(45), async || fresh.remove_image(&name).await.is_ok())
        .await;
    blocklist(&admin, "rm", before.addrs()).await;
}

async fn blocklist(admin: &Cluster, verb: &str, addr: &str) {
    let command = format!(r#"{{"prefix":"osd blocklist","blocklistop":"{verb}","addr":"{addr}"}}"#);
    admin.mon_command(&command).await.unwrap();
}

#[tokio::test]
async fn a_rotated_key_is_picked_up() {
    let _cluster = shared().await;
    let admin = cluster("admin").await;
    let user = unique("rotated");
    let keyring = std::env::temp_dir().join(format!("{user}.keyring"));
    write_new_key(&admin, &user, &keyring).await;
    let connection =
        Connection::new(ClusterConfig { user: user.clone(), keyring: Some(keyring.clone()), ..config("admin") });
    let first = connection.current().await.unwrap();
    first.pool("images").await.unwrap().ping().await.unwrap();

    // A file that does not work does not cost the connection that does.
    let good = std::fs::read_to_string(&keyring).unwrap();
    std::fs::write(&keyring, format!("[client.{user}]\n\tkey = AQDmrYNlAAAAABAAyLzwQkSyaPc2xEwvNJcwsg==\n")).unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(first.is_same(&connection.current().await.unwrap()));
    std::fs::remove_file(&keyring).unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(first.is_same(&connection.current().await.unwrap()));
    std::fs::write(&keyring, good).unwrap();

    delete_user(&admin, &user).await;
    write_new_key(&admin, &user, &keyring).await;
    let mut next = first.clone();
    for _ in 0..50 {
        next = connection.current().await.unwrap();
        if !next.is_same(&first) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!next.is_same(&first), "the new key makes a new connection");
    next.pool("images").await.unwrap().ping().await.unwrap();
    delete_user(&admin, &user).await;
    std::fs::remove_file(&keyring).unwrap();
}

async fn write_new_key(admin: &Cluster, user: &str, path: &Path) {
    let command = format!(
        r#"{{"prefix":"auth get-or-create","entity":"client.{user}","caps":["mon","profile rbd","osd","profile rbd pool=images"]}}"#
    );
    std::fs::write(path, admin.mon_command(&command).await.unwrap()).unwrap();
}

async fn delete_user(admin: &Cluster, user: &str) {
    admin.mon_command(&format!(r#"{{"prefix":"auth del","entity":"client.{user}"}}"#)).await.unwrap();
}
