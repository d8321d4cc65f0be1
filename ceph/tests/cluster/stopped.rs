//! A cluster that does not answer.

use std::time::{Duration, Instant};

use ceph::{Cluster, ClusterConfig, Connection, Kind};

use crate::support::{MIB, Stopped, alone, config, eventually, kind, new_image, pattern, read, unique};

const TIMEOUT: Duration = Duration::from_secs(3);

fn impatient() -> ClusterConfig {
    ClusterConfig { connect_timeout: TIMEOUT, op_timeout: TIMEOUT, ..config("rockpool") }
}

#[tokio::test]
async fn connecting_ends_when_no_monitor_answers() {
    let _cluster = alone().await;
    let connection = Connection::new(impatient());
    let stopped = Stopped::daemon("mon");
    let start = Instant::now();
    let (one, two) = tokio::join!(connection.current(), connection.current());
    assert_eq!(kind(one), Kind::TimedOut);
    assert_eq!(kind(two), Kind::TimedOut);
    assert!(start.elapsed() < TIMEOUT + Duration::from_secs(2), "one attempt for both: {:?}", start.elapsed());
    drop(stopped);
    eventually("the same connection works", Duration::from_secs(30), async || connection.current().await.is_ok()).await;
}

#[tokio::test]
async fn a_monitor_that_stops_later_costs_only_what_needs_it() {
    let _cluster = alone().await;
    let cluster = Cluster::connect(&impatient()).await.unwrap();
    let pool = cluster.pool("images").await.unwrap();
    let stopped = Stopped::daemon("mon");
    pool.ping().await.unwrap();
    let start = Instant::now();
    assert_eq!(kind(cluster.mon_command(r#"{"prefix":"df"}"#).await), Kind::TimedOut);
    assert!(start.elapsed() < TIMEOUT + Duration::from_secs(2), "{:?}", start.elapsed());
    drop(stopped);
    eventually("the same client works", Duration::from_secs(30), async || {
        cluster.mon_command(r#"{"prefix":"df"}"#).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn input_and_output_end_when_no_osd_answers() {
    let _cluster = alone().await;
    let cluster = Cluster::connect(&impatient()).await.unwrap();
    let pool = cluster.pool("images").await.unwrap();
    let (name, other) = (unique("stopped"), unique("stopped-closed"));
    let image = new_image(&pool, &name, 64 * MIB).await;
    image.write(0, vec![pattern(1, 4096)]).await.unwrap();
    let closed = new_image(&pool, &other, 8 * MIB).await;
    closed.write(0, vec![pattern(1, 4096)]).await.unwrap();

    let stopped = Stopped::daemon("osd");
    let start = Instant::now();
    // The runtime, which has one thread here, goes on meanwhile.
    let ticker = tokio::spawn(async {
        let mut longest = Duration::ZERO;
        let mut last = Instant::now();
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        longest
    });
    let (write, read_back, ping, open, close) = tokio::join!(
        image.write(32 * MIB, vec![pattern(2, 4 << 20)]),
        image.read(0, vec![0; 4096]),
        pool.ping(),
        pool.open(&name),
        closed.close(),
    );
    for result in [write, ping, read_back.map(|_| ()), open.map(|_| ())] {
        assert_eq!(kind(result), Kind::TimedOut);
    }
    assert!(start.elapsed() < 5 * TIMEOUT, "{:?}, close: {close:?}", start.elapsed());
    assert!(ticker.await.unwrap() < Duration::from_secs(1));
    drop(stopped);

    // The same client goes on.
    eventually("the pool answers", Duration::from_secs(30), async || pool.ping().await.is_ok()).await;
    image.write(32 * MIB, vec![pattern(3, 4 << 20)]).await.unwrap();
    assert_eq!(read(&image, 32 * MIB, 4 << 20).await, pattern(3, 4 << 20));
    image.close().await.unwrap();
    pool.remove_image(&name).await.unwrap();
    // The image whose close timed out kept its watch, and maybe a lock of this very client, which is
    // broken without blocklisting.
    eventually("what closed badly can be removed", Duration::from_secs(60), async || {
        pool.remove_image(&other).await.is_ok()
    })
    .await;
}
