//! `rockpool adopt`.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::{EXIT_FAILURE, File, block_on, services};
use crate::config::Config;
use crate::domain::id::ImageId;
use crate::domain::image::{Attributes, Image};
use crate::service::Adoption;
use crate::store;

/// Bytes between two lines about the progress of a copy.
const REPORT_BYTES: u64 = 1024 * 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The RBD image, as POOL/IMAGE.
    source: String,
    /// What people will call it.
    #[arg(long)]
    name: String,
    /// Id of the new image, or of a queued record that is to get the data; without it, a random one.
    #[arg(long)]
    id: Option<String>,
    /// Id of the project that will own it. Needed unless it is public.
    #[arg(long)]
    owner: Option<String>,
    /// public, community, shared or private.
    #[arg(long, default_value = "shared")]
    visibility: String,
    /// Format of the disk in it. Only raw is cloned by Nova and Cinder.
    #[arg(long, default_value = "raw")]
    disk_format: String,
    /// Store that it goes to; without it, the default one.
    #[arg(long)]
    store: Option<String>,
    /// Take the RBD image itself, which must be in the store's pool, and give it the new id as its name, instead of
    /// copying it within the cluster.
    #[arg(long)]
    in_place: bool,
    #[command(flatten)]
    pub(super) file: File,
}

/// Makes an RBD image an image of the catalog.
pub(super) fn run(config: &Config, arguments: &Arguments) -> ! {
    let adopted = block_on(async {
        let adoption = adoption(config, arguments)?;
        let (source, id) = (&arguments.source, adoption.id);
        eprintln!("adopting {source} as image {id}; if this is interrupted, run it again with --id {id}");
        let said = AtomicU64::new(0);
        let copied = |bytes: u64| {
            if bytes >= said.load(Ordering::Relaxed) + REPORT_BYTES {
                said.store(bytes, Ordering::Relaxed);
                eprintln!("{} MiB are copied", bytes / 1024 / 1024);
            }
        };
        services(config)?.adopt(&adoption, &copied).await.map_err(|e| e.to_string())
    });
    match adopted {
        Ok(Image { id, .. }) => {
            println!("{id}");
            store::exit(0)
        }
        Err(problem) => {
            eprintln!("rockpool: {problem}");
            store::exit(EXIT_FAILURE)
        }
    }
}

fn adoption(config: &Config, arguments: &Arguments) -> Result<Adoption, String> {
    let (pool, image) = arguments
        .source
        .split_once('/')
        .filter(|(pool, image)| !pool.is_empty() && !image.is_empty() && !image.contains(['/', '@']))
        .ok_or_else(|| format!("{}: an RBD image is named as POOL/IMAGE, without a snapshot", arguments.source))?;
    let id = match &arguments.id {
        Some(text) => ImageId::parse(text).ok_or_else(|| format!("--id {text} is not a UUID"))?,
        None => ImageId::random(),
    };
    if arguments.owner.is_none() && arguments.visibility != "public" {
        return Err("--owner is missing: the id of the project that will own the image (openstack project show NAME); only a public image needs none".into());
    }
    let formats = config.service(String::new()).formats;
    let mut attributes = Attributes::new(arguments.owner.clone());
    let said = [
        ("name", json!(arguments.name)),
        ("visibility", json!(arguments.visibility)),
        ("disk_format", json!(arguments.disk_format)),
        ("container_format", json!("bare")),
    ];
    for (key, value) in said {
        let value: Value = value;
        attributes.set(key, &value, &formats).map_err(|e| e.to_string())?;
    }
    Ok(Adoption {
        pool: pool.to_owned(),
        image: image.to_owned(),
        store: arguments.store.clone(),
        id,
        attributes,
        in_place: arguments.in_place,
    })
}
