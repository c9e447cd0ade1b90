#!/usr/bin/env python3
"""Usage: bench/serve.py [--program build/release/calotype] [--database postgresql://…] [--rounds 5] [--only PART]
What serving costs beside the model, on this machine; Python's standard library is the client, on the same cores.

  requests   create + get of a prediction that nobody runs: milliseconds, and requests a second of several clients
  waiting    memory of the server for each client that waits ("Prefer: wait")
  wake       from create to the answer of a job that takes no time, through a worker: milliseconds
  switch     consecutive predictions of one model, the same adapter or another each time: milliseconds
  adapters   with --weights FOLDER (see full_size.sh): seconds until weights and adapter of full size are ready

Each line: median (least - most) of the rounds.
"""
import argparse
import base64
import http.client
import json
import multiprocessing
import os
import platform
import random
import signal
import socket
import statistics
import struct
import subprocess
import tempfile
import time
import urllib.parse

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODEL = os.path.join(ROOT, "tests", "golden", "models", "m1_dev")  # random numbers
CANARY = {"version": "replicate/canary", "input": {"text": "x"}}


class Server:
    def __init__(self, options, *more, weights=None):
        self.folder = tempfile.TemporaryDirectory(prefix="calotype-bench-")
        command = [options.program, "serve", "--port", "0", "--data", self.folder.name + "/data", "--rate-limit", "0", *more]
        if weights:
            os.mkdir(self.folder.name + "/data", 0o700)
            with open(self.folder.name + "/data/models.json", "w") as out:
                json.dump({"models": {"default": weights}}, out)
        else:
            command += ["--model", MODEL]
        if options.database:
            command += ["--database", options.database]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=open(self.folder.name + "/log", "w"), text=True)
        line = self.process.stdout.readline()
        if "listens on" not in line:
            raise SystemExit(open(self.folder.name + "/log").read())
        self.address = urllib.parse.urlparse(line.split()[-1]).netloc

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.folder.cleanup()

    def memory(self):
        """Bytes that nobody else has, and threads."""
        lines = dict(line.split(":", 1) for line in open(f"/proc/{self.process.pid}/smaps_rollup").read().splitlines()[1:])
        threads = len(os.listdir(f"/proc/{self.process.pid}/task"))
        return 1024 * (int(lines["Private_Clean"].split()[0]) + int(lines["Private_Dirty"].split()[0])), threads

    def cpu_seconds(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Client:
    def __init__(self, address):
        self.connection = http.client.HTTPConnection(address, timeout=120)

    def ask(self, method, path, body=None, **headers):
        text = None if body is None else json.dumps(body)
        self.connection.request(method, "/v1" + path, text, {"Content-Type": "application/json", **headers})
        answer = self.connection.getresponse()
        data = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {data[:300]}")
        return json.loads(data)

    def upload(self, path):
        """URL of a file."""
        size = os.path.getsize(path)
        head = f'--b\r\nContent-Disposition: form-data; name="content"; filename="{os.path.basename(path)}"\r\n\r\n'.encode()
        tail = b"\r\n--b--\r\n"
        self.connection.putrequest("POST", "/v1/files")
        self.connection.putheader("Content-Type", "multipart/form-data; boundary=b")
        self.connection.putheader("Content-Length", str(len(head) + size + len(tail)))
        self.connection.endheaders(head)
        with open(path, "rb") as file:
            self.connection.send(file)
        self.connection.send(tail)
        return json.loads(self.connection.getresponse().read())["urls"]["get"]

    def predict(self, body, **headers):
        return self.ask("POST", "/predictions", body, **headers)


def quantile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def show(name, values, unit):
    digits = 0 if statistics.median(values) >= 100 else 2
    print(f"{name:<44} {statistics.median(values):.{digits}f} ({min(values):.{digits}f} - {max(values):.{digits}f}) {unit}", flush=True)


def timed(function, *arguments, **more):
    begin = time.perf_counter()
    result = function(*arguments, **more)
    return 1000 * (time.perf_counter() - begin), result


def load(address, what, seconds, counts):
    client, count = Client(address), 0
    end = time.time() + seconds
    job = client.predict(CANARY)["id"]
    while time.time() < end:
        if what == "create + get":
            job = client.predict(CANARY)["id"]
            count += 1
        client.ask("GET", "/predictions/" + job)
        count += 1
    counts.put(count)


def requests(options):
    pairs = {name: {"p50": [], "p99": []} for name in ("create", "get", "create + get")}
    rates, cpu = {"create + get": [], "get": []}, []
    with Server(options, "--workers", "0") as server:
        for _ in range(options.rounds):
            client, times, before = Client(server.address), {name: [] for name in pairs}, server.cpu_seconds()
            for _ in range(options.requests):
                create, job = timed(client.predict, CANARY)
                get, _ = timed(client.ask, "GET", "/predictions/" + job["id"])
                for name, value in zip(pairs, (create, get, create + get)):
                    times[name].append(value)
            cpu.append(1000 * (server.cpu_seconds() - before) / options.requests)
            for name in pairs:
                pairs[name]["p50"].append(quantile(times[name], 0.5))
                pairs[name]["p99"].append(quantile(times[name], 0.99))
            for what in rates:
                counts = multiprocessing.Queue()
                clients = [multiprocessing.Process(target=load, args=(server.address, what, 5, counts)) for _ in range(options.clients)]
                for each in clients:
                    each.start()
                rates[what].append(sum(counts.get() for _ in clients) / 5)
                for each in clients:
                    each.join()
    for name, values in pairs.items():
        for part in values:
            show(f"{name}, {part}", values[part], "ms")
    show("create + get, CPU time of the server", cpu, "ms")
    for what, values in rates.items():
        show(f"{what}, {options.clients} clients", values, "requests/s")


def waiting(options):
    growth, threads = [], 0
    text = json.dumps(CANARY)
    for _ in range(options.rounds):
        with Server(options, "--workers", "0") as server:
            Client(server.address).predict(CANARY)
            before, few = server.memory()
            host, port = server.address.split(":")
            sockets = [socket.create_connection((host, int(port))) for _ in range(options.waiting)]
            for each in sockets:
                each.sendall(f"POST /v1/predictions HTTP/1.1\r\nHost: {server.address}\r\nPrefer: wait=60\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
            client, end = Client(server.address), time.time() + 40
            while f'status="starting",claimed="false"}} {options.waiting + 1}' not in metrics(client) and time.time() < end:
                time.sleep(0.2)
            after, many = server.memory()
            growth.append((after - before) / options.waiting / 1024)
            threads = (many - few) / options.waiting
            if options.rounds == len(growth):
                show(f"get beside {options.waiting} waiting clients, p50", [quantile([timed(client.ask, "GET", "/account")[0] for _ in range(200)], 0.5)], "ms")
            for each in sockets:
                each.close()
    show(f"memory of each of {options.waiting} waiting clients", growth, f"KiB; {threads:.1f} threads each")


def metrics(client):
    client.connection.request("GET", "/metrics")
    return client.connection.getresponse().read().decode()


def wake(options):
    p50, p99 = [], []
    with Server(options, "--workers", "1") as server:
        client = Client(server.address)
        for _ in range(3):
            client.predict(CANARY, Prefer="wait")
        for _ in range(options.rounds):
            times = []
            for _ in range(options.requests // 4):
                time.sleep(0.02)  # so that the worker waits again
                spent, job = timed(client.predict, CANARY, Prefer="wait")
                assert job["status"] == "succeeded", job
                times.append(spent)
            p50.append(quantile(times, 0.5))
            p99.append(quantile(times, 0.99))
    show("create to answer through a worker, p50", p50, "ms")
    show("create to answer through a worker, p99", p99, "ms")


def adapter(layers, rank, seed):
    """A LoRA file of random numbers for single blocks of the model."""
    config = json.load(open(MODEL + "/transformer/config.json"))
    width = config["num_attention_heads"] * config["attention_head_dim"]
    header, data, state = {}, b"", seed
    for layer in range(layers):
        for part, shape in (("lora_A", (rank, width)), ("lora_B", (width, rank))):
            numbers = []
            for _ in range(shape[0] * shape[1]):
                state = (state * 1103515245 + 12345) % 2**31
                numbers.append(state / 2**31 / 10 - 0.05)
            packed = struct.pack(f"<{len(numbers)}f", *numbers)
            header[f"transformer.single_transformer_blocks.{layer}.attn.to_q.{part}.weight"] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(packed)]}
            data += packed
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def switch(options):
    config = json.load(open(MODEL + "/transformer/config.json"))
    loras = ["data:application/octet-stream;base64," + base64.b64encode(adapter(config["num_single_layers"], 4, seed)).decode() for seed in (1, 2)]
    kinds = {"first prediction of a model": [], "the same again": [], "with an adapter": [], "the same adapter again": [], "another adapter": [], "without an adapter": []}
    for _ in range(options.rounds):
        with Server(options, "--workers", "1") as server:
            client = Client(server.address)
            client.predict(CANARY, Prefer="wait")
            for kind, lora in zip(kinds, (None, None, loras[0], loras[0], loras[1], None)):
                body = {"version": "black-forest-labs/flux-dev-lora", "input": {"prompt": "a fox", "megapixels": "0.25", "num_inference_steps": 1, "seed": 1}}
                if lora:
                    body["input"]["lora_weights"] = lora
                spent, job = timed(client.predict, body, Prefer="wait")
                assert job["status"] == "succeeded", job
                kinds[kind].append(spent)
    for kind, values in kinds.items():
        show(kind, values, "ms")


def full_adapter(path, rank, seed):
    """An adapter of all linear layers of FLUX.1's blocks: random numbers below 2^-7, bf16."""
    width = 3072
    layers = {}
    for block in range(19):
        at = f"transformer.transformer_blocks.{block}"
        for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"):
            layers[f"{at}.attn.{name}"] = (width, width)
        for name in ("ff", "ff_context"):
            layers[f"{at}.{name}.net.0.proj"], layers[f"{at}.{name}.net.2"] = (width, 4 * width), (4 * width, width)
    for block in range(38):
        at = f"transformer.single_transformer_blocks.{block}"
        for name in ("to_q", "to_k", "to_v"):
            layers[f"{at}.attn.{name}"] = (width, width)
        layers[f"{at}.proj_mlp"], layers[f"{at}.proj_out"] = (width, 4 * width), (5 * width, width)
    header, end = {}, 0
    for name, (inner, outer) in layers.items():
        for part, shape in (("lora_A", (rank, inner)), ("lora_B", (outer, rank))):
            size = 2 * shape[0] * shape[1]
            header[f"{name}.{part}.weight"] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
            end += size
    text = json.dumps(header).encode()
    state = random.Random(seed)
    block = b"".join(bytes((state.randrange(256), state.choice((0x3b, 0xbb)))) for _ in range(32768))
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for begin in range(0, end, len(block)):
            out.write(block[:end - begin])
    return end


def adapters(options):
    if not options.weights:
        return print("no --weights FOLDER: left out")
    kinds = {"the model, first of all": [], "an adapter": [], "the same adapter again": [], "another adapter": [], "no adapter again": []}
    with tempfile.TemporaryDirectory(prefix="calotype-bench-") as folder:
        files = {"transformer": "flux1-schnell-q8_0.gguf", "t5": "t5xxl-q8_0.gguf", "clip": "clip_l.safetensors", "vae": "ae.safetensors"}
        weights = {part: os.path.join(os.path.abspath(options.weights), file) for part, file in files.items()}
        loras = [f"{folder}/{name}.safetensors" for name in "ab"]
        print(f"adapters of {full_adapter(loras[0], 16, 1) / 1e6:.0f} MB", flush=True)
        full_adapter(loras[1], 16, 2)
        with Server(options, "--workers", "1", weights=weights) as server:
            client = Client(server.address)
            urls = [client.upload(lora) for lora in loras]
            for round in range(options.rounds):
                for kind, url in zip(kinds, (None, urls[0], urls[0], urls[1], None)):
                    body = {"version": "black-forest-labs/flux-dev-lora", "input": {"prompt": "a fox", "megapixels": "0.25", "num_inference_steps": 1, "seed": 1}}
                    if url:
                        body["input"]["lora_weights"] = url
                    job = client.predict(body)
                    while job["status"] not in ("succeeded", "failed", "canceled"):
                        time.sleep(0.5)
                        job = client.ask("GET", "/predictions/" + job["id"])
                    assert job["status"] == "succeeded", job
                    if round == 0 or not kind.startswith("the model"):
                        kinds[kind].append(job["metrics"]["load_time"])
    for kind, values in kinds.items():
        show(kind, values, "s")


def main():
    parts = {"requests": requests, "waiting": waiting, "wake": wake, "switch": switch, "adapters": adapters}
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default=os.path.join(ROOT, "build", "release", "calotype"))
    parser.add_argument("--database", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1000, help="of a round, one after the other")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--waiting", type=int, default=1000)
    parser.add_argument("--weights", help="folder with weights of full size, see full_size.sh")
    parser.add_argument("--only", choices=parts, default="")
    options = parser.parse_args()
    print(f"# {subprocess.run('lscpu | grep -E ^Model.name', shell=True, capture_output=True, text=True).stdout.split(':')[-1].strip()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {platform.release()}, {'PostgreSQL' if options.database else 'SQLite'}")
    for name, part in parts.items():
        if options.only in ("", name):
            print(f"# {name}", flush=True)
            part(options)


if __name__ == "__main__":
    main()
