//! Clones, made by a compute node's user.

use ceph::{Child, Children, CloneFormat, CloneOptions, Kind};

use crate::support::{MIB, kind, new_image, pattern, pool, read, shared, unique};

#[tokio::test]
async fn a_compute_node_clones_and_the_owner_sees_that_there_are_children() {
    let _cluster = shared().await;
    let images = pool("rockpool", "images").await;
    let name = unique("parent");
    let image = new_image(&images, &name, 8 * MIB).await;
    let data = pattern(5, 1 << 20);
    image.write(0, vec![data.clone()]).await.unwrap();
    image.snapshot_create("snap").await.unwrap();

    let nova = pool("nova", "images").await;
    let vms = nova.cluster().pool("vms").await.unwrap();
    let (one, two) = (unique("child-v1"), unique("child-v2"));
    let format = |format| CloneOptions { format, ..CloneOptions::default() };
    // v1 needs protection, v2 does not.
    let refused = nova.clone_image(&name, "snap", &vms, &one, &format(CloneFormat::V1)).await;
    assert_eq!(kind(refused), Kind::InvalidArgument);
    nova.clone_image(&name, "snap", &vms, &two, &format(CloneFormat::V2)).await.unwrap();
    image.snapshot_protect("snap").await.unwrap();
    nova.clone_image(&name, "snap", &vms, &one, &format(CloneFormat::V1)).await.unwrap();
    assert_eq!(kind(nova.clone_image(&name, "snap", &vms, &one, &format(CloneFormat::V1)).await), Kind::Exists);

    let child = vms.open(&one).await.unwrap();
    assert_eq!(read(&child, 0, 1 << 20).await, data);
    child.write(0, vec![pattern(6, 4096)]).await.unwrap();
    child.close().await.unwrap();
    assert_eq!(read(&image, 0, 4096).await, data[..4096], "copy on write");

    // A compute node changes nothing in the pool of images.
    assert_eq!(kind(nova.create_image(&unique("no"), &crate::support::sized(MIB)).await), Kind::Denied);
    let parent = nova.open_read_only(&name, Some("snap")).await.unwrap();
    assert_eq!(kind(parent.snapshot_unprotect("snap").await), Kind::ReadOnly);
    parent.close().await.unwrap();

    // The owner of the images may not look into `vms`, but learns that there is something.
    assert_eq!(image.children("snap").await.unwrap(), Children::Hidden);
    assert!(!image.children("snap").await.unwrap().is_empty());
    assert_eq!(kind(image.snapshot_unprotect("snap").await), Kind::HasChildren);
    assert_eq!(kind(image.children("nosnap").await), Kind::NotFound);

    let admin = pool("admin", "images").await;
    let seen = admin.open_read_only(&name, None).await.unwrap();
    let Children::Known(mut children) = seen.children("snap").await.unwrap() else {
        panic!("the admin sees all children");
    };
    children.sort_by(|a, b| a.image.cmp(&b.image));
    let names: Vec<&str> = children.iter().map(|child| child.image.as_str()).collect();
    assert_eq!(names, [one.as_str(), two.as_str()]);
    assert!(children.iter().all(|Child { pool, trash, image_id, .. }| pool == "vms" && !trash && !image_id.is_empty()));
    seen.close().await.unwrap();

    vms.remove_image(&one).await.unwrap();
    // With the v1 clone gone the snapshot can go, too; the v2 clone keeps it alive unseen.
    image.snapshot_unprotect("snap").await.unwrap();
    image.snapshot_remove("snap").await.unwrap();
    assert_eq!(image.snapshots().await.unwrap(), []);
    image.close().await.unwrap();
    assert_eq!(kind(images.remove_image(&name).await), Kind::HasSnapshots);
    let child = vms.open_read_only(&two, None).await.unwrap();
    assert_eq!(read(&child, 0, 1 << 20).await, data);
    child.close().await.unwrap();
    images.trash_move(&name, std::time::Duration::ZERO).await.unwrap();
    let id = images.trash_list().await.unwrap().into_iter().find(|entry| entry.name == name).unwrap().id;
    assert!(images.trash_remove(&id, false).await.is_err(), "the v2 clone still needs it");
    vms.remove_image(&two).await.unwrap();
    images.trash_remove(&id, false).await.unwrap();
    assert!(!images.trash_list().await.unwrap().iter().any(|entry| entry.id == id));
}
