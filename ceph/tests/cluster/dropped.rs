//! Futures and handles dropped at any point.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::support::{MIB, alone, cluster, eventually, new_image, pattern, pool, read, shared, unique};

/// Lets a future begin and drops it. True if it was still running.
fn begin_and_drop<F: Future>(future: F) -> bool {
    let future = pin!(future);
    matches!(future.poll(&mut Context::from_waker(Waker::noop())), Poll::Pending)
}

#[tokio::test]
async fn thousands_of_dropped_writes_and_reads() {
    const PIECE: usize = 16 << 10;
    const PIECES: u64 = 4096;
    let _cluster = shared().await;
    let pool = pool("rockpool", "images").await;
    let name = unique("dropped");
    let image = new_image(&pool, &name, PIECES * PIECE as u64).await;
    // Takes the exclusive lock, so that the writes below do not all wait for it.
    image.write(0, vec![pattern(0, PIECE)]).await.unwrap();
    let mut pending = 0;
    for number in 0..PIECES {
        let offset = number * PIECE as u64;
        // The bytes are freed by whoever drops them last; the reads' buffers, too.
        let data = pattern(number, PIECE);
        let pieces = vec![data.slice(..100), data.slice(100..)];
        drop(data);
        pending += u64::from(begin_and_drop(image.write(offset, pieces)));
        begin_and_drop(image.read(offset, vec![0; PIECE]));
        if number % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert!(pending > PIECES / 2, "most writes were in flight when dropped: {pending}");
    // Waits for all of them.
    image.close().await.unwrap();

    let image = pool.open(&name).await.unwrap();
    for number in 0..PIECES {
        let found = read(&image, number * PIECE as u64, PIECE).await;
        assert_eq!(found, pattern(number, PIECE), "piece {number}");
    }
    assert_eq!(image.watchers().await.unwrap().len(), 1, "only this handle");
    image.close().await.unwrap();
    pool.remove_image(&name).await.unwrap();
}

#[tokio::test]
async fn an_image_dropped_in_flight_closes_by_itself() {
    let _cluster = shared().await;
    let pool = pool("rockpool", "images").await;
    let name = unique("dropped-image");
    let image = new_image(&pool, &name, 64 * MIB).await;
    for number in 0..16 {
        begin_and_drop(image.write(number * 4 * MIB, vec![pattern(number, 4 << 20)]));
    }
    // From here on only the operations hold it, so a callback of librbd drops the last reference.
    drop(image);
    let observer = pool.open_read_only(&name, None).await.unwrap();
    eventually("no watcher is left", Duration::from_secs(20), async || observer.watchers().await.unwrap().is_empty())
        .await;
    for number in 0..16 {
        assert_eq!(read(&observer, number * 4 * MIB, 4 << 20).await, pattern(number, 4 << 20));
    }
    observer.close().await.unwrap();
    pool.remove_image(&name).await.unwrap();
}

#[tokio::test]
async fn calls_dropped_while_they_block_go_on() {
    let _cluster = shared().await;
    let pool = pool("rockpool", "images").await;
    let name = unique("dropped-calls");
    let image = new_image(&pool, &name, MIB).await;
    tokio::select! {
        biased;
        _ = image.snapshot_create("snap") => panic!("a snapshot takes longer than that"),
        () = tokio::time::sleep(Duration::from_millis(1)) => {}
    }
    eventually("the snapshot appears", Duration::from_secs(20), async || !image.snapshots().await.unwrap().is_empty())
        .await;
    image.snapshot_remove("snap").await.unwrap();
    // Opens that nobody waits for close what they opened.
    for _ in 0..20 {
        tokio::select! {
            biased;
            _ = pool.open(&name) => {}
            () = tokio::time::sleep(Duration::from_micros(300)) => {}
        }
    }
    eventually("only this handle watches", Duration::from_secs(20), async || {
        image.watchers().await.unwrap().len() == 1
    })
    .await;
    image.close().await.unwrap();
    // One of those opens may only now have come to its turn.
    eventually("the image can be removed", Duration::from_secs(45), async || pool.remove_image(&name).await.is_ok())
        .await;
}

#[tokio::test]
async fn connections_go_when_their_last_user_does() {
    let _cluster = alone().await;
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let name = unique("dropped-connection");
    new_image(&pool("rockpool", "images").await, &name, 16 * MIB).await.close().await.unwrap();
    let before = threads();
    for number in 0..20 {
        let pool = pool("rockpool", "images").await;
        let image = pool.open(&name).await.unwrap();
        drop(pool);
        for block in 0..4 {
            begin_and_drop(image.write(block * 4 * MIB, vec![pattern(number, 4 << 20)]));
        }
    }
    let pool = cluster("rockpool").await.pool("images").await.unwrap();
    let image = pool.open(&name).await.unwrap();
    eventually("all other watchers are gone", Duration::from_secs(30), async || {
        image.watchers().await.unwrap().len() == 1
    })
    .await;
    image.close().await.unwrap();
    pool.remove_image(&name).await.unwrap();
    drop(pool);
    // Some of tokio's idle blocking threads may have come; each connection would be a dozen.
    eventually("the threads of 20 connections are gone", Duration::from_secs(30), async || threads() < before + 60)
        .await;
}
