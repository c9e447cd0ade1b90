"""What no client library shows: raw HTTP, access rules, absolute URLs, idempotence, waiting clients, fuzzed requests."""
import json
import os
import random
import socket
import threading
import time

import httpx
from prometheus_client.parser import text_string_to_metric_families

from checks import BASE, SCHNELL, TOKEN, Receiver, check, eventually, main

http = httpx.Client(base_url=BASE, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=90)
HOST, PORT = BASE.split("//")[1].split(":")
LONG = {"version": "black-forest-labs/flux-dev", "input": {"prompt": "a slow fox", "num_outputs": 4, "num_inference_steps": 50}}
CANARY = {"version": "replicate/canary", "input": {"text": "x"}}


def raw(text, patience=10):
    with socket.create_connection((HOST, int(PORT)), timeout=patience) as connection:
        connection.sendall(text if isinstance(text, bytes) else text.encode())
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except OSError:
            pass
        return answer.decode(errors="replace")


def head(method, path, *headers):
    return f"{method} {path} HTTP/1.1\r\nHost: {HOST}:{PORT}\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n" + "".join(h + "\r\n" for h in headers) + "\r\n"


@check
def query_and_chunks_and_keep_alive():
    answer = raw(head("QUERY", "/v1/models", "Content-Type: text/plain", "Content-Length: 9") + '"schnell"')
    assert "flux-schnell" in answer and " 200 " in answer, answer[:200]
    body = json.dumps(CANARY)
    answer = raw(head("POST", "/v1/predictions", "Content-Type: application/json", "Transfer-Encoding: chunked") + f"{len(body):x}\r\n{body}\r\n0\r\n\r\n")
    assert " 201 " in answer, answer[:300]
    made = http.post("/v1/predictions", json=CANARY).json()
    for _ in range(3):  # one connection, an empty body with a JSON type, as replicate-js sends it
        answer = http.post(f"/v1/predictions/{made['id']}/cancel", headers={"Content-Type": "application/json"})
        assert answer.status_code == 200, answer.text


@check
def the_three_mounts():
    for prefix in ("/v1", "", "/v1/v1"):
        for path in ("account", "predictions", "models", "trainings", "files", "deployments", "collections", "hardware", "webhooks/default/secret"):
            answer = http.get(f"{prefix}/{path}")
            assert answer.status_code == 200, (prefix, path, answer.text[:200])


@check
def errors_are_problems():
    answer = http.get("/v1/predictions/nothing")
    assert answer.status_code == 404 and answer.headers["content-type"].startswith("application/problem+json") and answer.json()["status"] == 404
    answer = http.post("/v1/predictions", content="{", headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    answer = http.post("/v1/predictions", json={"version": SCHNELL, "input": {"prompt": "x", "num_outputs": 5, "aspect_ratio": "7:5"}})
    fields = {each["field"]: each["type"] for each in answer.json()["invalid_fields"]}
    assert answer.status_code == 422 and fields.get("input.num_outputs") == "number_lte" and "input.aspect_ratio" in fields, answer.text
    answer = http.put("/v1/models")
    assert answer.status_code == 405 and "GET" in answer.headers["allow"]
    answer = http.get("/v1/flux-dev")  # two words, as the page of a model
    assert answer.status_code == 405 and answer.headers["allow"] == "POST", answer.text


@check
def other_origins_and_hosts():
    for headers in ({"Origin": "null"}, {"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        answer = http.post("/v1/predictions", json=CANARY, headers=headers)
        assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers, (headers, answer.text)
    assert http.post("/v1/predictions", json=CANARY, headers={"Origin": BASE}).status_code == 201
    assert http.options("/v1/predictions", headers={"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}).status_code == 403


@check
def urls_follow_the_proxy():
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "art.example.com"}
    made = http.post("/v1/predictions", json=CANARY, headers=headers).json()
    assert all(url.startswith("https://art.example.com/") for url in made["urls"].values()), made["urls"]
    made = http.post("/v1/predictions", json=CANARY, headers={"Host": f"localhost:{PORT}"}).json()
    assert all(url.startswith(f"http://localhost:{PORT}/") for url in made["urls"].values()), made["urls"]


@check
def waiting_answers_are_terminal_or_starting():
    for wait in ("wait", "wait=1", "wait=5"):
        begin = time.time()
        answer = http.post("/v1/predictions", json=LONG if "=" in wait else CANARY, headers={"Prefer": wait})
        assert answer.json()["status"] in ("starting", "succeeded"), answer.text[:300]
        assert time.time() - begin < (int(wait[5:]) if "=" in wait else 60) + 0.4, time.time() - begin
        assert answer.headers["preference-applied"].startswith("wait=") and answer.headers["location"] == answer.json()["urls"]["get"]
        http.post(f"/v1/predictions/{answer.json()['id']}/cancel")
    assert http.post("/v1/predictions", json=CANARY, headers={"Prefer": "wait=99"}).status_code == 400


@check
def cancel_after():
    before = [http.post("/v1/predictions", json=LONG).json()["id"] for _ in range(20)]  # on a fast machine one ends in a second
    answer = http.post("/v1/predictions", json=LONG, headers={"Cancel-After": "5s"})
    assert "deadline" in answer.json()
    identity = answer.json()["id"]
    eventually(lambda: http.get(f"/v1/predictions/{identity}").json()["status"] == "canceled", 12, "the deadline")
    for other in before:
        http.post(f"/v1/predictions/{other}/cancel")
    assert http.post("/v1/predictions", json=CANARY, headers={"Cancel-After": "1s"}).status_code == 422


@check
def secrets_never_come_back():
    made = http.post(f"/v1/models/black-forest-labs/flux-dev-lora/predictions", json={"input": {"prompt": "x", "hf_api_token": "hf_verysecret"}})
    assert made.status_code == 201 and "hf_verysecret" not in made.text, made.text
    assert "hf_verysecret" not in http.get(made.json()["urls"]["get"]).text
    http.post(f"/v1/predictions/{made.json()['id']}/cancel")


@check
def events_go_on_after_last_event_id():
    made = http.post("/v1/predictions", json=CANARY).json()
    with httpx.stream("GET", made["urls"]["stream"], headers={"Accept": "text/event-stream"}, timeout=60) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        text = "".join(stream.iter_text())
    ids = [line[4:] for line in text.splitlines() if line.startswith("id: ")]
    assert text.rstrip().endswith("data: {}") and len(ids) >= 2, text
    rest = httpx.get(made["urls"]["stream"], headers={"Last-Event-ID": ids[0]}, timeout=60).text
    assert ids[0] not in rest and "event: done" in rest, rest
    rich = http.get(f"/v1/predictions/{made['id']}/events").text
    assert "event: status" in rich or "event: done" in rich, rich
    assert httpx.get(made["urls"]["stream"] + "x").status_code == 404


@check
def bad_receivers_delay_no_job():
    released = threading.Event()

    def hang(number):
        released.wait(60)
        return 200, {}

    with Receiver() as other, Receiver(hang) as hanging, Receiver(lambda number: (302, {"Location": other.url})) as redirecting, Receiver(lambda number: (503 if number < 3 else 200, {})) as flaky:
        begin, jobs = time.time(), {}
        for receiver in (hanging, redirecting, flaky, hanging, redirecting):
            made = http.post("/v1/predictions", json={**CANARY, "webhook": receiver.url, "webhook_events_filter": ["completed"]}, headers={"Prefer": "wait"})
            assert made.json()["status"] == "succeeded", made.text
            jobs.setdefault(receiver, made.json()["id"])
        assert time.time() - begin < 15, time.time() - begin
        log = lambda receiver: http.get(f"/v1/predictions/{jobs[receiver]}/webhooks").json()["results"][0]
        eventually(lambda: log(flaky)["state"] == "done", 30, "the third call")
        assert log(flaky)["attempts"] == len(flaky.received) == 3 and log(flaky)["last_status"] == 200, log(flaky)
        assert len({headers["webhook-id"] for headers, _ in flaky.received}) == 1, "all calls tell of one event"
        assert eventually(lambda: log(redirecting)["last_status"], 30, "a call") == 302 and other.received == [], log(redirecting)
        assert hanging.received and log(hanging)["state"] != "done", log(hanging)
        released.set()


@check
def metrics_are_prometheus():
    answer = http.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=0.0.4"), answer.headers
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    jobs = [sample for sample in families["calotype_jobs"].samples if sample.labels.get("status") == "succeeded"]
    assert sum(sample.value for sample in jobs) >= 1, families.keys()


@check
def big_uploads_take_little_memory():
    pid = os.environ.get("CALOTYPE_SERVER_PID")
    if not pid:
        return
    before = memory(pid)
    size = int(os.environ.get("CALOTYPE_UPLOAD_BYTES", 200_000_000))

    def body():
        yield b'--b\r\nContent-Disposition: form-data; name="content"; filename="big.zip"\r\n\r\n'
        for _ in range(size // 1_000_000):
            yield bytes(1_000_000)
        yield b"\r\n--b--\r\n"

    answer = http.post("/v1/files", content=body(), headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.status_code == 201 and answer.json()["size"] == size, answer.text
    assert memory(pid) - before < 100e6, (before, memory(pid))
    assert http.delete(f"/v1/files/{answer.json()['id']}").status_code == 204


def memory(pid):
    return next(int(line.split()[1]) * 1024 for line in open(f"/proc/{pid}/status") if line.startswith("VmHWM"))


@check
def many_clients_wait_at_once():
    count = int(os.environ.get("CALOTYPE_WAITING_CLIENTS", "300"))
    made = http.post("/v1/predictions", json=LONG).json()
    path = made["urls"]["stream"].split(f":{PORT}")[1]
    connections = []
    for _ in range(count):
        connection = socket.create_connection((HOST, int(PORT)), timeout=90)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}:{PORT}\r\n\r\n".encode())
        connections.append(connection)
    begin = time.time()
    assert http.get("/health").status_code == 200
    latency = time.time() - begin
    http.post(f"/v1/predictions/{made['id']}/cancel")
    done = 0
    for connection in connections:
        text = b""
        while b"event: done" not in text and (part := connection.recv(65536)):
            text += part
        done += b"event: done" in text
        connection.close()
    assert done == count, done
    assert latency < 2, latency


@check
def fuzzed_requests_do_no_harm():
    chance = random.Random(7)
    paths = ["/v1/predictions", f"/v1/models/{SCHNELL}/predictions", "/v1/files", "/v1/models", "/v1/images/generations", "/v1/flux-dev", "/predictions",
             "/v1/deployments", "/v1/models/ostris/flux-dev-lora-trainer/versions/" + "0" * 64 + "/trainings", "/v1/finetune", "/v1/get_result", "/out/x/y", "/%", "/%00", "//", "/v1/../x", "/v1/files/%2e%2e%2f"]
    junk = [None, -1, 1e308, "", "\u0000", "x" * 5000, [], {}, [[[[[]]]]], True, 2**64, "999999999999999999999", {"a": {"b": {"c": 1}}}, "\ud800"]
    keys = ["version", "input", "prompt", "webhook", "webhook_events_filter", "stream", "seed", "width", "num_outputs", "n", "size", "owner", "name", "destination", "id", "file_data"]

    def value(depth=0):
        pick = chance.random()
        if pick < 0.5 or depth > 3:
            return chance.choice(junk)
        if pick < 0.8:
            return {chance.choice(keys): value(depth + 1) for _ in range(chance.randrange(5))}
        return [value(depth + 1) for _ in range(chance.randrange(4))]

    count = int(os.environ.get("CALOTYPE_FUZZ_REQUESTS", "1000"))
    for i in range(count):
        method = chance.choice(["POST", "GET", "PUT", "PATCH", "DELETE", "QUERY", "BREW"])
        content = json.dumps(value()).encode()
        if chance.random() < 0.2:
            content = bytes(chance.randrange(256) for _ in range(chance.randrange(200)))
        target = chance.choice(paths) + chance.choice(["", "?cursor=%ff", "?limit=-1", "?id=%00", "?a=%"])
        kind = chance.choice(["application/json", "multipart/form-data; boundary=b", "text/plain"])
        more = chance.choice(["Prefer: wait=x", "Range: bytes=5-1", "Last-Event-ID: x", "Cancel-After: 9999999999h"])
        request = head(method, target, f"Content-Type: {kind}", f"Content-Length: {len(content)}", more).encode() + content
        answer = raw(request, patience=20)
        status = int(answer.split(" ")[1])
        assert 200 <= status < 500 or status == 501, (request[:600], answer[:600])
    begin = time.time()
    assert http.get("/health").status_code == 200
    assert time.time() - begin < 1


main()
