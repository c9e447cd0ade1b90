"""Two machines: servers and workers that share PostgreSQL and an S3-compatible store; one worker is killed amid a job."""
import atexit
import collections
import glob
import json
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import httpx

from checks import SCHNELL, Receiver, check, eventually, is_picture, main

PROGRAM, MODEL = os.environ["CALOTYPE_PROGRAM"], os.environ["CALOTYPE_MODEL_FOLDER"]
FOLDER = tempfile.mkdtemp(prefix="calotype-machines-")
KEY = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "CALOTYPE_SECRET_KEY": "0f" * 32}
started, folders = [], [FOLDER]


def start(name, command, **more):
    log = open(f"{FOLDER}/{name}.log", "w")
    process = subprocess.Popen(command, text=True, env={**os.environ, **KEY}, **{"stdout": log, "stderr": log, **more})
    started.append(process)
    return process


def log_of(name):
    return open(f"{FOLDER}/{name}.log").read()


@atexit.register
def end_all():
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGQUIT if process.args[0].endswith("/postgres") else signal.SIGKILL)
            process.wait()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def postgres():
    """URL of a database in a server of our own, on a socket; PostgreSQL refuses to run as root."""
    binaries = max(glob.glob("/usr/lib/postgresql/*/bin"))
    user = "postgres" if os.getuid() == 0 else None
    more = {"user": user, "group": user, "extra_groups": [], "cwd": "/"} if user else {}
    folder = tempfile.mkdtemp(prefix="calotype-pg-", dir="/tmp")  # other users may go through /tmp
    folders.append(folder)
    if user:
        os.chown(folder, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
    run = lambda *command: subprocess.run(command, capture_output=True, text=True, **more)
    made = run(binaries + "/initdb", "-D", folder + "/data", "-A", "trust", "-U", "calotype", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
    assert made.returncode == 0, made.stderr
    start("postgres", [binaries + "/postgres", "-D", folder + "/data", "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"], **more)
    eventually(lambda: run(binaries + "/createdb", "-h", folder, "-U", "calotype", "jobs").returncode == 0, 60, "PostgreSQL")
    return f"postgresql://calotype@/jobs?host={folder}"


def s3():
    """moto, a stand-in; its bucket."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    start("moto", [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)])

    def bucket():
        try:
            return httpx.put(f"http://127.0.0.1:{port}/pictures").status_code == 200
        except httpx.TransportError:
            return False

    eventually(bucket, 60, "the S3 stand-in")
    return f"s3://pictures/all?endpoint=http://127.0.0.1:{port}"


def worker(name, shared):
    return start(name, [PROGRAM, "worker", "--data", f"{FOLDER}/{name}", "--name", name, "--model", MODEL, "--threads", "1", *shared])


@check
def machines_share_jobs_and_one_that_dies_is_replaced():
    shared, receiver, chance = ["--database", postgres(), "--files", s3()], Receiver(), random.Random(5)
    server = start("server", [PROGRAM, "serve", "--port", "0", "--data", FOLDER + "/server", "--workers", "0", "--private-targets", *shared], stdout=subprocess.PIPE)
    line = server.stdout.readline()
    assert "listens on" in line, line + log_of("server")
    web = httpx.Client(base_url=line.split()[-1], timeout=30)
    workers = {name: worker(name, shared) for name in ("north", "south")}

    def ask(model, **inputs):
        answer = web.post("/v1/predictions", json={"version": model, "input": inputs, "webhook": receiver.url, "webhook_events_filter": ["completed"]})
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    long = [ask("black-forest-labs/flux-dev", prompt="a slow fox", num_outputs=4, num_inference_steps=50) for _ in range(2)]
    seized = eventually(lambda: next(((name, job) for name in workers for job in long if f"prediction {job} " in log_of(name)), None), 60, "the first job")
    jobs = long + [ask("replicate/canary", text="x") if chance.random() < 0.7 else ask(SCHNELL, prompt="a fox", megapixels="0.25") for _ in range(30)]
    eventually(lambda: web.get("/v1/predictions/" + seized[1]).json()["status"] == "processing", 60, "its beginning")
    workers[seized[0]].send_signal(signal.SIGKILL)
    workers[seized[0]].wait()

    states = {}

    def all_ended():
        for job in jobs:
            if states.get(job, {}).get("status") not in ("succeeded", "failed", "canceled"):
                states[job] = web.get("/v1/predictions/" + job).json()
        return all(state["status"] in ("succeeded", "failed", "canceled") for state in states.values())

    # A heart that stops is noticed after 45 seconds; a worker that comes meanwhile takes its share.
    time.sleep(1)
    workers["east"] = worker("east", shared)
    eventually(all_ended, 240, "the end of all jobs")
    assert all(state["status"] == "succeeded" for state in states.values()), [(state["status"], state["error"]) for state in states.values() if state["status"] != "succeeded"]
    assert "was lost" in states[seized[1]]["logs"], states[seized[1]]["logs"]
    eventually(lambda: len(receiver.received) >= len(jobs), 30, "all webhooks")
    told = [json.loads(body) for _, body in receiver.received]
    completed = collections.Counter((job["id"], job["status"]) for job in told)
    assert completed == {(job, "succeeded"): 1 for job in jobs}, completed
    ends = collections.Counter(job for name in workers for job in re.findall(r"prediction (\S+) \S+ succeeded", log_of(name)))
    assert ends == {job: 1 for job in jobs}, ends
    share = {name: len(re.findall("succeeded", log_of(name))) for name in workers}
    assert sum(count > 0 for count in share.values()) >= 2, share
    pictures = [url for state in states.values() for url in state["output"] if state["model"] != "replicate/canary"]
    assert len(pictures) >= 8 and all(is_picture(web.get(url).content) for url in pictures[:10])  # drawn there, fetched here
    for name, process in workers.items():
        process.terminate()
        assert process.wait(60) in (0, -signal.SIGKILL, 130), (name, process.returncode, log_of(name))
    server.terminate()
    assert server.wait(60) == 0, log_of("server")


main()
