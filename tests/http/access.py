"""A server with tokens, TLS and a tight rate limit; the driver names it CALOTYPE_TLS_URL and CALOTYPE_LIMITED_URL."""
import os
import subprocess
import tempfile
import time

import httpx
import replicate
from replicate.exceptions import ReplicateError

from checks import BASE, SCHNELL, TOKEN, check, is_picture, main, raises

TLS = os.environ["CALOTYPE_TLS_URL"]
CA = os.environ["SSL_CERT_FILE"]
good = {"Authorization": f"Bearer {TOKEN}"}


@check
def tokens_are_needed():
    http = httpx.Client(base_url=TLS, verify=CA)
    for headers in ({}, {"Authorization": "Bearer wrong-wrong"}, {"Authorization": f"Basic {TOKEN}"}):
        answer = http.get("/v1/account", headers=headers)
        assert answer.status_code == 401 and answer.headers["content-type"].startswith("application/problem+json"), answer.text
        assert answer.json()["title"] == "Unauthenticated"
    for scheme in ("Bearer", "Token"):
        assert http.get("/v1/account", headers={"Authorization": f"{scheme} {TOKEN}"}).status_code == 200
    assert http.get("/health").status_code == 200 and http.get("/metrics").status_code == 401
    error = raises(ReplicateError, replicate.Client(api_token="wrong-wrong", base_url=TLS).accounts.current)
    assert error.status == 401


@check
def https_outputs_are_https_urls():
    client = replicate.Client(api_token=TOKEN, base_url=TLS)
    output = client.run(SCHNELL, input={"prompt": "a red fox", "num_inference_steps": 1, "megapixels": "0.25"})
    assert output[0].url.startswith("https://") and is_picture(output[0].read()), output
    # capability URLs need no token
    assert is_picture(httpx.get(output[0].url, verify=CA).content)


@check
def streams_need_no_token():
    made = httpx.post(TLS + "/v1/predictions", json={"version": "replicate/canary", "input": {"text": "x"}}, headers=good, verify=CA).json()
    text = httpx.get(made["urls"]["stream"], headers={"Accept": "text/event-stream"}, verify=CA, timeout=60).text
    assert "event: done" in text, text
    assert httpx.get(made["urls"]["get"], verify=CA).status_code == 401


@check
def rate_limit_says_when():
    limited = os.environ["CALOTYPE_LIMITED_URL"]
    statuses, answer = [], None
    for _ in range(12):
        answer = httpx.post(limited + "/v1/predictions", json={"version": "replicate/canary", "input": {"text": "x"}}, headers=good)
        statuses.append(answer.status_code)
    assert statuses[:10] == [201] * 10 and statuses[-1] == 429, statuses
    assert int(answer.headers["retry-after"]) >= 1 and answer.headers["ratelimit-remaining"] == "0", answer.headers
    assert "throttled" in answer.json()["detail"]


@check
def get_waits_for_the_limit():
    limited = os.environ["CALOTYPE_LIMITED_URL"]
    client = replicate.Client(api_token=TOKEN, base_url=limited)
    begin = time.time()
    for _ in range(103):  # a hundred at once, then as Retry-After says
        client.accounts.current()
    assert 0.5 < time.time() - begin < 20, time.time() - begin


@check
def too_large_files_get_413():
    http = httpx.Client(base_url=TLS, verify=CA, headers=good)
    limit = 1_000_000  # --upload-limit 0.001
    answer = http.post("/v1/files", files={"content": ("x.zip", b"x" * (limit + 1), "application/zip")})
    assert answer.status_code == 413 and "less than" in answer.json()["detail"], answer.text
    assert http.post("/v1/files", files={"content": ("x.zip", b"x" * limit, "application/zip")}).status_code == 201
    assert http.post("/v1/files", files={"other": b"x"}).status_code == 422
    answer = http.post("/v1/files", files={"content": ("../../etc/passwd\r\nx", b"x")})
    assert answer.status_code == 201 and "/" not in answer.json()["name"], answer.text


@check
def reachable_servers_need_a_token():
    program = os.environ["CALOTYPE_PROGRAM"]
    with tempfile.TemporaryDirectory() as folder:
        serve = [program, "serve", "--host", "0.0.0.0", "--port", "0", "--workers", "0", "--data", folder]
        refused = subprocess.run(serve, capture_output=True, text=True, timeout=20)
        assert refused.returncode == 2 and "token create" in refused.stderr, refused
        made = subprocess.run([program, "token", "create", "--data", folder], capture_output=True, text=True, timeout=20)
        token = made.stdout.splitlines()[-1]
        assert token in made.stdout and token not in subprocess.run([program, "token", "list", "--data", folder], capture_output=True, text=True, timeout=20).stdout
        server = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
        try:
            url = server.stdout.readline().split()[-1]
            assert httpx.get(url + "/v1/account").status_code == 401
            assert httpx.get(url + "/v1/account", headers={"Authorization": f"Bearer {token}"}).status_code == 200
            identity = subprocess.run([program, "token", "list", "--data", folder], capture_output=True, text=True, timeout=20).stdout.split()[0]
            subprocess.run([program, "token", "revoke", identity, "--data", folder], check=True, capture_output=True, timeout=20)
            time.sleep(2.5)
            assert httpx.get(url + "/v1/account", headers={"Authorization": f"Bearer {token}"}).status_code == 401
        finally:
            server.terminate()
            assert server.wait(10) == 0
        assert token not in open(folder + "/calotype.db", "rb").read().decode(errors="replace")


@check
def settings_come_from_command_environment_and_file():
    """In this order; ratelimit-remaining is ten times --rate-limit less one."""
    program = os.environ["CALOTYPE_PROGRAM"]
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/calotype.toml", "w") as file:
            file.write('port = 1\nrate-limit = 7\nworkers = 0\n')
        environment = {**os.environ, "CALOTYPE_PORT": "0", "CALOTYPE_TOKEN": "from-the-environment", "CALOTYPE_DATA_DIR": folder + "/data", "CALOTYPE_CONFIG": folder + "/calotype.toml"}
        for more, limit in (([], 7), (["--rate-limit", "3"], 3)):
            server = subprocess.Popen([program, "serve", *more], stdout=subprocess.PIPE, text=True, env=environment)
            try:
                url = server.stdout.readline().split()[-1]
                assert not url.endswith(":1"), url
                assert httpx.get(url + "/v1/account").status_code == 401
                answer = httpx.get(url + "/v1/account", headers={"Authorization": "Bearer from-the-environment"})
                assert answer.status_code == 200 and int(answer.headers["ratelimit-remaining"]) == 10 * limit - 1, answer.headers
            finally:
                server.terminate()
                assert server.wait(10) == 0
        with open(folder + "/calotype.toml", "a") as file:
            file.write("colour = 1\n")
        refused = subprocess.run([program, "serve"], capture_output=True, text=True, timeout=20, env=environment)
        assert refused.returncode == 2 and "colour is no option" in refused.stderr, refused


main()
