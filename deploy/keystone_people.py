"""The people of the site: keystone_people.py URL PUBLIC_URL IMAGE_URL PASSWORDS SERVICE_PASSWORD CLOUDS.

user      project   roles
admin     admin     admin     made by keystone-manage bootstrap
demo      demo      member
rockpool  service   service   the gateways

Also the image service with its endpoints, and a clouds.yaml for clients. May be run again.
"""

import os
import sys

import yaml
from keystoneauth1 import session
from keystoneauth1.identity import v3

REGION = "RegionOne"
URL, PUBLIC_URL, IMAGE_URL, PASSWORDS, SERVICE_PASSWORD, CLOUDS = sys.argv[1:]


def secret(path):
    with open(path) as file:
        return file.read()


ADMIN = session.Session(
    v3.Password(
        URL,
        username="admin",
        password=secret(f"{PASSWORDS}/admin.password"),
        user_domain_name="Default",
        project_name="admin",
        project_domain_name="Default",
    )
)


def call(method, path, body=None):
    answer = ADMIN.request(URL + path, method, json=body)
    return answer.json() if answer.content else None


def one(kind, name, **fields):
    """The id of a thing by its name, which is made if need be."""
    found = [each["id"] for each in call("GET", f"/{kind}s?name={name}")[f"{kind}s"]]
    return found[0] if found else call("POST", f"/{kind}s", {kind: {"name": name, **fields}})[kind]["id"]


def person(name, project, role, password):
    user = one("user", name, domain_id="default", password=password)
    call("PATCH", f"/users/{user}", {"user": {"password": password}})
    project = one("project", project, domain_id="default")
    call("PUT", f"/projects/{project}/users/{user}/roles/{one('role', role)}")


def cloud(name):
    auth = {
        "auth_url": PUBLIC_URL,
        "username": name,
        "password": secret(f"{PASSWORDS}/{name}.password"),
        "project_name": name,
        "user_domain_name": "Default",
        "project_domain_name": "Default",
    }
    return {"auth": auth, "region_name": REGION, "identity_api_version": 3}


person("demo", "demo", "member", secret(f"{PASSWORDS}/demo.password"))
person("rockpool", "service", "service", secret(SERVICE_PASSWORD))
service = one("service", "rockpool", type="image")
endpoints = {each["interface"]: each["id"] for each in call("GET", f"/endpoints?service_id={service}")["endpoints"]}
for interface, url in {"public": IMAGE_URL, "internal": "http://balancer:9292"}.items():
    endpoint = {"service_id": service, "interface": interface, "region_id": REGION, "url": url}
    if interface in endpoints:
        call("PATCH", f"/endpoints/{endpoints[interface]}", {"endpoint": endpoint})
    else:
        call("POST", "/endpoints", {"endpoint": endpoint})
with open(CLOUDS, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
    yaml.safe_dump({"clouds": {name: cloud(name) for name in ("admin", "demo")}}, file)
