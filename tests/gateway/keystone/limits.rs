//! Unified limits.

use std::time::Duration;

use rockpool::identity::Identity;
use rockpool::identity::keystone::{Keystone, Limits};

use crate::harness::{FakeKeystone, Fault, OWN_PASSWORD, OWN_USER};

/// Keystone as the daemon sees it, without a daemon.
fn identity(keystone: &FakeKeystone, options: &str) -> Identity {
    let text = format!(
        "auth_url = \"{}\"\nusername = \"{OWN_USER}\"\npassword = \"{OWN_PASSWORD}\"\nproject_name = \"service\"\n{options}",
        keystone.url
    );
    Identity::Keystone(Box::new(Keystone::new(&toml::from_str(&text).unwrap()).unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_of_this_service_and_the_project_asked_for() {
    let keystone = FakeKeystone::start();
    for (resource, limit) in
        [("image_size_total", 1000), ("image_stage_total", 500), ("image_count_total", 10), ("volumes", 3)]
    {
        keystone.register_limit(resource, limit);
    }
    keystone.limit("p-demo", "image_count_total", -1);
    let identity = identity(&keystone, "endpoint_id = \"e-image\"");
    let of = async |project: &str| identity.limits(project, Some("req-1")).await.unwrap().unwrap();
    let all = Limits {
        image_size_total_mib: 1000,
        image_stage_total_mib: 500,
        image_count_total: 10,
        // Nobody has registered it.
        image_count_uploading: 0,
    };
    assert_eq!(of("p-alt").await, all);
    assert_eq!(of("p-demo").await, Limits { image_count_total: -1, ..all });
    // A project's name is no part of the query but its value.
    assert_eq!(of("p&project_id=p-demo").await, all);
    // What is changed counts from the next request on.
    keystone.limit("p-alt", "image_size_total", 1);
    assert_eq!(of("p-alt").await, Limits { image_size_total_mib: 1, ..all });
    let asked = keystone.asked();
    let limits: Vec<_> = asked.iter().filter(|asked| asked.target.contains("limits")).collect();
    assert!(limits.iter().all(|asked| asked.target.contains("service_id=s-image")), "{limits:?}");
    assert!(limits.iter().all(|asked| asked.headers["x-openstack-request-id"] == "req-1"), "{limits:?}");
    // A Keystone that is down, and one that has no such endpoint.
    keystone.fault(Fault::Status(500));
    identity.limits("p-other", None).await.unwrap_err();
    assert_eq!(of("p-alt").await, Limits { image_size_total_mib: 1, ..all }, "what was said last goes on");
    keystone.fault(Fault::None);
    let wrong = self::identity(&keystone, "endpoint_id = \"e-none\"");
    assert!(wrong.limits("p-demo", None).await.unwrap_err().to_string().contains("endpoint_id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_remembered_as_long_as_configured() {
    let keystone = FakeKeystone::start();
    let identity = identity(&keystone, "limits_cache_time_s = 4");
    keystone.register_limit("image_count_total", 1);
    let count = async || identity.limits("p-demo", None).await.unwrap().unwrap().image_count_total;
    assert_eq!(count().await, 1);
    keystone.register_limit("image_count_total", 2);
    assert_eq!(count().await, 1);
    tokio::time::sleep(Duration::from_millis(4100)).await;
    assert_eq!(count().await, 2);
}
