"""openstacksdk against a gateway: openstacksdk.py URL TOKEN FILE.

Prints `ok NAME` or `not ok NAME` per check and fails when one did.
"""

import hashlib
import io
import sys
import traceback

import openstack
from openstack import exceptions


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


class Checks:
    def __init__(self, url, token, path):
        # No service catalogue: the URL is used as it is, and so ends in /v2.
        self.image = openstack.connect(
            auth_type="admin_token",
            auth={"endpoint": url, "token": token},
            load_yaml_config=False,
            load_envvars=False,
        ).image
        self.path = path
        with open(path, "rb") as file:
            self.data = file.read()
        self.sha512 = hashlib.sha512(self.data).hexdigest()

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
        assert hashlib.sha512(whole.content).hexdigest() == self.sha512
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


def main():
    checks = Checks(*sys.argv[1:])
    failed = False
    for check in [
        checks.uploads_a_file,
        checks.uploads_bytes_of_unknown_length,
        checks.finds_and_lists,
        checks.downloads_and_verifies,
        checks.changes_properties_and_tags,
        checks.deletes,
    ]:
        name = "openstacksdk " + check.__name__.replace("_", " ")
        try:
            check()
            print("ok", name, flush=True)
        except Exception:
            failed = True
            print("#   " + traceback.format_exc().replace("\n", "\n#   "))
            print("not ok", name, flush=True)
    return int(failed)


sys.exit(main())
