"""What Schemathesis does not know: the media types of image patches, and what there is.

ROCKPOOL_TEST_IMAGES has ids of images, ROCKPOOL_TEST_NAMESPACE the name of a namespace: half of the requests
are about them.
"""

import json
import os
import zlib

import schemathesis

IMAGES = os.environ["ROCKPOOL_TEST_IMAGES"].split()
NAMESPACE = os.environ["ROCKPOOL_TEST_NAMESPACE"]


@schemathesis.serializer(
    "application/openstack-images-v2.1-json-patch",
    "application/openstack-images-v2.0-json-patch",
)
def json_patch(context, value):
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    # Made by chance from the seed, so the same in each run.
    for name, value in (path_parameters or {}).items():
        chance = zlib.crc32(str(value).encode())
        if chance % 2:
            continue
        if name in ("id", "image"):
            path_parameters[name] = IMAGES[chance // 2 % len(IMAGES)]
        elif name == "namespace":
            path_parameters[name] = NAMESPACE
    return path_parameters
