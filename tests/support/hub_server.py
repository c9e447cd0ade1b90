#!/usr/bin/env python3
"""A model hub that speaks huggingface.co's protocol, kept in memory, with faults on demand; standard library only.

    tests/support/hub_server.py
        prints two ports, "PORT CDN_PORT": the hub and the file store that it redirects to; ends when stdin closes.

The token "hf_valid" may do everything, repository "who/gated" answers 403 to it, private ones 401 without it. That this
hub is like the real one is shown by huggingface_hub itself: tests/hub/official_client.py.
    POST /_control {"cut_after": bytes, "cuts": times, "corrupt": true, "chunk": bytes, "siblings": [...], ...}
    GET  /_log     every request so far: [{"port", "method", "path", "headers"}]
    /test/…        single faults for the HTTP client's tests, see Handler.test_route
"""
import base64, hashlib, hmac, json, sys, threading, time, urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STATE = {"cut_after": 0, "cuts": 0, "corrupt": False, "chunk": 0, "siblings": None, "busy": 0, "no_range": False, "slow": 0}
LOG, REPOS, BLOBS, PARTS = [], {}, {}, {}
LOCK = threading.RLock()


def commit_id(repo):
    return hashlib.sha1(json.dumps([repo["name"], len(repo["commits"])]).encode()).hexdigest()


def git_id(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def add_repo(name, private=False, gated=False):
    REPOS[name] = {"name": name, "private": private, "gated": gated, "commits": ["initial"], "files": {}}
    return REPOS[name]


def add_file(repo, path, data, lfs):
    repo["files"][path] = {"data": data, "lfs": lfs, "sha256": hashlib.sha256(data).hexdigest()}
    BLOBS[hashlib.sha256(data).hexdigest()] = data


def sample_repos():
    card = b"---\r\nlicense: other\r\nlicense_name: flux-1-dev-non-commercial-license\r\n" \
           b"license_link: LICENSE.md\r\nbase_model: a/b\r\ntags:\r\n- x\r\n---\r\n# Model\r\nlicense: wrong\r\n"
    for name, options in (("who/model", {}), ("who/private", {"private": True}), ("who/gated", {"gated": True})):
        repo = add_repo(name, **options)
        add_file(repo, "README.md", card, False)
        add_file(repo, "config.json", b'{"a": 1}\n', False)
        add_file(repo, "empty.txt", b"", False)
        add_file(repo, "vae/weights.safetensors", bytes((i * 7 + (i >> 8)) & 255 for i in range(300_000)), True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            headers.setdefault("content_type", "application/json")
        self.send_response(status)
        headers.setdefault("content_length", str(len(body)))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status, code, message):
        self.answer(status, {"error": message}, X_Error_Code=code, X_Error_Message=message)

    def base(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def cdn(self):
        return f"http://127.0.0.1:{self.server.cdn_port}"

    def body(self):
        if "chunked" in self.headers.get("transfer-encoding", ""):
            data = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def route(self):
        split = urllib.parse.urlsplit(self.path)
        self.query = dict(urllib.parse.parse_qsl(split.query, keep_blank_values=True))
        self.parts = [urllib.parse.unquote(p) for p in split.path.strip("/").split("/")]
        self.data = self.body()
        with LOCK:
            LOG.append({"port": self.server.server_port, "method": self.command, "path": self.path,
                        "headers": {k.lower(): v for k, v in self.headers.items()}, "bytes": len(self.data)})
        try:
            self.dispatch(split.path)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_QUERY = route

    def dispatch(self, path):
        p = self.parts
        if path == "/_control":
            STATE.update(json.loads(self.data))
            for name, old in (STATE.pop("rename", None) or {}).items():
                REPOS["who/model"]["files"][name] = REPOS["who/model"]["files"].pop(old)
            return self.answer(200, {})
        if path == "/_log":
            with LOCK:
                return self.answer(200, LOG[:-1])
        if p[0] == "test":
            return self.test_route(p[1:])
        if p[0] == "cdn":
            return self.send_file(BLOBS[p[1]], '"%s"' % p[1])
        if p[0] == "lfs":
            return self.lfs_store(p[1:])
        with LOCK:
            self.hub_route(p)

    # --- the hub -----------------------------------------------------------------------------------------------------
    def may_write(self):
        return self.headers.get("authorization") == "Bearer hf_valid"

    def find_repo(self, name):
        repo = REPOS.get(name)
        token = self.headers.get("authorization")
        if token not in (None, "Bearer hf_valid"):
            self.refuse(401, "", "Invalid credentials in Authorization header")
        elif repo is None or (repo["private"] and not token):
            # The real hub does not tell strangers which private repositories exist.
            self.refuse(404 if token else 401, "RepoNotFound" if token else "", "Repository not found")
        else:
            return repo

    def hub_route(self, p):
        if p == ["api", "repos", "create"]:
            return self.create()
        if p == ["api", "validate-yaml"]:
            return self.answer(200, {"errors": [], "warnings": []})
        if p[:2] == ["api", "models"] and len(p) >= 4:
            repo = self.find_repo("/".join(p[2:4]))
            if not repo:
                return
            rest = p[4:]
            if not rest or rest[0] == "revision":
                return self.info(repo, rest[1] if rest else "main")
            if not self.may_write() and rest[0] in ("preupload", "commit"):
                return self.refuse(401, "", "Invalid username or password.")
            return {"tree": self.tree, "preupload": self.preupload, "commit": self.commit,
                    "paths-info": self.paths_info}[rest[0]](repo, rest[1])
        if p[2:6] == ["info", "lfs", "objects", "batch"] and p[1].endswith(".git"):
            repo = self.find_repo(p[0] + "/" + p[1][:-4])
            return repo and self.lfs_batch(repo)
        if len(p) >= 5 and p[2] == "resolve":
            repo = self.find_repo("/".join(p[:2]))
            return repo and self.resolve(repo, p[3], "/".join(p[4:]))
        self.refuse(404, "", "Sorry, we can't find the page you are looking for.")

    def create(self):
        if not self.may_write():
            return self.refuse(401, "", "Invalid username or password.")
        wanted = json.loads(self.data)
        name = (wanted.get("organization") or "who") + "/" + wanted["name"]
        if name in REPOS:
            return self.answer(409, {"error": "You already created this model repo", "url": f"{self.base()}/{name}"})
        add_repo(name, private=bool(wanted.get("private")) or wanted.get("visibility") == "private")
        self.answer(200, {"url": f"{self.base()}/{name}", "name": name, "id": "1"})

    def entry(self, path, file):
        out = {"type": "file", "path": path, "oid": git_id(file["data"]), "size": len(file["data"])}
        if file["lfs"]:
            out["lfs"] = {"oid": file["sha256"], "sha256": file["sha256"], "size": len(file["data"]), "pointerSize": 130}
        return out

    def check_revision(self, repo, revision):
        if revision in ("main", commit_id(repo)):
            return True
        self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")

    def info(self, repo, revision):
        if not self.check_revision(repo, revision):
            return
        siblings = []
        for path, file in sorted(repo["files"].items()):
            sibling = {"rfilename": path}
            if "blobs" in self.query:
                entry = self.entry(path, file)
                sibling.update({"size": entry["size"], "blobId": entry["oid"]})
                if file["lfs"]:
                    sibling["lfs"] = {k: entry["lfs"][k] for k in ("sha256", "size", "pointerSize")}
            siblings.append(sibling)
        if STATE["siblings"] is not None:
            siblings = STATE["siblings"]
        self.answer(200, {"_id": "1", "id": repo["name"], "modelId": repo["name"], "sha": commit_id(repo),
                          "private": repo["private"], "gated": "manual" if repo["gated"] else False, "disabled": False,
                          "downloads": 0, "likes": 0, "tags": [], "siblings": siblings})

    def tree(self, repo, revision):
        if self.check_revision(repo, revision):
            self.answer(200, [self.entry(path, file) for path, file in sorted(repo["files"].items())])

    def paths_info(self, repo, revision):
        paths = json.loads(self.data)["paths"] if self.data.startswith(b"{") else \
            urllib.parse.parse_qs(self.data.decode())["paths"]
        self.answer(200, [self.entry(p, repo["files"][p]) for p in paths if p in repo["files"]])

    def resolve(self, repo, revision, path):
        if repo["gated"]:
            message = f"Access to model {repo['name']} is restricted and you are not in the authorized list."
            return self.refuse(403 if self.may_write() else 401, "GatedRepo", message)
        if not self.check_revision(repo, revision):
            return
        file = repo["files"].get(path)
        if not file:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        headers = {"X_Repo_Commit": commit_id(repo), "Accept_Ranges": "bytes"}
        if file["lfs"]:
            return self.answer(302, b"Found", Location=f"{self.cdn()}/cdn/{file['sha256']}?signature=secret",
                               X_Linked_Etag='"%s"' % file["sha256"], X_Linked_Size=str(len(file["data"])), **headers)
        self.send_file(file["data"], '"%s"' % git_id(file["data"]), **headers)

    def send_file(self, data, etag, **headers):
        if STATE["busy"] > 0:
            STATE["busy"] -= 1
            return self.answer(503, b"busy", Retry_After="0")
        begin, status = 0, 200
        wanted = self.headers.get("range")
        if_range = self.headers.get("if-range")
        if wanted and not STATE["no_range"] and if_range in (None, etag):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            begin, status = int(first), 206
            if begin >= len(data):
                return self.answer(416, b"", Content_Range=f"bytes */{len(data)}")
            headers["Content_Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        if STATE["corrupt"] and len(data) > 1000:
            data = data[:500] + bytes([data[500] ^ 1]) + data[501:]
        self.send_response(status)
        for key, value in {"Content_Length": str(len(data) - begin), "ETag": etag, **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if STATE["cuts"] > 0 and len(data) > 1000:
            STATE["cuts"] -= 1
            self.wfile.write(data[begin:begin + STATE["cut_after"]])
            self.close_connection = True
            return
        self.wfile.write(data[begin:])

    # --- uploads -----------------------------------------------------------------------------------------------------
    def preupload(self, repo, revision):
        files = []
        for file in json.loads(self.data)["files"]:
            base64.b64decode(file["sample"], validate=True)
            binary = file["path"].endswith((".safetensors", ".bin", ".png")) or file["size"] > 10_000_000
            files.append({"path": file["path"], "uploadMode": "lfs" if binary else "regular",
                          "shouldIgnore": file["path"].endswith(".ignored"), "oid": None})
        self.answer(200, {"files": files})

    def lfs_batch(self, repo):
        if not self.may_write():
            return self.refuse(401, "", "Invalid username or password.")
        wanted = json.loads(self.data)
        assert wanted["operation"] == "upload" and wanted["hash_algo"] == "sha256"
        objects = []
        for item in wanted["objects"]:
            oid, size = item["oid"], item["size"]
            out = {"oid": oid, "size": size, "authenticated": True}
            if oid not in BLOBS:
                chunk = STATE["chunk"]
                href, header = f"{self.cdn()}/lfs/{oid}?signature=secret", {}
                if chunk and size > chunk and "multipart" in wanted["transfers"]:
                    parts = -(-size // chunk)
                    header = {f"{n:05d}": f"{self.cdn()}/lfs/{oid}/{n}?signature=secret" for n in range(1, parts + 1)}
                    header["chunk_size"] = str(chunk)
                    href = f"{self.base()}/lfs/{oid}/complete?signature=secret"
                out["actions"] = {"upload": {"href": href, "header": header},
                                  "verify": {"href": f"{self.base()}/lfs/{oid}/verify", "header": {}}}
            objects.append(out)
        self.answer(200, {"transfer": "multipart" if STATE["chunk"] else "basic", "objects": objects})

    def lfs_store(self, p):
        if self.query.get("signature") != "secret" and p[-1] != "verify":
            return self.refuse(403, "", "no signature")
        if p[-1] == "verify":
            wanted = json.loads(self.data)
            known = wanted["oid"] in BLOBS and len(BLOBS[wanted["oid"]]) == wanted["size"]
            return self.answer(200 if known else 404, {})
        if p[-1] == "complete":
            wanted = json.loads(self.data)
            parts = PARTS.pop(wanted["oid"])
            for part in wanted["parts"]:
                assert part["etag"] == '"%s"' % hashlib.md5(parts[part["partNumber"]]).hexdigest()
            BLOBS[wanted["oid"]] = b"".join(parts[n] for n in sorted(parts))
            return self.answer(200, {})
        if STATE["busy"] > 0:
            STATE["busy"] -= 1
            return self.answer(500, b"InternalError")
        if len(p) == 2:
            PARTS.setdefault(p[0], {})[int(p[1])] = self.data
        else:
            if hashlib.sha256(self.data).hexdigest() != p[0]:
                return self.answer(400, b"BadDigest")
            BLOBS[p[0]] = self.data
        self.answer(200, b"", ETag='"%s"' % hashlib.md5(self.data).hexdigest())

    def commit(self, repo, revision):
        lines = [json.loads(line) for line in self.data.splitlines() if line]
        assert self.headers["content-type"] == "application/x-ndjson" and lines[0]["key"] == "header"
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                add_file(repo, value["path"], base64.b64decode(value["content"]), False)
            elif line["key"] == "lfsFile":
                if value["oid"] not in BLOBS:
                    return self.refuse(400, "", "LFS pointer pointed to a file that does not exist")
                add_file(repo, value["path"], BLOBS[value["oid"]], True)
            elif line["key"] == "deletedFile":
                repo["files"].pop(value["path"], None)
        repo["commits"].append(lines[0]["value"]["summary"])
        self.answer(200, {"success": True, "commitOid": commit_id(repo), "hookOutput": "",
                          "commitUrl": f"{self.base()}/{repo['name']}/commit/{commit_id(repo)}"})

    # --- single faults -----------------------------------------------------------------------------------------------
    def test_route(self, p):
        query = self.query
        if p[0] == "echo":
            return self.answer(int(query.get("status", 200)), {
                "method": self.command, "path": self.path, "sha256": hashlib.sha256(self.data).hexdigest(),
                "bytes": len(self.data), "headers": [[k.lower(), v] for k, v in self.headers.items()]})
        if p[0] == "redirect":
            return self.answer(int(query.get("status", 302)), b"elsewhere", Location=query["to"])
        if p[0] == "loop":
            return self.answer(302, b"", Location="/test/loop")
        if p[0] == "bytes":
            return self.send_file(bytes(i & 255 for i in range(int(p[1]))), '"bytes-%s"' % p[1])
        if p[0] == "endless":
            self.send_response(200)
            self.end_headers()
            self.close_connection = True
            while True:
                self.wfile.write(b"x" * 65536)
        if p[0] == "hang":
            time.sleep(float(query.get("seconds", 20)))
            return self.answer(200, b"late")
        if p[0] == "trickle":  # says 100 bytes, sends ten and then nothing
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"0123456789")
            self.wfile.flush()
            time.sleep(20)
            self.close_connection = True
            return
        if p[0] == "s3":
            return self.check_signature()
        self.answer(404, b"")

    def check_signature(self):
        """AWS Signature Version 4 recomputed from the request as it came (docs.aws.amazon.com, SigV4 for S3)."""
        authorization = self.headers.get("authorization", "")
        fields = dict(f.strip().split("=", 1) for f in authorization.partition(" ")[2].split(","))
        _, day, region, service, _ = fields["Credential"].split("/")
        names = fields["SignedHeaders"].split(";")
        split = urllib.parse.urlsplit(self.path)
        query = "&".join(sorted(f if "=" in f else f + "=" for f in split.query.split("&") if f))
        payload = self.headers.get("x-amz-content-sha256")
        if payload != "UNSIGNED-PAYLOAD" and payload != hashlib.sha256(self.data).hexdigest():
            return self.answer(400, {"error": f"payload hash is {payload}"})
        canonical = "\n".join([self.command, split.path, query,
                               *(f"{n}:{' '.join(self.headers[n].split())}" for n in names), "", ";".join(names), payload])
        scope = f"{day}/{region}/{service}/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", self.headers["x-amz-date"], scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = b"AWS4" + b"secret/key"
        for word in (day, region, service, "aws4_request"):
            key = hmac.new(key, word.encode(), hashlib.sha256).digest()
        right = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        self.answer(200 if right == fields["Signature"] else 403,
                    {"signed": names, "credential": fields["Credential"], "canonical": canonical})


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # clients that hang up are part of the tests
            super().handle_error(*_)


def main():
    sample_repos()
    hub, cdn = (QuietServer(("127.0.0.1", 0), Handler) for _ in range(2))
    for server in (hub, cdn):
        server.cdn_port = cdn.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print(hub.server_port, cdn.server_port, flush=True)
    sys.stdin.read()  # the test that started this ended


if __name__ == "__main__":
    main()
