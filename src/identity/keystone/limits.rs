//! Unified limits: what Keystone lets a project have of this service.

use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::HeaderMap;
use moka::Expiry;
use moka::future::Cache;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Config;
use super::catalog::{Catalog, SERVICE_TYPE};
use super::client::Failure;
use super::session::Session;

/// Most projects whose limits are remembered.
const PROJECTS_MAX: u64 = 10_000;

/// What a project may have. Negative: no limit. What nobody has registered is 0, as in oslo.limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Data of all images, in MiB.
    pub image_size_total_mib: i64,
    /// Data that is staged for import, in MiB.
    pub image_stage_total_mib: i64,
    /// Images.
    pub image_count_total: i64,
    /// Images that data is being written to.
    pub image_count_uploading: i64,
}

/// How long limits go on when Keystone does not answer.
const LAST_KNOWN_TIME: Duration = Duration::from_secs(3600);

/// Looks limits up.
pub(super) struct LimitsLookup {
    cache: Cache<String, Limits>,
    /// What Keystone has said last, for when it does not answer.
    last_known: Cache<String, Limits>,
    endpoint_id: Option<String>,
    region: Option<String>,
}

/// How long they are remembered.
struct Lifetime(Duration);

impl Expiry<String, Limits> for Lifetime {
    fn expire_after_create(&self, _project: &String, _limits: &Limits, _created_at: Instant) -> Option<Duration> {
        Some(self.0)
    }
}

#[derive(Deserialize)]
struct Registered {
    resource_name: String,
    default_limit: i64,
    region_id: Option<String>,
}

#[derive(Deserialize)]
struct RegisteredList {
    registered_limits: Vec<Registered>,
    #[serde(default)]
    truncated: bool,
}

#[derive(Deserialize)]
struct OfProject {
    resource_name: String,
    resource_limit: i64,
    region_id: Option<String>,
    project_id: Option<String>,
}

#[derive(Deserialize)]
struct ProjectList {
    limits: Vec<OfProject>,
    #[serde(default)]
    truncated: bool,
}

impl LimitsLookup {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            cache: Cache::builder()
                .max_capacity(PROJECTS_MAX)
                .expire_after(Lifetime(Duration::from_secs(config.limits_cache_time_s)))
                .build(),
            last_known: Cache::builder().max_capacity(PROJECTS_MAX).time_to_live(LAST_KNOWN_TIME).build(),
            endpoint_id: config.endpoint_id.clone(),
            region: config.region_name.clone(),
        }
    }

    /// The limits of a project. Requests that want to know them at the same time ask once. When Keystone does not
    /// answer, they are what it has said last.
    pub(super) async fn of(
        &self,
        session: &Session,
        project_id: &str,
        request_id: Option<&str>,
    ) -> Result<Limits, Failure> {
        let asked = self.cache.try_get_with_by_ref(project_id, self.ask(session, project_id, request_id)).await;
        match asked {
            Ok(limits) => {
                self.last_known.insert(project_id.to_owned(), limits).await;
                Ok(limits)
            }
            Err(failure) => match self.last_known.get(project_id).await {
                Some(last_known) => {
                    tracing::warn!(project = project_id, %failure, "limits cannot be looked up; those that were known last go on");
                    Ok(last_known)
                }
                None => Err(Failure::clone(&failure)),
            },
        }
    }

    async fn ask(&self, session: &Session, project_id: &str, request_id: Option<&str>) -> Result<Limits, Failure> {
        // 1. Which service and region we are: limits belong to them.
        let own = session.own(request_id).await?;
        let (service_id, region_id) = self.place(&own.catalog)?;
        // 2. What all projects may have, and what this one may have instead.
        let (every_project, one_project) =
            ([("service_id", service_id)], [("service_id", service_id), ("project_id", project_id)]);
        let (registered, of_project) = tokio::try_join!(
            list::<RegisteredList>(session, "/registered_limits", &every_project, request_id),
            list::<ProjectList>(session, "/limits", &one_project, request_id),
        )?;
        if registered.truncated || of_project.truncated {
            return Err(Failure("gives only a part of the limits: raise its list_limit".into()));
        }
        Ok(choose(&registered.registered_limits, &of_project.limits, project_id, region_id))
    }

    /// Ids of our service and region.
    fn place<'a>(&self, catalog: &'a Catalog) -> Result<(&'a str, Option<&'a str>), Failure> {
        let places = catalog.services().flat_map(|service| {
            service.endpoints.iter().map(move |endpoint| (service, endpoint.region_id.as_deref(), endpoint))
        });
        let mut found: Vec<_> = places
            .filter(|(service, region, endpoint)| match &self.endpoint_id {
                Some(id) => endpoint.id == *id,
                None => service.kind == SERVICE_TYPE && (self.region.is_none() || *region == self.region.as_deref()),
            })
            .map(|(service, region, _)| (service.id.as_str(), region))
            .collect();
        found.sort_unstable();
        found.dedup();
        match (found.as_slice(), &self.endpoint_id) {
            ([place], _) => Ok(*place),
            ([], Some(id)) => {
                Err(Failure(format!("has no endpoint {id} in our catalog: check endpoint_id of [identity.keystone]")))
            }
            ([], None) => Err(Failure(format!(
                "has no endpoint of type {SERVICE_TYPE} in our catalog: register one, and check region_name of [identity.keystone]"
            ))),
            (_, _) => Err(Failure(format!(
                "has several services or regions of type {SERVICE_TYPE}: set endpoint_id or region_name of [identity.keystone]"
            ))),
        }
    }
}

async fn list<T: DeserializeOwned>(
    session: &Session,
    path: &str,
    filters: &[(&str, &str)],
    request_id: Option<&str>,
) -> Result<T, Failure> {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(filters).finish();
    let answer = session.get(&format!("{path}?{query}"), &HeaderMap::new(), request_id).await?;
    match answer.status {
        StatusCode::OK => answer.json(),
        status => Err(Failure(format!("answers {status} when asked for {path}"))),
    }
}

/// The most special limit counts: of the project before that of all, of the region before that of none.
fn choose(registered: &[Registered], of_project: &[OfProject], project_id: &str, region_id: Option<&str>) -> Limits {
    let here = |region: &Option<String>| region.is_none() || region.as_deref() == region_id;
    let limit = |name: &str| {
        // Older Keystones answer with the limits of our own project when they do not let us see others'.
        let own = of_project.iter().filter(|limit| limit.project_id.as_deref() == Some(project_id));
        let own = own.filter(|limit| limit.resource_name == name && here(&limit.region_id));
        let own = own.max_by_key(|limit| limit.region_id.is_some()).map(|limit| limit.resource_limit);
        let all = registered.iter().filter(|limit| limit.resource_name == name && here(&limit.region_id));
        let all = all.max_by_key(|limit| limit.region_id.is_some()).map(|limit| limit.default_limit);
        own.or(all).unwrap_or_else(|| {
            tracing::warn!(limit = name, region_id, "Keystone has no such registered limit; it counts as 0");
            0
        })
    };
    Limits {
        image_size_total_mib: limit("image_size_total"),
        image_stage_total_mib: limit("image_stage_total"),
        image_count_total: limit("image_count_total"),
        image_count_uploading: limit("image_count_uploading"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Config;
    use super::{Limits, LimitsLookup, OfProject, Registered, choose};

    fn registered(name: &str, region: Option<&str>, limit: i64) -> Registered {
        Registered { resource_name: name.into(), default_limit: limit, region_id: region.map(str::to_owned) }
    }

    fn of_project(name: &str, project: &str, region: Option<&str>, limit: i64) -> OfProject {
        OfProject {
            resource_name: name.into(),
            resource_limit: limit,
            region_id: region.map(str::to_owned),
            project_id: Some(project.into()),
        }
    }

    #[test]
    fn the_most_special_limit_counts() {
        let limits = choose(
            &[
                registered("image_size_total", None, 10),
                registered("image_size_total", Some("here"), 20),
                registered("image_size_total", Some("there"), 30),
                registered("image_stage_total", None, 40),
                registered("image_count_total", Some("here"), 50),
                registered("image_count_uploading", Some("there"), 60),
                registered("volumes", None, 70),
            ],
            &[
                of_project("image_stage_total", "p", Some("there"), 1),
                of_project("image_count_total", "q", Some("here"), 2),
                of_project("image_stage_total", "p", None, -1),
            ],
            "p",
            Some("here"),
        );
        let expected = Limits {
            image_size_total_mib: 20,
            image_stage_total_mib: -1,
            image_count_total: 50,
            image_count_uploading: 0,
        };
        assert_eq!(limits, expected);
    }

    #[test]
    fn the_catalog_says_which_service_and_region_this_is() {
        let endpoint =
            |id: &str, region: &str| json!({"id": id, "interface": "public", "region_id": region, "url": "http://x"});
        let catalog = serde_json::from_value(json!([
            {"type": "identity", "id": "i", "endpoints": [endpoint("e0", "one")]},
            {"type": "image", "id": "s", "endpoints": [endpoint("e1", "one"), endpoint("e2", "one"), endpoint("e3", "two")]},
        ]))
        .unwrap();
        let place = |endpoint_id: Option<&str>, region: Option<&str>| {
            let config = Config {
                endpoint_id: endpoint_id.map(str::to_owned),
                region_name: region.map(str::to_owned),
                ..Config::default()
            };
            let lookup = LimitsLookup::new(&config);
            lookup.place(&catalog).map(|(service, region)| (service.to_owned(), region.map(str::to_owned)))
        };
        assert_eq!(place(Some("e0"), None).unwrap(), ("i".into(), Some("one".into())));
        assert_eq!(place(Some("e3"), None).unwrap(), ("s".into(), Some("two".into())));
        assert_eq!(place(None, Some("one")).unwrap(), ("s".into(), Some("one".into())));
        for (endpoint_id, region, word) in
            [(Some("e9"), None, "endpoint_id"), (None, Some("three"), "region_name"), (None, None, "several")]
        {
            let problem = place(endpoint_id, region).unwrap_err().to_string();
            assert!(problem.contains(word), "{problem}");
        }
    }
}
