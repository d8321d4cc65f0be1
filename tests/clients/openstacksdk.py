"""openstacksdk against a gateway.

    openstacksdk.py local URL TOKEN FILE   images alone, with a token that the gateway itself knows
    openstacksdk.py keystone URL FILE      all that it can, with the clouds of OS_CLIENT_CONFIG_FILE

Prints `ok NAME` or `not ok NAME` per check and fails when one did.
"""

import hashlib
import io
import os
import sys
import time
import traceback

import openstack
from openstack import exceptions

# How long the gateway may take to hash what was registered.
HASH_SECONDS = 20


class Unsized(io.RawIOBase):
    """A stream whose length nobody can ask for, so that requests sends it chunked."""

    def __init__(self, data):
        self._data = io.BytesIO(data)

    def __iter__(self):
        return iter(lambda: self._data.read(100_000), b"")

    def readable(self):
        return True

    def read(self, size=-1):
        return self._data.read(size)


def sha512(data):
    return hashlib.sha512(data).hexdigest()


def expect(what, actual, wanted):
    assert actual == wanted, f"{what} is {actual!r} and should be {wanted!r}."


def refused(wanted, call, /, *args, **more):
    """Some calls give a generator, which asks when it is asked."""
    try:
        answer = call(*args, **more)
        if hasattr(answer, "__next__"):
            list(answer)
    except exceptions.HttpException as error:
        expect("the status of the refusal", error.status_code, wanted)
        return
    raise AssertionError(f"This should have been refused with {wanted}: {call.__name__}")


class Checks:
    def __init__(self, image, path):
        self.image = image
        self.path = path
        with open(path, "rb") as file:
            self.data = file.read()
        self.sha512 = sha512(self.data)

    def create(self, name, **more):
        return self.image.create_image(
            name, disk_format="raw", container_format="bare", allow_duplicates=True, **more
        )

    def assert_holds_the_data(self, image):
        image = self.image.get_image(image.id)
        assert image.status == "active", image.status
        assert image.size == len(self.data), image.size
        assert image.hash_algo == "sha512", image.hash_algo
        assert image.hash_value == self.sha512, image.hash_value
        assert image.checksum == hashlib.md5(self.data).hexdigest(), image.checksum


class LocalChecks(Checks):
    """What a program does with images."""

    NAME = "openstacksdk"

    def __init__(self, url, token, path):
        # No service catalogue: the URL is used as it is, and so ends in /v2.
        connection = openstack.connect(
            auth_type="admin_token",
            auth={"endpoint": url, "token": token},
            load_yaml_config=False,
            load_envvars=False,
        )
        super().__init__(connection.image, path)

    def all(self):
        return [
            self.uploads_a_file,
            self.uploads_bytes_of_unknown_length,
            self.finds_and_lists,
            self.downloads_and_verifies,
            self.changes_properties_and_tags,
            self.deletes,
        ]

    def uploads_a_file(self):
        image = self.create("sdk file", filename=self.path, validate_checksum=True)
        self.assert_holds_the_data(image)

    def uploads_bytes_of_unknown_length(self):
        image = self.create("sdk chunked")
        assert image.status == "queued", image.status
        image.upload(self.image, data=Unsized(self.data))
        self.assert_holds_the_data(image)

    def finds_and_lists(self):
        image = self.image.find_image("sdk file", ignore_missing=False)
        assert image.name == "sdk file"
        names = sorted(image.name for image in self.image.images(limit=1))
        assert names == ["sdk chunked", "sdk file"], names

    def downloads_and_verifies(self):
        image = self.image.find_image("sdk file", ignore_missing=False)
        # The client compares what arrives with the checksum and raises when they differ.
        whole = self.image.download_image(image)
        assert sha512(whole.content) == self.sha512
        streamed = hashlib.sha512()
        for piece in self.image.download_image(image, stream=True).iter_content(1 << 20):
            streamed.update(piece)
        assert streamed.hexdigest() == self.sha512

    def changes_properties_and_tags(self):
        image = self.image.find_image("sdk file", ignore_missing=False)
        # By id: for a property of its user's own on a whole image, this client would also remove all
        # other properties, among them `stores`, which no server allows.
        self.image.update_image(image.id, name="sdk renamed", os_distro="debian", my_own="value")
        self.image.update_image(image.id, tags=["one", "two"])
        image = self.image.get_image(image.id)
        assert image.name == "sdk renamed", image.name
        assert image.os_distro == "debian", image.os_distro
        assert image.properties.get("my_own") == "value", image.properties
        assert sorted(image.tags) == ["one", "two"], image.tags

    def deletes(self):
        for name in ["sdk renamed", "sdk chunked"]:
            image = self.image.find_image(name, ignore_missing=False)
            self.image.delete_image(image, ignore_missing=False)
            try:
                self.image.get_image(image.id)
            except exceptions.NotFoundException:
                continue
            raise AssertionError(f"{name} is still there")
        assert not list(self.image.images())


class KeystoneChecks(Checks):
    """As several people of tests/keystone/people.py; `image` is that of `demo`, a member."""

    NAME = "openstacksdk with Keystone"
    SPACE = "My::Space"

    def __init__(self, url, path):
        self.url = url
        self.demo, self.alt, self.reader, self.admin, self.nova = (
            openstack.connect(cloud=name) for name in ["demo", "alt_demo", "reader", "admin", "nova"]
        )
        super().__init__(self.demo.image, path)
        # Set by the first check that makes it.
        self.id = None

    def all(self):
        return [
            self.finds_the_service_in_the_catalogue,
            self.creates_and_uploads,
            self.downloads_and_verifies,
            self.lists_with_filters,
            self.changes_and_removes_properties,
            self.tags_an_image,
            self.deactivates_and_reactivates,
            self.shares_with_members,
            self.publishes_as_admin_alone,
            self.only_reads_as_a_reader,
            self.knows_stores_import_and_usage,
            self.registers_a_location_and_sees_its_task,
            self.is_refused_a_task,
            self.is_told_that_there_is_no_cache,
            self.reads_every_schema,
            self.has_metadata_namespaces,
            self.has_metadata_objects,
            self.has_metadata_properties,
            self.has_metadata_tags,
            self.has_metadata_resource_types,
            self.deletes,
        ]

    def found(self, connection=None, **query):
        return [image.name for image in (connection or self.demo).image.images(**query)]

    def finds_the_service_in_the_catalogue(self):
        assert self.demo.has_service("image")
        expect("the endpoint", self.image.get_endpoint(), self.url + "/v2/")
        found = self.image.get_endpoint_data()
        # 2.18 is what a service with a cache has.
        expect("the version", found.api_version, (2, 17))
        expect("its status", found.status, "CURRENT")

    def creates_and_uploads(self):
        image = self.create(
            "first", filename=self.path, validate_checksum=True, tags=["blue"], os_distro="debian"
        )
        self.id = image.id
        self.assert_holds_the_data(image)
        image = self.image.get_image(self.id)
        expect("the owner", image.owner, self.demo.current_project_id)
        expect("the tags", image.tags, ["blue"])
        expect("os_distro", image.os_distro, "debian")
        expect("what the client adds", image.properties["owner_specified.openstack.object"], "images/first")
        # The client skips what is there with these bytes, which it knows by the property that it added.
        again = self.image.create_image(
            "first", filename=self.path, validate_checksum=True, disk_format="raw", container_format="bare"
        )
        expect("the image for the same bytes", again.id, self.id)

    def downloads_and_verifies(self):
        # It compares what arrives with the hash that the record names, and raises when they differ.
        expect("the download", sha512(self.image.download_image(self.id).content), self.sha512)
        copy = self.path + ".copy"
        self.image.download_image(self.id, output=copy)
        with open(copy, "rb") as file:
            expect("the file", sha512(file.read()), self.sha512)
        os.remove(copy)

    def lists_with_filters(self):
        empty = self.create("second", tags=["blue", "red"], visibility="private")
        hidden = self.create("third")
        # By creation the client would send the text "True".
        self.image.update_image(hidden.id, is_hidden=True)
        size = len(self.data)
        for query, names in [
            ({"sort": "name:asc"}, ["first", "second"]),
            ({"sort": "name:desc", "limit": 1}, ["second", "first"]),
            ({"name": "second"}, ["second"]),
            ({"status": "active"}, ["first"]),
            ({"status": "queued"}, ["second"]),
            ({"visibility": "private"}, ["second"]),
            ({"tag": "red"}, ["second"]),
            ({"size_min": size, "size_max": size}, ["first"]),
            ({"size_min": size + 1}, []),
            ({"is_hidden": True}, ["third"]),
            ({"owner": self.demo.current_project_id, "sort": "name:asc"}, ["first", "second"]),
            ({"created_at": "lt:2001-01-01T00:00:00Z"}, []),
        ]:
            expect(f"the list for {query}", self.found(**query), names)
        refused(400, self.image.images, sort="no_such_key")
        refused(400, self.image.images, size_min="many")
        for image in [empty, hidden]:
            self.image.delete_image(image, ignore_missing=False)

    def changes_and_removes_properties(self):
        self.image.update_image(self.id, name="renamed", os_distro="fedora", my_own="value", min_disk=1)
        image = self.image.get_image(self.id)
        expect("the name", image.name, "renamed")
        expect("os_distro", image.os_distro, "fedora")
        expect("my_own", image.properties["my_own"], "value")
        expect("min_disk", image.min_disk, 1)
        # The client has no call for this one.
        answer = self.image.patch(
            f"/images/{self.id}",
            json=[{"op": "remove", "path": "/my_own"}],
            headers={"Content-Type": "application/openstack-images-v2.1-json-patch"},
        )
        expect("the status", answer.status_code, 200)
        assert "my_own" not in self.image.get_image(self.id).properties
        refused(403, self.image.update_image, self.id, owner=self.alt.current_project_id)

    def tags_an_image(self):
        self.image.add_tag(self.id, "green")
        expect("the tags", sorted(self.image.get_image(self.id).tags), ["blue", "green"])
        self.image.remove_tag(self.id, "blue")
        expect("the tags", self.image.get_image(self.id).tags, ["green"])
        refused(404, self.image.remove_tag, self.id, "blue")

    def deactivates_and_reactivates(self):
        # The client does not look whether these two succeed.
        self.image.deactivate_image(self.id)
        expect("the status", self.image.get_image(self.id).status, "deactivated")
        answer = self.image.download_image(self.id, stream=True)
        expect("the status of a download", answer.status_code, 403)
        self.image.reactivate_image(self.id)
        expect("the status", self.image.get_image(self.id).status, "active")
        expect("the download", sha512(self.image.download_image(self.id).content), self.sha512)

    def shares_with_members(self):
        alt = self.alt.current_project_id
        refused(404, self.alt.image.get_image, self.id)
        expect("a new member", self.image.add_member(self.id, member_id=alt).status, "pending")
        refused(409, self.image.add_member, self.id, member_id=alt)
        expect("the members", [each.member_id for each in self.image.members(self.id)], [alt])
        expect("the member's list", self.found(self.alt), [])
        offered = self.found(self.alt, member_status="pending", visibility="shared")
        expect("what the member may accept", offered, ["renamed"])
        refused(403, self.image.update_member, alt, self.id, status="accepted")
        self.alt.image.update_member(alt, self.id, status="accepted")
        expect("the member", self.image.get_member(alt, self.id).status, "accepted")
        expect("the member's list", self.found(self.alt), ["renamed"])
        expect("the member's download", sha512(self.alt.image.download_image(self.id).content), self.sha512)
        refused(403, self.alt.image.update_image, self.id, name="stolen")
        self.image.remove_member(alt, self.id, ignore_missing=False)
        refused(404, self.image.get_member, alt, self.id)
        refused(404, self.alt.image.get_image, self.id)

    def publishes_as_admin_alone(self):
        refused(403, self.image.update_image, self.id, visibility="public")
        self.admin.image.update_image(self.id, visibility="public")
        expect("what others see", self.found(self.alt, visibility="public"), ["renamed"])
        self.admin.image.update_image(self.id, visibility="shared")
        expect("what others see", self.found(self.alt), [])

    def only_reads_as_a_reader(self):
        expect("what a reader sees", self.found(self.reader), ["renamed"])
        refused(403, self.reader.image.create_image, "no", disk_format="raw", container_format="bare")
        refused(403, self.reader.image.delete_image, self.id)

    def knows_stores_import_and_usage(self):
        stores = list(self.image.stores())
        expect("the stores", [(each.id, each.is_default) for each in stores], [("ceph", True)])
        refused(403, self.image.stores, details=True)
        stores = list(self.admin.image.stores(details=True))
        expect("the pool", stores[0].properties["pool"], "images")
        # The one place of the data.
        refused(403, self.admin.image.delete_image, self.id, store="ceph")
        self.assert_holds_the_data(self.image.get_image(self.id))
        methods = ["glance-direct", "web-download", "copy-image", "glance-download"]
        expect("the methods of import", self.image.get_import_info().import_methods["value"], methods)
        answer = self.image.get("/info/usage")
        expect("the status", answer.status_code, 200)
        assert isinstance(answer.json()["usage"], dict), answer.text

    def registers_a_location_and_sees_its_task(self):
        # As Nova does with a snapshot that it made in the pool.
        source = self.image.get_image(self.id).direct_url
        image = self.create("located")
        refused(403, self.image.add_image_location, image.id, source)
        self.nova.image.add_image_location(image.id, source)
        deadline = time.monotonic() + HASH_SECONDS
        while self.image.get_image(image.id).hash_value != self.sha512 and time.monotonic() < deadline:
            time.sleep(0.2)
        self.assert_holds_the_data(image)
        locations = list(self.nova.image.image_locations(image.id))
        expect("the location", [each.url for each in locations], [self.image.get_image(image.id).direct_url])
        # A task belongs to who asked for it.
        expect("the tasks that others see", list(self.image.image_tasks(image.id)), [])
        (task,) = self.nova.image.image_tasks(image.id)
        expect("the type of the image's task", task.type, "location_import")
        expect("the image of the task", task.image_id, image.id)
        admin = self.admin.image
        whole = admin.wait_for_task(admin.get_task(task.id), interval=0.2, wait=HASH_SECONDS)
        expect("the image that the task names", whole.input["image_id"], image.id)
        (listed,) = admin.tasks(status="success")
        expect("the task", (listed.id, listed.type), (task.id, "location_import"))
        expect("the tasks that failed", list(admin.tasks(status="failure")), [])
        self.image.delete_image(image, ignore_missing=False)
        self.assert_holds_the_data(self.image.get_image(self.id))

    def is_refused_a_task(self):
        task = {
            "type": "import",
            "input": {
                "import_from": "http://127.0.0.1:9",
                "import_from_format": "raw",
                "image_properties": {},
            },
        }
        refused(400, self.admin.image.create_task, **task)
        refused(403, self.image.create_task, **task)
        refused(403, self.image.tasks)
        refused(404, self.admin.image.get_task, self.id)
        expect("the list of such tasks", list(self.admin.image.tasks(type="import")), [])

    def is_told_that_there_is_no_cache(self):
        image = self.admin.image
        refused(404, image.get_image_cache)
        refused(404, image.queue_image, self.id)
        refused(404, image.clear_cache)
        refused(404, image.cache_delete_image, self.id, ignore_missing=False)

    def reads_every_schema(self):
        image = self.image
        for call, wanted in [
            (image.get_image_schema, "os_hash_value"),
            (image.get_images_schema, "images"),
            (image.get_member_schema, "member_id"),
            (image.get_members_schema, "members"),
            (image.get_task_schema, "input"),
            (image.get_tasks_schema, "tasks"),
            (image.get_metadef_namespace_schema, "namespace"),
            (image.get_metadef_namespaces_schema, "namespaces"),
            (image.get_metadef_resource_type_schema, "prefix"),
            (image.get_metadef_resource_types_schema, "resource_type_associations"),
            (image.get_metadef_object_schema, "required"),
            (image.get_metadef_objects_schema, "objects"),
            (image.get_metadef_property_schema, "enum"),
            (image.get_metadef_properties_schema, "properties"),
            (image.get_metadef_tag_schema, "name"),
            (image.get_metadef_tags_schema, "tags"),
        ]:
            assert wanted in call().properties, f"{call.__name__} has no {wanted}."

    def has_metadata_namespaces(self):
        image = self.admin.image
        refused(403, self.image.create_metadef_namespace, namespace=self.SPACE)
        image.create_metadef_namespace(namespace=self.SPACE, display_name="Mine", visibility="private")
        refused(409, image.create_metadef_namespace, namespace=self.SPACE)
        refused(404, self.image.get_metadef_namespace, self.SPACE)
        # It replaces the whole namespace: what is not said has its default.
        image.update_metadef_namespace(
            self.SPACE, display_name="Ours", visibility="public", is_protected=True
        )
        space = self.image.get_metadef_namespace(self.SPACE)
        expect("the name", (space.namespace, space.display_name), (self.SPACE, "Ours"))
        public = self.image.metadef_namespaces(visibility="public")
        expect("the public ones", [each.namespace for each in public], [self.SPACE])
        refused(403, image.delete_metadef_namespace, self.SPACE, ignore_missing=False)
        image.update_metadef_namespace(self.SPACE, visibility="public", is_protected=False)

    def has_metadata_objects(self):
        image = self.admin.image
        schema = {"size": {"title": "Size", "type": "integer"}}
        refused(403, self.image.create_metadef_object, self.SPACE, name="thing")
        image.create_metadef_object(self.SPACE, name="thing", properties=schema, required=["size"])
        made = self.image.get_metadef_object("thing", self.SPACE)
        expect("what it requires", made.required, ["size"])
        expect("its property", made.properties["size"]["title"], "Size")
        image.update_metadef_object("thing", self.SPACE, name="object", description="changed")
        expect("the objects", [each.name for each in self.image.metadef_objects(self.SPACE)], ["object"])
        expect("the description", self.image.get_metadef_object("object", self.SPACE).description, "changed")
        image.delete_metadef_object("object", self.SPACE, ignore_missing=False)
        image.create_metadef_object(self.SPACE, name="another")
        image.delete_all_metadef_objects(self.SPACE)
        expect("the objects", list(self.image.metadef_objects(self.SPACE)), [])

    def has_metadata_properties(self):
        image = self.admin.image
        bus = {"name": "bus", "title": "Bus", "type": "string", "enum": ["ide", "scsi"]}
        refused(403, self.image.create_metadef_property, self.SPACE, **bus)
        image.create_metadef_property(self.SPACE, **bus)
        expect("the values", self.image.get_metadef_property("bus", self.SPACE).enum, ["ide", "scsi"])
        image.update_metadef_property("bus", self.SPACE, name="bus", title="The bus", type="string")
        (listed,) = self.image.metadef_properties(self.SPACE)
        expect("the property", (listed.name, listed.title), ("bus", "The bus"))
        refused(400, image.create_metadef_property, self.SPACE, name="bad", title="Bad", type="no such type")
        image.delete_metadef_property("bus", self.SPACE, ignore_missing=False)
        image.create_metadef_property(self.SPACE, name="other", title="Other", type="string")
        image.delete_all_metadef_properties(self.SPACE)
        expect("the properties", list(self.image.metadef_properties(self.SPACE)), [])

    def has_metadata_tags(self):
        image = self.admin.image
        refused(403, self.image.add_tag_to_metadef_namespace, self.SPACE, "one")
        for tag in ["one", "two", "three"]:
            image.add_tag_to_metadef_namespace(self.SPACE, tag)
        image.remove_tag_from_metadef_namespace(self.SPACE, "one")
        expect("the tags", self.tags_of_the_space(), ["three", "two"])
        space = image.get_metadef_namespace(self.SPACE)
        space.set_tags(image, ["four"], append=True)
        expect("the tags", self.tags_of_the_space(), ["four", "three", "two"])
        space.set_tags(image, ["five"])
        expect("the tags", self.tags_of_the_space(), ["five"])
        image.remove_tags_from_metadef_namespace(self.SPACE)
        expect("the tags", self.tags_of_the_space(), [])

    def tags_of_the_space(self):
        space = self.image.get_metadef_namespace(self.SPACE).fetch_tags(self.image)
        return sorted(tag["name"] for tag in space.tags)

    def has_metadata_resource_types(self):
        image = self.admin.image
        image.create_metadef_resource_type_association(self.SPACE, name="My::Type", prefix="my_")
        (made,) = self.image.metadef_resource_type_associations(self.SPACE)
        expect("the association", (made.name, made.prefix), ("My::Type", "my_"))
        assert "My::Type" in [each.name for each in self.image.metadef_resource_types()]
        image.delete_metadef_resource_type_association("My::Type", self.SPACE, ignore_missing=False)
        expect("the associations", list(self.image.metadef_resource_type_associations(self.SPACE)), [])
        image.delete_metadef_namespace(self.SPACE, ignore_missing=False)
        refused(404, image.get_metadef_namespace, self.SPACE)

    def deletes(self):
        self.image.update_image(self.id, is_protected=True)
        refused(403, self.image.delete_image, self.id)
        self.image.update_image(self.id, is_protected=False)
        refused(404, self.alt.image.delete_image, self.id, ignore_missing=False)
        self.image.delete_image(self.id, ignore_missing=False)
        refused(404, self.image.get_image, self.id)
        refused(404, self.image.delete_image, self.id, ignore_missing=False)
        expect("the list", self.found(), [])


def main():
    mode, *arguments = sys.argv[1:]
    checks = {"local": LocalChecks, "keystone": KeystoneChecks}[mode](*arguments)
    failed = False
    for check in checks.all():
        name = f"{checks.NAME} " + check.__name__.replace("_", " ")
        try:
            check()
            print("ok", name, flush=True)
        except Exception:
            failed = True
            print("#   " + traceback.format_exc().replace("\n", "\n#   "))
            print("not ok", name, flush=True)
    return int(failed)


sys.exit(main())
