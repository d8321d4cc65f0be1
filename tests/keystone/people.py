"""The people of a test Keystone: people.py make|env|endpoint URL DIR [IMAGE_URL].

make writes DIR/site.json and DIR/clouds.yaml:

    user      project    roles            what for
    admin     admin      admin            also system scope and the domain Default
    demo      demo       member
    alt_demo  alt_demo   member           another project
    reader    demo       reader
    manager   demo       manager
    nova      service    service, admin   a service that passes on its users' tokens
    glance    service    service, admin   the image service itself; reader of the whole system, for limits
    norole    norole     stranger         a role that no rule names

Application credentials: `demo-app` (all that demo may), `demo-app-show` (access rules: only GET of
/v2/images and of one image), `glance-app` (for the service itself).

site.json: {"url", "region", "domain": {"id", "name"}, "service_id", "endpoint_id",
"projects": {NAME: ID}, "roles": {NAME: ID},
"users": {NAME: {"id", "password", "project", "project_id"}},
"application_credentials": {NAME: {"id", "secret", "user"}}}
"""

import json
import os
import secrets
import shlex
import sys

import yaml
from keystoneauth1 import session
from keystoneauth1.identity import v3

REGION = "RegionOne"
USERS = {
    "demo": ("demo", ["member"]),
    "alt_demo": ("alt_demo", ["member"]),
    "reader": ("demo", ["reader"]),
    "manager": ("demo", ["manager"]),
    "nova": ("service", ["service", "admin"]),
    "glance": ("service", ["service", "admin"]),
    "norole": ("norole", ["stranger"]),
}
ACCESS_RULES = [
    {"service": "image", "method": "GET", "path": "/v2/images"},
    {"service": "image", "method": "GET", "path": "/v2/images/{id}"},
]
# High enough that only a test that sets limits of its own ever meets one. Sizes in MiB.
LIMITS = {
    "image_size_total": 1_000_000,
    "image_stage_total": 1_000_000,
    "image_count_total": 100_000,
    "image_count_uploading": 1_000,
}


class Keystone:
    """Just enough of the Identity API, as one user on one project."""

    def __init__(self, url, user, password, project):
        self.session = session.Session(
            v3.Password(
                url,
                username=user,
                password=password,
                user_domain_name="Default",
                project_name=project,
                project_domain_name="Default",
            )
        )
        self.url = url

    def call(self, method, path, body=None):
        answer = self.session.request(self.url + path, method, json=body)
        return answer.json() if answer.content else None

    def make(self, kind, kinds=None, **fields):
        return self.call("POST", f"/{kinds or kind + 's'}", {kind: fields})[kind]

    def named(self, kinds):
        return {each["name"]: each["id"] for each in self.call("GET", f"/{kinds}")[kinds]}


def make_users(admin, admin_password):
    roles, projects = admin.named("roles"), admin.named("projects")
    for name in {role for _, wanted in USERS.values() for role in wanted}:
        if name not in roles:
            roles[name] = admin.make("role", name=name)["id"]
    for name in {project for project, _ in USERS.values()}:
        if name not in projects:
            projects[name] = admin.make("project", name=name, domain_id="default")["id"]
    users = {
        "admin": {
            "id": admin.named("users")["admin"],
            "password": admin_password,
            "project": "admin",
            "project_id": projects["admin"],
        }
    }
    for name, (project, wanted) in USERS.items():
        password = secrets.token_hex(16)
        user = admin.make("user", name=name, password=password, domain_id="default")
        for role in wanted:
            admin.call("PUT", f"/projects/{projects[project]}/users/{user['id']}/roles/{roles[role]}")
        users[name] = {
            "id": user["id"],
            "password": password,
            "project": project,
            "project_id": projects[project],
        }
    admin.call("PUT", f"/system/users/{users['glance']['id']}/roles/{roles['reader']}")
    admin.call("PUT", f"/domains/default/users/{users['admin']['id']}/roles/{roles['admin']}")
    return roles, projects, users


def make_service(admin):
    service = admin.make("service", type="image", name="rockpool")
    endpoints = [
        admin.make(
            "endpoint",
            service_id=service["id"],
            interface=interface,
            # Until somebody says otherwise there is nothing there.
            url="http://127.0.0.1:9",
            region_id=REGION,
        )
        for interface in ["public", "internal", "admin"]
    ]
    limits = [
        {
            "service_id": service["id"],
            "region_id": REGION,
            "resource_name": name,
            "default_limit": value,
        }
        for name, value in LIMITS.items()
    ]
    admin.call("POST", "/registered_limits", {"registered_limits": limits})
    return service["id"], endpoints[0]["id"]


def make_application_credentials(url, users):
    made = {}
    for name, user, more in [
        ("demo-app", "demo", {}),
        ("demo-app-show", "demo", {"access_rules": ACCESS_RULES}),
        ("glance-app", "glance", {}),
    ]:
        who = users[user]
        owner = Keystone(url, user, who["password"], who["project"])
        credential = owner.make(
            "application_credential", f"users/{who['id']}/application_credentials", name=name, **more
        )
        made[name] = {"id": credential["id"], "secret": credential["secret"], "user": user}
    return made


def clouds(site):
    def cloud(auth, auth_type="password"):
        return {
            "auth_type": auth_type,
            "auth": {"auth_url": site["url"], **auth},
            "region_name": REGION,
            "identity_api_version": "3",
            "interface": "public",
        }

    def as_user(name, **scope):
        password = site["users"][name]["password"]
        return cloud({"username": name, "password": password, "user_domain_name": "Default", **scope})

    result = {
        name: as_user(name, project_name=user["project"], project_domain_name="Default")
        for name, user in site["users"].items()
    }
    result["system-admin"] = as_user("admin", system_scope="all")
    result["domain-admin"] = as_user("admin", domain_name="Default")
    for name, app in site["application_credentials"].items():
        result[name] = cloud(
            {"application_credential_id": app["id"], "application_credential_secret": app["secret"]},
            "v3applicationcredential",
        )
    return result


def make(url, folder):
    with open(f"{folder}/password") as file:
        password = file.read()
    admin = Keystone(url, "admin", password, "admin")
    roles, projects, users = make_users(admin, password)
    service_id, endpoint_id = make_service(admin)
    site = {
        "url": url,
        "region": REGION,
        "domain": {"id": "default", "name": "Default"},
        "service_id": service_id,
        "endpoint_id": endpoint_id,
        "projects": projects,
        "roles": roles,
        "users": users,
        "application_credentials": make_application_credentials(url, users),
    }
    with open(f"{folder}/clouds.yaml", "w") as file:
        yaml.safe_dump({"clouds": clouds(site)}, file, sort_keys=False)
    with open(f"{folder}/site.json.new", "w") as file:
        json.dump(site, file, indent=1)
    # Its being there says that all of this is done.
    os.rename(f"{folder}/site.json.new", f"{folder}/site.json")


def load(folder):
    with open(f"{folder}/site.json") as file:
        return json.load(file)


def env(url, folder):
    site = load(folder)
    service, admin = site["users"]["glance"], site["users"]["admin"]
    for name, value in {
        "URL": url,
        "SITE": f"{folder}/site.json",
        "CLOUDS": f"{folder}/clouds.yaml",
        "REGION": REGION,
        "DOMAIN": "Default",
        "SERVICE_USER": "glance",
        "SERVICE_PASSWORD": service["password"],
        "SERVICE_PROJECT": service["project"],
        "SERVICE_ID": site["service_id"],
        "ENDPOINT_ID": site["endpoint_id"],
        "ADMIN_USER": "admin",
        "ADMIN_PASSWORD": admin["password"],
        "ADMIN_PROJECT": admin["project"],
    }.items():
        print(f"export ROCKPOOL_TEST_KEYSTONE_{name}={shlex.quote(value)}")


def endpoint(url, folder, image_url):
    site = load(folder)
    admin = Keystone(url, "admin", site["users"]["admin"]["password"], "admin")
    for each in admin.call("GET", f"/endpoints?service_id={site['service_id']}")["endpoints"]:
        admin.call("PATCH", f"/endpoints/{each['id']}", {"endpoint": {"url": image_url}})


{"make": make, "env": env, "endpoint": endpoint}[sys.argv[1]](*sys.argv[2:])
