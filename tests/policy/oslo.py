"""Asks oslo.policy and `rockpool policy check --cases` the same questions, and reports where they disagree.

Usage: oslo.py ROCKPOOL FOLDER [SEED]

Rules, credentials and targets are generated from the seed. What oslo.policy answers with an exception is a denial:
that is what a service makes of it. A rule that Rockpool refuses to read is not asked about; oslo.policy would have
logged it and denied, or raised.
"""

import copy
import json
import logging
import pathlib
import random
import re
import subprocess
import sys

import yaml
from oslo_config import cfg
from oslo_policy import policy

RULESETS = 60
CASES_PER_RULESET = 120
BROKEN_RULES = 250
CASES_PER_BROKEN_RULE = 20

TEXTS = ["p1", "p2", "admin", "Member", "reader", "public", "shared", "None", "True", "5", "", "é"]
KEYS = ["project_id", "owner", "visibility", "member_id", "protected", "size", "name", "tags", "target.x", "a(b)c", "ratio", "nothing"]
CREDENTIALS = [
    "user_id", "project_id", "roles", "service_roles", "is_admin", "level", "unset", "token.domain.id", "token.groups.name",
    "token.missing.id", "user_id.part", "roles.part", "system_scope", "system", "absent",
]
LITERALS = ["'public'", '"shared"', "''", "True", "False", "None", "5", "-3", "1.5", "0", "'5'"]


class Questions:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def value(self):
        r = self.random
        return r.choice([r.choice(TEXTS), r.choice(TEXTS), None, True, False, 5, -3, 1.5, 1e20, ["p1", "it's"], {"k": "v"}])

    def template(self):
        r = self.random
        attribute = lambda: f"%({r.choice(KEYS)})s"
        text = lambda: re.sub(r"\W", "", r.choice(TEXTS))
        return r.choice([attribute, attribute, attribute, text, text, lambda: text() + attribute(), lambda: attribute() + "%%" + attribute()])()

    def check(self, names):
        r = self.random
        case = lambda word: "".join(r.choice([c.upper(), c.lower()]) for c in word)
        return r.choice([
            lambda: "role:" + case(r.choice(["admin", "member", "reader", "other"])),
            lambda: "role:" + self.template(),
            lambda: r.choice(CREDENTIALS) + ":" + self.template(),
            lambda: r.choice(CREDENTIALS) + ":" + self.template(),
            lambda: r.choice(LITERALS) + ":" + self.template(),
            lambda: "rule:" + r.choice(names + ["undefined"]),
            lambda: r.choice("@!"),
        ])()

    def expression(self, names, depth):
        r = self.random
        if depth == 0 or r.random() < 0.25:
            return self.check(names)
        space = lambda: r.choice([" ", "  ", "\t", "\n "])
        inner = lambda: self.expression(names, depth - 1)
        word = lambda w: space() + r.choice([w, w.upper(), w.title()]) + space()
        return r.choice([
            lambda: inner() + word("and") + inner(),
            lambda: inner() + word("or") + inner(),
            lambda: r.choice(["not ", "NOT  "]) + inner(),
            lambda: "(" + inner() + r.choice([")", " )"]),
            lambda: "( " + inner() + word("or") + inner() + ")" + word("and") + inner(),
        ])()

    def rule(self, names):
        r = self.random
        if r.random() < 0.15:
            lists = [[self.check(names) for _ in range(r.randrange(4))] for _ in range(r.randrange(4))]
            return [x[0] if len(x) == 1 and r.random() < 0.5 else x for x in lists]
        return "" if r.random() < 0.03 else self.expression(names, r.randrange(1, 5))

    def rules(self):
        names = [f"r{n}" for n in range(8)]
        # A rule refers to later ones only: circles are refused, and have a test of their own.
        rules = {name: self.rule(names[n + 1:] + ["default"]) for n, name in enumerate(names)}
        rules["default"] = self.random.choice(["", "!", "role:reader", "project_id:%(project_id)s"])
        return rules

    def credentials(self):
        r = self.random
        all_of_them = {
            "user_id": r.choice(TEXTS),
            "project_id": r.choice(TEXTS),
            "roles": r.sample(["Admin", "member", "READER", "None", "5"], r.randrange(4)),
            "service_roles": r.sample(["service", "admin"], r.randrange(3)),
            "is_admin": r.choice([True, False]),
            "level": r.choice([5, -3, 1.5, 0]),
            "unset": None,
            "system_scope": r.choice([None, "all", ""]),
            "token": {"domain": {"id": self.value()}, "groups": [{"name": self.value()}, {"name": ["p1", "p2"]}]},
        }
        return {key: value for key, value in all_of_them.items() if r.random() < 0.9}

    def target(self):
        return {key: self.value() for key in KEYS if key != "nothing" and self.random.random() < 0.8}


def enforcer(text):
    conf = cfg.ConfigOpts()
    conf([])
    made = policy.Enforcer(conf, use_conf=False)
    made.set_rules(policy.Rules.load(text, "default"))
    return made


def verdict(made, rule, target, credentials):
    try:
        return bool(made.enforce(rule, target, copy.deepcopy(credentials)))
    except Exception:
        return False


def ask(rockpool, folder, text, cases):
    """Exit code and output of the command."""
    (folder / "policy.yaml").write_text(text)
    (folder / "cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases))
    command = [rockpool, "policy", "check", folder / "policy.yaml", "--cases", folder / "cases.jsonl"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def disagreements(rockpool, folder, text, cases):
    code, out, err = ask(rockpool, folder, text, cases)
    if f"\n{len(cases)} cases, 0 decided otherwise\n" in out and code == 0:
        return []
    return [line for line in out.splitlines() if "cases.jsonl:" in line][:5] or [f"exit code {code}: {err}{text}"]


def cases_for(questions, made, names, count):
    for _ in range(count):
        case = {"rule": questions.random.choice(names), "credentials": questions.credentials(), "target": questions.target()}
        yield {**case, "allowed": verdict(made, case["rule"], case["target"], case["credentials"])}


def report(name, wrong):
    for line in wrong[:20]:
        print(f"# {line}")
    print(f"{'not ok' if wrong else 'ok'} {name}")
    return not wrong


def generated(rockpool, folder, questions):
    wrong, allowed, total = [], 0, 0
    for n in range(RULESETS):
        rules = questions.rules()
        text = json.dumps(rules) if n % 2 else yaml.safe_dump(rules, width=40, allow_unicode=True)
        cases = list(cases_for(questions, enforcer(text), [*rules, "undefined"], CASES_PER_RULESET))
        allowed += sum(case["allowed"] for case in cases)
        total += len(cases)
        wrong += disagreements(rockpool, folder, text, cases)
    if not total / 5 < allowed < total * 4 / 5:
        wrong.append(f"{allowed} of {total} allowed: such questions prove little")
    return report(f"{total} generated verdicts are those of oslo.policy", wrong)


def defaults(rockpool, folder, questions):
    config = folder / "rockpool.toml"
    store = f'ceph_conf = "{config}"\nuser = "u"\nkeyring = "{config}"\n'
    config.write_text(f'[catalog]\nurl = "postgres://u@h/d"\n[stores.s]\n{store}[identity]\nmode = "local"\n')
    listed = subprocess.run([rockpool, "policy", "list", "--json", "--config", config], capture_output=True, check=True)
    rules = {rule["name"]: rule["rule"] for rule in json.loads(listed.stdout)}
    cases = list(cases_for(questions, enforcer(json.dumps(rules)), list(rules), 3000))
    return report(f"3000 verdicts of the {len(rules)} default rules are those of oslo.policy", disagreements(rockpool, folder, "{}", cases))


def broken(rockpool, folder, questions):
    """Rules with a few characters changed: what is read at all means the same."""
    wrong, read, refused = [], 0, 0
    r = questions.random
    for _ in range(BROKEN_RULES):
        rule = list(questions.expression(["default"], 2))
        for _ in range(r.randrange(1, 4)):
            at = r.randrange(len(rule) + 1)
            rule[at:at + r.randrange(2)] = r.choice(["", "", "(", ")", "'", "%", ":", " ", "not ", " or ", "s", "."])
        text = json.dumps({"r0": "".join(rule), "default": "role:reader"})
        made = enforcer(text)
        cases = list(cases_for(questions, made, ["r0"], CASES_PER_BROKEN_RULE))
        code, out, err = ask(rockpool, folder, text, cases)
        if "is valid" not in out:
            refused += 1
            if code != 1 or "policy.yaml:1: rule r0, at character" not in err:
                wrong.append(f"{text}: {err}")
            continue
        read += 1
        if code != 0:
            wrong.append(f"{text}: {out}")
    if min(read, refused) < BROKEN_RULES / 10:
        wrong.append(f"{read} rules read, {refused} refused: such rules prove little")
    return report(f"{read} of {BROKEN_RULES} damaged rules are read, and mean the same; the others are refused", wrong)


def noticed(rockpool, folder, questions):
    """The comparison itself works: a verdict turned round is found."""
    rules = json.dumps(questions.rules())
    cases = list(cases_for(questions, enforcer(rules), ["r0"], 50))
    cases[17]["allowed"] = not cases[17]["allowed"]
    found = disagreements(rockpool, folder, rules, cases)
    return report("a verdict that differs is noticed", [] if len(found) == 1 and "cases.jsonl:18:" in found[0] else [str(found)])


def main():
    rockpool, folder, *seed = sys.argv[1:]
    # oslo.policy writes a line per rule that it cannot read.
    logging.disable(logging.CRITICAL)
    questions = Questions(int(seed[0]) if seed else 20260)
    parts = [generated, defaults, broken, noticed]
    done = [part(rockpool, pathlib.Path(folder), questions) for part in parts]
    sys.exit(0 if all(done) else 1)


main()
