//! `POST /v2/tasks` of type `import`: an image is made and filled, by one task.

use serde_json::Value;
use uuid::Uuid;

use super::Order;
use crate::catalog::Tx;
use crate::domain::import::{EXPECTED_HASH, Method, Request, expected_hash};
use crate::domain::task::{ImportTask, Task, TaskKind, TaskStatus};
use crate::format::Format;
use crate::identity::Caller;
use crate::identity::policy::{Action, Target};
use crate::service::convert::conversion;
use crate::service::create::NewImage;
use crate::service::quota::Account;
use crate::service::{Error, Plugin, Services, conclude};

/// Container of the data, where nobody says another.
const CONTAINER_FORMAT: &str = "bare";

impl Services {
    /// Takes on what the task is to do; it has not begun.
    pub(in crate::service) async fn import_new(&self, caller: &Caller, wanted: ImportTask) -> Result<Task, Error> {
        // 1. Is that done here?
        if !self.settings.import.methods.contains(&Method::WebDownload) {
            return Err(Error::Invalid(
                "Data is not fetched from URLs at this site: its import methods are without web-download.".into(),
            ));
        }
        // 2. The image: in the format that the data comes in, because conversion begins with that.
        let known = &self.settings.formats.disk;
        if !known.contains(&wanted.format) {
            return Err(Error::Invalid(format!("The 'import_from_format' must be one of {}.", known.join(", "))));
        }
        let mut body = wanted.properties;
        let shown = body.insert("disk_format".into(), Value::String(wanted.format.clone()));
        if body.get("container_format").is_none_or(Value::is_null) {
            body.insert("container_format".into(), CONTAINER_FORMAT.into());
        }
        let new = self.new_image(caller, &body).await?;
        self.authorize(Action::ModifyImage, caller, Target::from(&new.attributes)).await?;
        let store = self.target(None)?;
        let stores = vec![store.name().to_owned()];
        self.settings.quotas.check_locations(stores.len())?;
        let converts = self.settings.import.plugins.contains(&Plugin::Conversion);
        let converted = conversion(&new.attributes, [store]).filter(|_| converts);
        let becomes = converted.map_or(wanted.format.as_str(), |_| Format::Raw.as_str());
        if let Some(shown) = shown.filter(|shown| !shown.is_null() && *shown != *wanted.format && *shown != becomes) {
            return Err(Error::Invalid(format!(
                "The image_properties want the disk_format {shown}, and what comes as {} becomes {becomes} here.",
                wanted.format
            )));
        }
        // 3. From where?
        self.fetcher.check(&wanted.from).await?;
        let expected = new.attributes.properties.get(EXPECTED_HASH).map(|told| expected_hash(told)).transpose()?;
        // 4. Image, task and job, or nothing of it.
        let request = Request {
            method: Method::WebDownload,
            uri: Some(wanted.from),
            remote: None,
            expected,
            stores: None,
            all_stores: false,
            all_must_succeed: true,
        };
        let order =
            Order { id: Uuid::new_v4(), kind: TaskKind::Import, input: wanted.input, request, region: None, stores };
        let account = self.account(caller, new.attributes.owner.as_deref()).await?;
        let tx = self.catalog.begin("import_new").await?;
        let begun = self.begin_new(&tx, caller, new, order, account.as_ref()).await;
        let task = conclude(tx, begun).await?;
        self.long_job_bell.notify_one();
        Ok(task)
    }

    async fn begin_new(
        &self,
        tx: &Tx,
        caller: &Caller,
        new: NewImage,
        order: Order,
        account: Option<&Account>,
    ) -> Result<Task, Error> {
        let image = self.record_image(tx, new).await?;
        let task = Task {
            id: order.id,
            kind: order.kind,
            status: TaskStatus::Pending,
            owner: Some(caller.project_id.clone()),
            user_id: Some(caller.user_id.clone()),
            request_id: caller.own_request_id.clone(),
            image: Some(image.id),
            input: order.input.clone(),
            result: Value::Null,
            message: String::new(),
            created_at: image.created_at,
            updated_at: image.created_at,
            expires_at: None,
        };
        self.begin_import(tx, caller, image.id, order, account).await?;
        Ok(task)
    }
}
