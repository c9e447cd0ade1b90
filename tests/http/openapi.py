"""schemathesis on /openapi.json: requests made from the description, answers held against it. A check per operation."""
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

import httpx

from checks import SCHNELL, TOKEN

BASE = os.environ["CALOTYPE_DESCRIBED_URL"]

# Not checked: whether inputs are taken or refused, which the description leaves to each model's own schema; methods that
# it does not name, as OpenAPI 3.1 has no word for QUERY; and pictures through OpenAI's API, which are waited for.
UNCHECKED = "negative_data_rejection,positive_data_acceptance,ignored_auth,unsupported_method"
HOOKS = '''
import os
import zlib

import schemathesis


@schemathesis.hook
def map_path_parameters(context, values):
    """Half of the requests name what exists."""
    if values and zlib.crc32(repr(sorted(values.items())).encode()) % 2:
        kind = context.operation.path.split("/")[2]
        known = {"owner": "black-forest-labs", "name": "flux-schnell", "version": os.environ["KNOWN_VERSION"]}
        if kind == "deployments":
            known = {"owner": "me", "name": "known"}
        return {name: known.get(name, os.environ.get("KNOWN_" + kind.upper(), value)) for name, value in values.items()}
    return values


@schemathesis.hook
def map_body(context, body):
    """Webhooks go to this machine alone."""
    if isinstance(body, dict) and str(body.get("webhook", "")).strip().lower().startswith("http"):
        return {**body, "webhook": "http://127.0.0.1:9/"}
    return body
'''


def made(path, **request):
    answer = httpx.post(BASE + path, headers={"Authorization": f"Bearer {TOKEN}"}, **request)
    assert answer.status_code == 201, answer.text
    return answer.json()


def main():
    version = httpx.get(f"{BASE}/v1/models/{SCHNELL}", headers={"Authorization": f"Bearer {TOKEN}"}).json()["latest_version"]["id"]
    made("/v1/deployments", json={"name": "known", "model": SCHNELL, "version": version, "hardware": "cpu"})
    prediction = made("/v1/predictions", json={"version": version, "input": {"prompt": "x"}})
    file = made("/v1/files", files={"content": ("x.txt", b"x")})
    folder = tempfile.mkdtemp()
    with open(folder + "/calotype_hooks.py", "w") as hooks:
        hooks.write(HOOKS)
    known = {"KNOWN_VERSION": version, "KNOWN_PREDICTIONS": prediction["id"], "KNOWN_TRAININGS": prediction["id"], "KNOWN_FILES": file["id"], "KNOWN_COLLECTIONS": "official"}
    command = [os.path.join(os.path.dirname(sys.executable), "schemathesis"), "run", BASE + "/openapi.json", "--header", f"Authorization: Bearer {TOKEN}", "--exclude-path", "/v1/images/generations",
               "--exclude-checks", UNCHECKED, "--phases", "examples,coverage,fuzzing", "--max-examples", os.environ.get("CALOTYPE_OPENAPI_EXAMPLES", "50"), "--seed", "1", "--generation-database", "none",
               "--continue-on-failure", "--request-timeout", "20", "--warnings", "off", "--report", "junit", "--report-junit-path", folder + "/report.xml"]
    run = subprocess.run(command, env={**os.environ, **known, "PYTHONPATH": folder, "SCHEMATHESIS_HOOKS": "calotype_hooks", "PYTHONHASHSEED": "0"}, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    failed = 0
    for case in xml.etree.ElementTree.parse(folder + "/report.xml").iter("testcase") if os.path.exists(folder + "/report.xml") else []:
        name, complaints = case.get("name"), [each.get("message", "") for each in case if each.tag in ("failure", "error")]
        print(f"FAIL {name}: {' '.join(complaints)[:2000]}" if complaints else f"ok {name}")
        failed += bool(complaints)
    if run.returncode != 0:
        print(run.stdout[-6000:], run.stderr[-2000:])
    return run.returncode if not failed else 0


sys.exit(main())
