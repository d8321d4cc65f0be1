//! Additional properties that not everybody may see or change.

use std::collections::BTreeMap;

use super::{Error, Services};
use crate::domain::image::{Image, PropertyOperation, reserved};
use crate::identity::Caller;

impl Services {
    /// Refuses what the caller may not do with the property of this name, on whichever image.
    pub(super) async fn check_property(
        &self,
        caller: &Caller,
        operation: PropertyOperation,
        name: &str,
    ) -> Result<(), Error> {
        match &self.settings.protections {
            Some(protections) if !protections.allow(operation, name, caller, &self.policy).await => {
                Err(reserved(name).into())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The image without the properties that the caller may not read.
    pub(super) async fn readable(&self, caller: &Caller, mut image: Image) -> Image {
        self.hide_properties(caller, std::slice::from_mut(&mut image)).await;
        image
    }

    /// Takes the properties that the caller may not read out of the images.
    pub(super) async fn hide_properties(&self, caller: &Caller, images: &mut [Image]) {
        if self.settings.protections.is_none() {
            return;
        }
        // Images have the same names over and over.
        let mut known: BTreeMap<String, bool> = BTreeMap::new();
        for image in images {
            for name in image.attributes.properties.keys() {
                if !known.contains_key(name) {
                    let shown = self.check_property(caller, PropertyOperation::Read, name).await.is_ok();
                    known.insert(name.clone(), shown);
                }
            }
            image.attributes.properties.retain(|name, _| known.get(name).is_some_and(|shown| *shown));
        }
    }
}
