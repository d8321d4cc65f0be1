"""Reads a subunit stream, prints `ok NAME`, `skip NAME: reason` or `not ok NAME` per test: report.py LABEL.

A failure's traceback goes before it, behind #.
"""

import re
import sys

import subunit
from testtools import StreamToDict


def tell(label, test):
    status = test["status"]
    # test.path.Class.test_name[attr,id-...], and setUpClass (test.path.Class) where all of it is skipped
    name = label + " " + re.sub(r"\[.*\]", "", test["id"])
    details = {key: content.as_text().strip() for key, content in test["details"].items()}
    if status in ("exists", "inprogress"):
        return
    if status in ("success", "xfail"):
        print("ok", name)
    elif status == "skip":
        print(f"skip {name}: {' '.join(details.get('reason', 'no reason given').split())}")
    else:
        for key, text in details.items():
            if "traceback" in key or "reason" in key:
                print("#   " + text.replace("\n", "\n#   "))
        print("not ok", name)


def main():
    results = StreamToDict(lambda test: tell(sys.argv[1], test))
    results.startTestRun()
    subunit.ByteStreamToStreamResult(sys.stdin.buffer, non_subunit_name="stdout").run(results)
    results.stopTestRun()


main()
