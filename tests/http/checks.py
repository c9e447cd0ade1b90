"""Plain functions as checks: a line per check, "ok NAME" or "FAIL NAME: why", which tests/http/run counts."""
import asyncio
import http.server
import inspect
import os
import sys
import threading
import time
import traceback

BASE = os.environ["CALOTYPE_URL"]
TOKEN = os.environ.get("CALOTYPE_TEST_TOKEN", "any-token-will-do")
SCHNELL = "black-forest-labs/flux-schnell"
TRAINER = "ostris/flux-dev-lora-trainer:4ffd32160efd92e956d39c5338a9b8fbafca58e03f791f6d8011f3e20e8ea6fa"
_checks = []


def check(function):
    _checks.append(function)
    return function


def raises(kind, function, *args, **kwargs):
    """The exception that the call raises; fails without one."""
    try:
        function(*args, **kwargs)
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def eventually(condition, seconds=30, what="condition"):
    end = time.time() + seconds
    while time.time() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"{what} did not come true within {seconds} s")


class Receiver:
    """A web server that keeps what is posted to it: (headers, body) in `received`. `answer` says what to answer, status and
    headers, to the first, second, … call."""

    def __init__(self, answer=lambda number: (200, {})):
        self.received = received = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                received.append((self.headers, self.rfile.read(int(self.headers["content-length"]))))
                status, headers = answer(len(received))
                self.send_response(status)
                for header in headers.items():
                    self.send_header(*header)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def main():
    only = sys.argv[1:]
    for function in _checks:
        if only and function.__name__ not in only:
            continue
        try:
            result = function()
            if inspect.isawaitable(result):
                asyncio.run(result)
            print("ok", function.__name__, flush=True)
        except BaseException as error:  # SystemExit of a client library is a failure, too
            place = traceback.extract_tb(error.__traceback__)[-1]
            print(f"FAIL {function.__name__}: {type(error).__name__}: {str(error)[:400]} ({place.filename.split('/')[-1]}:{place.lineno})", flush=True)


def is_picture(data):
    return data[:8] == b"\x89PNG\r\n\x1a\n" or data[:4] == b"RIFF" or data[:3] == b"\xff\xd8\xff"


def training_zip():
    """Twelve small pictures with captions, as users zip them: folders, __MACOSX, a stray file."""
    import io
    import struct
    import zipfile
    import zlib

    def png(seed, size=96):
        rows = b"".join(b"\0" + bytes((x * seed + y * 3 * c) % 256 for x in range(size) for c in range(3)) for y in range(size))
        chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for i in range(12):
            archive.writestr(f"set/{i}.png", png(i + 1))
            archive.writestr(f"set/{i}.txt", f"a pattern number {i}, TOK")
            archive.writestr(f"__MACOSX/set/._{i}.png", b"\0\5\x16\7")
    return out.getvalue()
