//! Against the real thing: what the Keystone of these tests says is what Keystone says.

use rockpool::identity::Identity;
use rockpool::identity::keystone::{Keystone, Limits};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;
use ureq::SendBody;

use crate::harness::{Answer, Client, Gateway, Site, SlowUpload, assert_active, eventually, random_bytes, status_of};

fn client(gateway: &Gateway, token: &str) -> Client {
    Client::new(&gateway.url, Some(token))
}

#[test]
fn real_users_are_who_they_are() {
    let Some(site) = Site::find() else { return };
    let gateway = Gateway::start(site.options());
    let as_user = |user: &str| client(&gateway, &site.token(user));
    let demo = as_user("demo");
    let image = demo.post("/v2/images", &json!({"name": "mine"})).expect(201).json();
    assert_eq!(image["owner"], site.project("demo"));
    let path = format!("/v2/images/{}", image["id"].as_str().unwrap());
    for (user, get, delete) in
        [("alt_demo", 404, 404), ("norole", 404, 404), ("reader", 200, 403), ("manager", 200, 204), ("admin", 404, 404)]
    {
        as_user(user).get(&path).expect(get);
        as_user(user).delete(&path).expect(delete);
    }
    as_user("norole").get("/v2/images").expect(403);
    as_user("nova").get("/v2/images").expect(200);
    let answer = client(&gateway, "gAAAAA-no-such-token").get("/v2/images").expect(401);
    assert_eq!(answer.header("www-authenticate"), format!("Keystone uri=\"{}\"", site.url));
}

#[test]
fn a_real_token_that_is_revoked_is_refused_after_the_cache_time() {
    let Some(site) = Site::find() else { return };
    let gateway = Gateway::start(site.options().set("identity.keystone", "token_cache_time_s", 2));
    let token = site.token("demo");
    client(&gateway, &token).get("/v2/images").expect(200);
    site.revoke(&token);
    eventually("it is refused", 60, || client(&gateway, &token).get("/v2/images").status == 401);
}

#[test]
fn real_scopes_other_than_projects_are_403() {
    let Some(site) = Site::find() else { return };
    let gateway = Gateway::start(site.options());
    for (user, scope, word) in [
        ("admin", json!({"system": {"all": true}}), "the system"),
        ("admin", json!({"domain": {"id": "default"}}), "a domain"),
        ("demo", Value::Null, "anything"),
    ] {
        let answer = client(&gateway, &site.token_for(user, scope)).get("/v2/images").expect(403);
        assert!(answer.text().contains(word), "{}", answer.text());
    }
}

/// An application credential of `demo` that ends in `seconds`; so do its tokens.
fn short_token(site: &Site, seconds: i64) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    let end = (OffsetDateTime::now_utc() + time::Duration::seconds(seconds)).format(format).unwrap();
    let user = site.people["users"]["demo"]["id"].as_str().unwrap();
    let body = json!({"application_credential": {"name": uuid::Uuid::new_v4(), "expires_at": end}});
    let credential =
        site.as_user("demo").post(&format!("/users/{user}/application_credentials"), &body).expect(201).json();
    let credential = &credential["application_credential"];
    site.login_with(credential["id"].clone(), credential["secret"].clone())
}

#[test]
fn a_real_expired_token_is_good_only_beside_a_service_token() {
    let Some(site) = Site::find() else { return };
    let gateway = Gateway::start(site.options());
    let nova = site.token("nova");
    let token = short_token(&site, 15);
    let beside =
        |service: &str| client(&gateway, &token).get_with("/v2/images", &[("x-service-token", service)]).status;
    client(&gateway, &token).get("/v2/images").expect(200);
    eventually("it has expired", 60, || client(&gateway, &token).get("/v2/images").status == 401);
    assert_eq!(beside(&nova), 200);
    assert_eq!(beside(&site.token("demo")), 401);
    assert_eq!(beside("gAAAAA-no-such-token"), 401);
    client(&gateway, &token).get("/v2/images").expect(401);
    // A service's own system-wide token has no such role.
    assert_eq!(beside(&site.token_for("glance", json!({"system": {"all": true}}))), 401);
}

#[test]
fn real_access_rules_are_kept() {
    let Some(site) = Site::find() else { return };
    let gateway = Gateway::start(site.options());
    let id = client(&gateway, &site.token("demo")).create("mine");
    let all = client(&gateway, &site.token_of_credential("demo-app"));
    let shows = client(&gateway, &site.token_of_credential("demo-app-show"));
    let path = format!("/v2/images/{id}");
    for client in [&all, &shows] {
        client.get("/v2/images").expect(200);
        client.get("/v2/images?limit=1").expect(200);
        client.get(&path).expect(200);
    }
    for (method, path) in
        [("GET", format!("{path}/file")), ("DELETE", path.clone()), ("GET", "/v2/schemas/image".into())]
    {
        let answer = shows.send(method, &path, &[], SendBody::none()).expect(403);
        assert!(answer.text().contains("access rules"), "{}", answer.text());
    }
    shows.post("/v2/images", &json!({})).expect(403);
    // A service that works on the user's behalf may.
    let nova = site.token("nova");
    shows.get_with(&format!("{path}/file"), &[("x-service-token", &nova)]).expect(204);
    all.delete(&path).expect(204);
}

#[test]
fn a_gateway_can_be_an_application_credential_or_a_mere_service() {
    let Some(site) = Site::find() else { return };
    let credential = &site.people["application_credentials"]["glance-app"];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let by_credential = Gateway::start(
        site.options()
            .unset("identity.keystone", "username")
            .unset("identity.keystone", "password")
            .unset("identity.keystone", "project_name")
            .set("identity.keystone", "application_credential_id", text(&credential["id"]))
            .set("identity.keystone", "application_credential_secret", text(&credential["secret"]))
            .set("identity.keystone", "interface", "internal")
            .set("identity.keystone", "region_name", "RegionOne"),
    );
    client(&by_credential, &site.token("demo")).get("/v2/images").expect(200);
    let (name, password) = mere_service(&site);
    let by_service = by_credential.sibling_with(site.options().set("identity.keystone", "username", name).set(
        "identity.keystone",
        "password",
        password,
    ));
    client(&by_service, &site.token("alt_demo")).get("/v2/images").expect(200);
    // One who may not validate tokens is no reason to send clients away.
    let demo = &site.people["users"]["demo"];
    let by_nobody = by_credential.sibling_with(
        site.options()
            .set("identity.keystone", "username", "demo")
            .set("identity.keystone", "password", text(&demo["password"]))
            .set("identity.keystone", "project_name", "demo"),
    );
    client(&by_nobody, &site.token("alt_demo")).get("/v2/images").expect(503);
    assert!(by_nobody.log().contains("our user needs the role service"), "{}", by_nobody.log());
}

/// A user with nothing but the role `service`: name and password.
fn mere_service(site: &Site) -> (String, String) {
    let admin = site.as_user("admin");
    let (name, password) = (format!("service-{}", uuid::Uuid::new_v4()), uuid::Uuid::new_v4().to_string());
    let body = json!({"user": {"name": name, "password": password, "domain_id": "default"}});
    let user = admin.post("/users", &body).expect(201).json()["user"]["id"].as_str().unwrap().to_owned();
    let (project, role) = (site.project("service"), site.people["roles"]["service"].as_str().unwrap().to_owned());
    let path = format!("/projects/{project}/users/{user}/roles/{role}");
    admin.send("PUT", &path, &[], SendBody::none()).expect(204);
    (name, password)
}

/// Names of the limits, in the order of [`Place::new`].
const LIMITS: [&str; 4] = ["image_size_total", "image_stage_total", "image_count_total", "image_count_uploading"];

/// An image service and a region of its own, where nobody else sets limits.
struct Place {
    service: Value,
    region: Value,
    endpoint: String,
    registered: Value,
}

impl Place {
    /// Registers those of the limits that are not 0.
    fn new(admin: &Client, limits: [i64; 4]) -> Self {
        let make = |path: &str, body: Value| admin.post(path, &body).expect(201).json();
        let name = uuid::Uuid::new_v4().as_simple().to_string();
        let region = make("/regions", json!({"region": {"id": format!("r-{name}")}}))["region"]["id"].clone();
        let service = json!({"service": {"name": name, "type": format!("image-{name}")}});
        let service = make("/services", service)["service"]["id"].clone();
        let endpoint =
            json!({"service_id": service, "interface": "public", "region_id": region, "url": "http://127.0.0.1:1"});
        let endpoint = make("/endpoints", json!({"endpoint": endpoint}))["endpoint"]["id"].as_str().unwrap().to_owned();
        let registered: Vec<Value> = LIMITS
            .iter()
            .zip(limits)
            .filter(|(_, limit)| *limit != 0)
            .map(|(name, limit)| json!({"service_id": service, "region_id": region, "resource_name": name, "default_limit": limit}))
            .collect();
        let registered =
            make("/registered_limits", json!({"registered_limits": registered}))["registered_limits"].clone();
        Self { service, region, endpoint, registered }
    }

    /// Changes what all projects may have.
    fn register(&self, admin: &Client, name: &str, limit: i64) {
        let registered = self.registered.as_array().unwrap().iter();
        let id = registered.clone().find(|one| one["resource_name"] == name).unwrap()["id"].as_str().unwrap();
        let body = json!({"registered_limit": {"default_limit": limit}});
        admin.send_json("PATCH", &format!("/registered_limits/{id}"), &body.to_string()).expect(200);
    }

    /// Gives a project another limit than all.
    fn limit(&self, admin: &Client, project: &str, name: &str, limit: i64) {
        let limit = json!({"service_id": self.service, "region_id": self.region, "project_id": project, "resource_name": name, "resource_limit": limit});
        admin.post("/limits", &json!({"limits": [limit]})).expect(201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_limits_are_found_with_the_role_service_alone() {
    let Some(site) = Site::find() else { return };
    let admin = site.as_user("admin");
    let place = Place::new(&admin, [10, 11, 12, 0]);
    let name = uuid::Uuid::new_v4().as_simple().to_string();
    let project = json!({"project": {"name": name, "domain_id": "default"}});
    let project = admin.post("/projects", &project).expect(201).json()["project"]["id"].as_str().unwrap().to_owned();
    place.limit(&admin, &project, "image_count_total", 3);
    let (user, password) = mere_service(&site);
    let config = format!(
        "auth_url = \"{}\"\nusername = \"{user}\"\nhttp_request_timeout_s = 60\npassword = \"{password}\"\nproject_name = \"service\"\nendpoint_id = \"{}\"",
        site.url, place.endpoint
    );
    let identity = Identity::Keystone(Box::new(Keystone::new(&toml::from_str(&config).unwrap()).unwrap()));
    let of = async |project: &str| identity.limits(project, None).await.unwrap().unwrap();
    let all =
        Limits { image_size_total_mib: 10, image_stage_total_mib: 11, image_count_total: 12, image_count_uploading: 0 };
    assert_eq!(of(&site.project("demo")).await, all);
    assert_eq!(of(&project).await, Limits { image_count_total: 3, ..all });
}

#[test]
fn real_limits_bind_and_count_after_the_cache_time_when_they_change() {
    const MIB: usize = 1 << 20;
    /// Longer than the cache time, on a busy machine.
    const SOON_S: u64 = 30;
    let Some(site) = Site::find() else { return };
    let admin = site.as_user("admin");
    let place = Place::new(&admin, [3, 3, 2, 1]);
    let options = site
        .options()
        .set("limits", "source", "keystone")
        .set("identity.keystone", "endpoint_id", place.endpoint.as_str())
        .set("identity.keystone", "limits_cache_time_s", 2);
    let gateway = Gateway::start(options);
    let token = site.token("demo");
    let (demo, other) = (client(&gateway, &token), client(&gateway, &site.token("alt_demo")));
    let refused = |answer: Answer, limit: &str| {
        let text = answer.expect(413).text();
        assert!(text.contains(limit), "{text}");
    };
    let images = || gateway.sql(&format!("SELECT count(*) FROM images WHERE owner = '{}'", site.project("demo")));

    // Images: of all projects, then of one.
    let (first, second) = (demo.create("first"), demo.create("second"));
    other.create("theirs");
    other.create("theirs");
    let create = |client: &Client| client.post("/v2/images", &json!({"name": "one more"}));
    refused(create(&demo), "image_count_total is 2 images");
    assert_eq!(images(), "2");
    place.limit(&admin, &site.project("demo"), "image_count_total", 3);
    eventually("the project's limit counts", SOON_S, || create(&demo).status == 201);
    refused(create(&demo), "image_count_total is 3 images");
    refused(create(&other), "image_count_total is 2 images");
    assert_eq!(images(), "3");

    // Uploads at once.
    let bytes = random_bytes(1, 2 * MIB);
    let mut running = SlowUpload::begin_as(&gateway, &token, &first, Some(2 * MIB));
    assert!(running.send(&bytes[..100]));
    eventually("it is under way", 10, || status_of(&demo, &first) == "saving");
    refused(demo.upload(&second, b"x"), "image_count_uploading is 1 image");
    place.register(&admin, "image_count_uploading", 2);
    eventually("another may run", SOON_S, || demo.upload(&second, &bytes[..MIB / 2]).status == 204);
    assert!(running.send(&bytes[100..]));
    assert_eq!(running.answer(), Some(204));
    assert_active(&demo, &first, &bytes);

    // Bytes: 2.5 of 3 MiB are in use.
    let third = gateway.sql("SELECT id FROM images WHERE name = 'one more'");
    let formats = json!([
        {"op": "replace", "path": "/disk_format", "value": "raw"},
        {"op": "replace", "path": "/container_format", "value": "bare"},
    ]);
    demo.patch(&format!("/v2/images/{third}"), &formats).expect(200);
    refused(demo.upload(&third, &bytes[..MIB]), "image_size_total is 3145728 bytes");
    assert_eq!(status_of(&demo, &third), "queued");
    place.register(&admin, "image_size_total", 4);
    eventually("there is room", SOON_S, || demo.upload(&third, &bytes[..MIB]).status == 204);
    assert_active(&demo, &third, &bytes[..MIB]);
    let used = demo.get("/v2/info/usage").expect(200).json()["usage"].clone();
    assert_eq!(used["image_size_total"], json!({"usage": 3, "limit": 4}));
    assert_eq!(used["image_count_total"], json!({"usage": 3, "limit": 3}));
    assert_eq!(used["image_count_uploading"], json!({"usage": 0, "limit": 2}));
}

/// A region of the cloud with an image service. Dropped, it goes.
struct Region<'s> {
    site: &'s Site,
    name: String,
    endpoint: String,
}

impl<'s> Region<'s> {
    fn new(site: &'s Site, url: &str) -> Self {
        let name = format!("region-{}", uuid::Uuid::new_v4());
        let admin = site.as_user("admin");
        admin.post("/regions", &json!({"region": {"id": name}})).expect(201);
        let endpoint =
            json!({"service_id": site.people["service_id"], "interface": "internal", "region_id": name, "url": url});
        let made = admin.post("/endpoints", &json!({ "endpoint": endpoint })).expect(201).json();
        Self { site, name, endpoint: made["endpoint"]["id"].as_str().unwrap().to_owned() }
    }
}

impl Drop for Region<'_> {
    fn drop(&mut self) {
        let admin = self.site.as_user("admin");
        for path in [format!("/endpoints/{}", self.endpoint), format!("/regions/{}", self.name)] {
            let _ = admin.try_send("DELETE", &path, &[], SendBody::none());
        }
    }
}

#[test]
fn a_real_catalog_leads_to_an_image_of_another_region() {
    let Some(site) = Site::find() else { return };
    let (here, there) = (Gateway::start(site.options()), Gateway::start(site.options()));
    let region = Region::new(&site, &there.url);
    let token = site.token("demo");
    let (demo, over_there) = (client(&here, &token), client(&there, &token));
    let bytes = random_bytes(45, 3 << 20);
    let original = over_there.active("original", &bytes);
    let id = demo.create("copy");
    let method = |interface: &str| json!({"method": {"name": "glance-download", "glance_region": region.name, "glance_image_id": original, "glance_service_interface": interface}});
    let path = format!("/v2/images/{id}/import");
    assert!(demo.post(&path, &method("public")).expect(400).text().contains(&region.name));
    demo.post(&path, &method("internal")).expect(202);
    eventually("the image is active", 60, || status_of(&demo, &id) == "active");
    assert_active(&demo, &id, &bytes);
    for gateway in [&here, &there] {
        assert!(!gateway.log().contains(&token));
    }
}
