//! Additional properties that not everybody may see or change.

use std::collections::BTreeMap;

use super::{Error, Services};
use crate::domain::image::{Image, PropertyOperation, reserved};
use crate::identity::Caller;

impl Services {
    /// Refuses what the caller may not do with the property of this name, on whichever image.
    pub(super) fn check_property(
        &self,
        caller: &Caller,
        operation: PropertyOperation,
        name: &str,
    ) -> Result<(), Error> {
        match &self.settings.protections {
            Some(protections) if !protections.allow(operation, name, caller, &self.policy) => {
                Err(reserved(name).into())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The image without the properties that the caller may not read.
    pub(super) fn readable(&self, caller: &Caller, mut image: Image) -> Image {
        self.hide_properties(caller, std::slice::from_mut(&mut image));
        image
    }

    /// Takes the properties that the caller may not read out of the images.
    pub(super) fn hide_properties(&self, caller: &Caller, images: &mut [Image]) {
        if self.settings.protections.is_none() {
            return;
        }
        // Images have the same names over and over.
        let mut known: BTreeMap<String, bool> = BTreeMap::new();
        for image in images {
            image.attributes.properties.retain(|name, _| match known.get(name) {
                Some(shown) => *shown,
                None => {
                    let shown = self.check_property(caller, PropertyOperation::Read, name).is_ok();
                    known.insert(name.clone(), shown);
                    shown
                }
            });
        }
    }
}
