"""Servers and workers that are killed (SIGKILL) at random moments under load: no accepted job is lost or stays for ever."""
import atexit
import os
import random
import signal
import socket
import subprocess
import tempfile
import threading
import time

import httpx

from checks import SCHNELL, check, eventually, is_picture, main

PROGRAM, MODEL = os.environ["CALOTYPE_PROGRAM"], os.environ["CALOTYPE_MODEL_FOLDER"]
KILLS = int(os.environ.get("CALOTYPE_KILLS", "8"))


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Server:
    started = []

    def __init__(self):
        self.folder, self.port = tempfile.mkdtemp(prefix="calotype-restarts-"), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        self.log = open(self.folder + "/log.txt", "a")
        self.process = subprocess.Popen([PROGRAM, "serve", "--port", str(self.port), "--data", self.folder + "/data", "--workers", "2", "--model", MODEL],
                                        stdout=subprocess.PIPE, stderr=self.log, text=True)
        Server.started.append(self.process)
        assert "listens on" in self.process.stdout.readline(), open(self.folder + "/log.txt").read()

    def workers(self):
        children = open(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read().split()
        for task in os.listdir(f"/proc/{self.process.pid}/task"):
            children += open(f"/proc/{self.process.pid}/task/{task}/children").read().split()
        return sorted({int(child) for child in children})

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.start()

    def stop(self):
        self.process.terminate()
        return self.process.wait(60)


@check
def killed_servers_and_workers_lose_nothing():
    chance, server = random.Random(11), Server()
    accepted, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            body = {"version": "replicate/canary", "input": {"text": "x"}} if chance.random() < 0.5 else {"version": SCHNELL, "input": {"prompt": "a fox", "megapixels": "0.25"}}
            try:
                answer = httpx.post(server.url + "/v1/predictions", json=body, timeout=10)
                assert answer.status_code == 201, answer.text
                accepted.append(answer.json()["id"])
            except httpx.TransportError:
                pass  # nobody was told that it was accepted
            time.sleep(0.2)

    clients = [threading.Thread(target=ask) for _ in range(3)]
    for client in clients:
        client.start()
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.5, 4))
        workers = server.workers()
        if workers and chance.random() < 0.5:
            os.kill(chance.choice(workers), signal.SIGKILL)
        else:
            server.kill()
    stop.set()
    for client in clients:
        client.join()
    states = {}

    def all_ended():
        for identity in accepted:
            if states.get(identity, {}).get("status") not in ("succeeded", "failed", "canceled"):
                answer = httpx.get(f"{server.url}/v1/predictions/{identity}", timeout=10)
                assert answer.status_code == 200, (identity, answer.text)  # accepted and lost
                states[identity] = answer.json()
        return all(state["status"] in ("succeeded", "failed", "canceled") for state in states.values())

    eventually(all_ended, 240, "the end of all jobs")
    assert len(accepted) > 20 and len(set(accepted)) == len(accepted), len(accepted)
    bad = [state for state in states.values() if state["status"] != "succeeded"]
    assert not bad, [(state["status"], state["error"]) for state in bad][:3]
    for state in states.values():
        if state["model"] == SCHNELL:
            assert len(state["output"]) == 1, state["output"]
    last = next(state for state in reversed(states.values()) if state["model"] == SCHNELL)
    assert is_picture(httpx.get(last["output"][0]).content)
    assert server.stop() == 0


@check
def workers_end_with_their_server():
    server = Server()
    workers = eventually(lambda: len(server.workers()) == 2 and server.workers(), 20, "workers")
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    gone = lambda: not any(os.path.exists(f"/proc/{worker}") and "Z" not in open(f"/proc/{worker}/stat").read().split()[2] for worker in workers)
    eventually(gone, 30, "the end of the workers")


@check
def workers_are_started_again():
    server = Server()
    first = eventually(lambda: len(server.workers()) == 2 and server.workers(), 20, "workers")
    os.kill(first[0], signal.SIGKILL)
    eventually(lambda: len(server.workers()) == 2 and first[0] not in server.workers(), 20, "another worker")
    begin = time.time()
    assert server.stop() == 0 and time.time() - begin < 30


atexit.register(lambda: [process.kill() for process in Server.started if process.poll() is None])
main()
