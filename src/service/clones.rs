//! `rockpool image clones`: who uses an image, and how much of it.

use serde::Serialize;

use super::{Error, Services, no_image};
use crate::domain::consumer::Consumer;
use crate::domain::id::ImageId;
use crate::domain::image::Location;
use crate::domain::query::Scope;
use crate::store::Cloned;

/// One clone.
#[derive(Debug, Clone, Serialize)]
pub struct CloneUse {
    /// Store of the copy that it was cloned from.
    pub store: String,
    /// Its pool.
    pub pool: String,
    /// Its name there.
    pub image: String,
    /// Whether it is in the pool's trash.
    pub in_trash: bool,
    /// Whose it is: `nova`, `cinder`, `glance`; `None` for names that nobody of these gives.
    pub service: Option<&'static str>,
    /// What it is there, such as `instance` or `volume`.
    pub kind: Option<&'static str>,
    /// Its id there.
    pub id: Option<String>,
    /// Its length.
    pub size_bytes: Option<u64>,
    /// What is stored for it alone.
    pub own_bytes: Option<u64>,
    /// What it still has from the image.
    pub shared_bytes: Option<u64>,
    /// Why the numbers are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The whole answer.
#[derive(Debug, Clone, Serialize)]
pub struct CloneUses {
    /// The image.
    pub id: String,
    /// What people call it.
    pub name: Option<String>,
    /// Whether these are all: every store has answered, and there is none where the gateway may not look.
    pub complete: bool,
    /// The clones, by store, pool and name.
    pub clones: Vec<CloneUse>,
    /// Why they are not all, a sentence for each store.
    pub problems: Vec<String>,
}

impl Services {
    /// Lists the clones of every copy of an image.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unavailable`] for the catalog; a store that does not answer is a problem in the
    /// answer.
    pub async fn clones(&self, id: &str) -> Result<CloneUses, Error> {
        // 1. The image.
        let parsed = ImageId::parse(id).ok_or_else(|| no_image(id))?;
        let image = self.catalog.image(parsed, &Scope::Everything(None)).await?.ok_or_else(|| no_image(id))?;
        // 2. Each copy.
        let (mut clones, mut problems) = (Vec::new(), Vec::new());
        for location in &image.locations {
            match self.clones_of(location).await {
                Ok(found) => clones.extend(found.into_iter().map(|cloned| described(&location.store, cloned))),
                Err(problem) => problems.push(format!("store {}: {problem}", location.store)),
            }
        }
        let place = |clone: &CloneUse| (clone.store.clone(), clone.pool.clone(), clone.image.clone());
        clones.sort_by_key(place);
        Ok(CloneUses {
            id: image.id.to_string(),
            name: image.attributes.name.clone(),
            complete: problems.is_empty(),
            clones,
            problems,
        })
    }

    async fn clones_of(&self, location: &Location) -> Result<Vec<Cloned>, String> {
        let store = self.stores.get(Some(&location.store)).map_err(|_| "it is not configured here".to_owned())?;
        let found = store.clones(&location.url).await.map_err(|e| e.to_string())?;
        found.ok_or_else(|| {
            "there are clones in a pool that its Ceph user cannot read: give it 'profile rbd-read-only pool=POOL' for each pool of Nova and Cinder in its osd caps"
                .to_owned()
        })
    }
}

fn described(store: &str, cloned: Cloned) -> CloneUse {
    let consumer = Consumer::of(&cloned.image);
    let room = cloned.room.as_ref().ok();
    CloneUse {
        store: store.to_owned(),
        in_trash: cloned.trash,
        service: consumer.map(|consumer| consumer.service),
        kind: consumer.map(|consumer| consumer.kind),
        id: consumer.map(|consumer| consumer.id.to_string()),
        size_bytes: room.map(|room| room.size_bytes),
        own_bytes: room.map(|room| room.own_bytes),
        shared_bytes: room.map(|room| room.shared_bytes),
        pool: cloned.pool,
        image: cloned.image,
        problem: cloned.room.err(),
    }
}
