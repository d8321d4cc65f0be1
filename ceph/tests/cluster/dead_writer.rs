//! An image whose writer was killed: its watch stays for some 30 seconds, its exclusive lock for ever.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ceph::{Kind, Pool};

use crate::support::{MIB, eventually, kind, new_image, pattern, pool, read, shared, sized, unique};

const READY: &str = "holds the locks";

/// Not a test: the process that the tests kill.
#[tokio::test]
#[ignore = "run by the other tests of this file, in a process of its own"]
async fn child() {
    let Ok(names) = std::env::var("ROCKPOOL_TEST_CHILD") else {
        return;
    };
    let (user, names) = names.split_once(' ').unwrap();
    let pool = pool(user, "images").await;
    let mut open = Vec::new();
    for name in names.split(' ') {
        let image = pool.open(name).await.unwrap();
        image.write(0, vec![pattern(1, 4 << 20)]).await.unwrap();
        open.push(image);
    }
    println!("{READY}");
    std::io::stdout().flush().unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
}

/// A process that has written to the images and has them open.
fn writer(user: &str, names: &[String]) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "dead_writer::child", "--ignored", "--nocapture"])
        .env("ROCKPOOL_TEST_CHILD", format!("{user} {}", names.join(" ")))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(READY)), "the child has written");
    child
}

#[tokio::test]
async fn with_the_caps_of_profile_rbd() {
    let _cluster = shared().await;
    finished_and_removed("rockpool").await;
}

#[tokio::test]
async fn with_classic_caps() {
    let _cluster = shared().await;
    finished_and_removed("classic").await;
}

async fn finished_and_removed(user: &str) {
    let pool = pool(user, "images").await;
    let names: Vec<String> = ["finish", "remove", "rename", "trash", "purge", "meta"].map(unique).to_vec();
    for name in &names {
        pool.create_image(name, &sized(16 * MIB)).await.unwrap();
    }
    let mut writer = writer(user, &names);
    writer.kill().unwrap();
    writer.wait().unwrap();
    let killed = Instant::now();
    let [finish, remove, rename, trash, purge, meta] = names.as_slice() else { unreachable!() };

    // While the watch lives the image is busy, and nothing waits.
    assert_eq!(kind(pool.remove_image(remove).await), Kind::Busy);
    assert!(killed.elapsed() < Duration::from_secs(10));
    eventually("the watches of the dead process are gone", Duration::from_secs(60), async || {
        no_watchers(&pool, &names).await
    })
    .await;
    println!("{user}: watches gone {:?} after the kill", killed.elapsed());

    let start = Instant::now();
    pool.remove_image(remove).await.unwrap();
    println!("{user}: remove {:?}", start.elapsed());
    let renamed = unique("renamed");
    pool.rename_image(rename, &renamed).await.unwrap();
    pool.remove_image(&renamed).await.unwrap();
    pool.trash_move(trash, Duration::ZERO).await.unwrap();
    let id = pool.trash_list().await.unwrap().into_iter().find(|entry| &entry.name == trash).unwrap().id;
    pool.trash_remove(&id, false).await.unwrap();
    let image = pool.open(meta).await.unwrap();
    image.metadata_set("key", "value").await.unwrap();
    image.close().await.unwrap();
    pool.remove_image(meta).await.unwrap();

    // A half-committed upload is finished.
    let start = Instant::now();
    let image = pool.open(finish).await.unwrap();
    assert_eq!(read(&image, 0, 4 << 20).await, pattern(1, 4 << 20));
    image.write(4 * MIB, vec![pattern(2, 4 << 20)]).await.unwrap();
    image.snapshot_create("snap").await.unwrap();
    image.snapshot_protect("snap").await.unwrap();
    image.close().await.unwrap();
    let done = unique("done");
    pool.rename_image(finish, &done).await.unwrap();
    println!("{user}: finish {:?}", start.elapsed());
    let image = pool.open(&done).await.unwrap();
    assert!(image.snapshots().await.unwrap()[0].protected);
    image.snapshot_unprotect("snap").await.unwrap();
    image.snapshot_remove("snap").await.unwrap();
    image.close().await.unwrap();
    pool.remove_image(&done).await.unwrap();
    pool.remove_image(purge).await.unwrap();
}

async fn no_watchers(pool: &Pool, names: &[String]) -> bool {
    for name in names {
        let image = pool.open_read_only(name, None).await.unwrap();
        let watchers = image.watchers().await.unwrap();
        image.close().await.unwrap();
        if !watchers.is_empty() {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn the_lock_of_a_living_writer_is_not_broken() {
    let _cluster = shared().await;
    let pool = pool("rockpool", "images").await;
    let name = unique("living");
    let first = new_image(&pool, &name, 16 * MIB).await;
    first.write(0, vec![pattern(1, 4096)]).await.unwrap();
    // Opening and closing another handle leaves the first one able to write: librbd passes the lock on.
    let other = crate::support::pool("rockpool", "images").await;
    let second = other.open(&name).await.unwrap();
    assert_eq!(second.watchers().await.unwrap().len(), 2);
    second.write(4096, vec![pattern(2, 4096)]).await.unwrap();
    first.write(8192, vec![pattern(3, 4096)]).await.unwrap();
    assert_eq!(kind(other.remove_image(&name).await), Kind::Busy);
    first.write(12288, vec![pattern(4, 4096)]).await.unwrap();
    for block in 0..4 {
        assert_eq!(read(&second, block * 4096, 4096).await, pattern(block + 1, 4096));
    }
    first.close().await.unwrap();
    second.close().await.unwrap();
    pool.remove_image(&name).await.unwrap();
}
