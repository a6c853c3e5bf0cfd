import base64
import hashlib
import http.server
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from small_gpt2 import network, same

import zoo
from zoo import checkpoint_config, source_files
from zoo.__main__ import main
from zoo.hub import push
from zoo.source import Source

PLAIN = ["README.md", "config.json", "model.safetensors", "tokenizer.json"]


@pytest.fixture
def folder(tmp_path):
    return zoo.save(network(), tmp_path / "model", step=7, tokenizer_json='{"a": 1}')


@pytest.fixture
def steps(tmp_path):
    for step in (0, 512):
        zoo.save(network(seed=step), tmp_path / "steps" / f"step-{step:06}", step=step)
    (tmp_path / "steps" / "README.md").write_text("# How it learned\n")
    return tmp_path / "steps"


class Hub:
    """What a hub keeps: files per branch of a repository, and what it was asked."""

    def __init__(self, root):
        self.root, self.objects, self.requests = root, root / "objects", []
        self.branches = defaultdict(dict)  # (repo, branch) -> path -> content's digest
        self.heads, self.summaries, self.private, self.refusals = {}, [], {}, {}
        self.answers = True  # whether it answers at all
        self.objects.mkdir(parents=True)

    def keep(self, content):
        digest = hashlib.sha256(content).hexdigest()
        (self.objects / digest).write_bytes(content)
        return digest

    def create(self, name, organization, visibility="public", private=False, **_):
        repo = f"{organization}/{name}"
        known = repo in self.private
        if not known:
            self.private[repo] = private or visibility == "private"  # older clients say the former
            self.commit(repo, "main", {".gitattributes": self.keep(b"*.safetensors filter=lfs")}, [])
        return 409 if known else 200, {"url": f"{self.here}/{repo}"}

    def branch(self, repo, branch):
        known = (repo, branch) in self.heads
        if not known:
            self.branches[repo, branch] = dict(self.branches[repo, "main"])
            self.heads[repo, branch] = self.heads[repo, "main"]
        return 409 if known else 200, {}

    def info(self, repo, branch="main"):
        return 200, {"id": repo, "sha": self.heads[repo, branch], "private": self.private[repo], "siblings": []}

    def tree(self, repo, revision):
        branch = next(b for (r, b), head in self.heads.items() if r == repo and head == revision)
        files = self.branches[repo, branch].items()
        return 200, [{"type": "file", "path": path, "size": 1, "oid": digest} for path, digest in files]

    def modes(self, repo, branch, files):
        there, answers = self.branches[repo, branch], []
        for path in (file["path"] for file in files):
            is_lfs = path.endswith(".safetensors")
            oid = there.get(path)
            if oid and not is_lfs:
                content = (self.objects / oid).read_bytes()
                oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            answer = {"path": path, "uploadMode": "lfs" if is_lfs else "regular", "shouldIgnore": False}
            answers.append(answer | {"oid": oid} if oid else answer)
        return 200, {"files": answers}

    def batch(self, repo, objects):
        uploads = [{**o, "actions": {"upload": {"href": f"{self.here}/upload/{o['oid']}"}}} for o in objects]
        return 200, {"transfer": "basic", "objects": uploads}

    def commit(self, repo, branch, added, deleted, summary=None, parent=None):
        if parent != self.heads.get((repo, branch)):
            return 412, {"error": "A commit has happened since."}
        files = self.branches[repo, branch]
        assert not set(deleted) - files.keys()
        self.branches[repo, branch] = {k: v for k, v in files.items() if k not in deleted} | added
        head = self.heads[repo, branch] = hashlib.sha1(
            str(sorted(self.branches[repo, branch].items())).encode()
        ).hexdigest()
        self.summaries += [summary] if summary else []
        return 200, {"commitUrl": f"{self.here}/{repo}/commit/{head}", "commitOid": head}

    def commit_lines(self, repo, branch, body):
        added, deleted = {}, []
        for line in map(json.loads, body.splitlines()):
            kind, value = line["key"], line["value"]
            if kind == "header":
                header = value
            elif kind == "file":
                added[value["path"]] = self.keep(base64.b64decode(value["content"]))
            elif kind == "lfsFile":
                assert (self.objects / value["oid"]).stat().st_size == value["size"]
                added[value["path"]] = value["oid"]
            else:
                assert kind == "deletedFile"
                deleted.append(value["path"])
        return self.commit(repo, branch, added, deleted, header["summary"], header["parentCommit"])

    def answer(self, method, path, body):
        for part, refusal in self.refusals.items():
            if part in path:
                return refusal
        call = [unquote(part) for part in path.strip("/").split("/")]
        repo = "/".join(call[2:4])
        match method, call[0], *call[4:]:
            case "POST", "api" if call[1:] == ["repos", "create"]:
                return self.create(**json.loads(body))
            case "POST", "api" if call[1:] == ["validate-yaml"]:
                return 200, {}
            case "POST", "api", "branch", branch:
                return self.branch(repo, branch)
            case "GET", "api":
                return self.info(repo)
            case "GET", "api", "revision", branch:
                return self.info(repo, branch)
            case "GET", "api", "refs":
                return 200, {"branches": [], "converts": [], "tags": []}
            case "GET", "api", "tree", revision:
                return self.tree(repo, revision)
            case "POST", "api", "preupload", branch:
                return self.modes(repo, branch, json.loads(body)["files"])
            case "POST", "api", "commit", branch:
                return self.commit_lines(repo, branch, body)
            case "POST", *_ if path.endswith("/info/lfs/objects/batch"):
                return self.batch(repo, json.loads(body)["objects"])
            case "PUT", "upload":
                assert self.keep(body) == call[1]
                return 200, {}
        raise AssertionError(f"unexpected {method} {path}")

    def names(self, branch="main", repo="org/repo"):
        return sorted(set(self.branches[repo, branch]) - {".gitattributes"})

    def read(self, name, branch="main", repo="org/repo"):
        return (self.objects / self.branches[repo, branch][name]).read_bytes()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one piece: two would wait for each other

    def reply(self, status, content, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def call(self):
        hub, path = self.server.hub, urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub.requests.append((self.command, path))
        if not hub.answers:
            self.close_connection = True
            return None
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.download(match[1], unquote(match[2]), unquote(match[3]))
        status, answer = hub.answer(self.command, path, body)
        return self.reply(status, json.dumps(answer).encode(), Content_Type="application/json")

    def download(self, repo, revision, name):
        hub = self.server.hub
        branch = next((b for (r, b), head in hub.heads.items() if (r, head) == (repo, revision)), revision)
        digest = hub.branches[repo, branch].get(name)
        commit = hub.heads[repo, branch]
        if digest is None:
            return self.reply(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        return self.reply(200, (hub.objects / digest).read_bytes(), ETag=f'"{digest}"', X_Repo_Commit=commit)

    do_GET = do_HEAD = do_POST = do_PUT = call

    def log_message(self, *args):
        pass


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A hub on this machine, to which somebody is logged in."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.hub = hub = Hub(tmp_path / "remote")
    hub.here = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    template = hub.here + "/{repo_id}/resolve/{revision}/{filename}"
    settings = {"ENDPOINT": hub.here, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_DISABLE_XET": True}
    settings |= {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": False}
    settings |= {"HF_TOKEN_PATH": str(tmp_path / "token"), "HF_STORED_TOKENS_PATH": str(tmp_path / "tokens")}
    for name, value in settings.items():
        monkeypatch.setattr(constants, name, value)
    huggingface_hub.close_session()
    yield hub
    huggingface_hub.close_session()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("target", ["hf:org/repo", "hf:org/repo/small/one", "hf:org/repo@v2", "hf:org/repo/a@x/y"])
def test_a_pushed_checkpoint_comes_back_bit_by_bit(folder, remote, target):
    address = push(folder, target)
    branch = target.partition("@")[2] or "main"
    assert address == f"{remote.here}/org/repo/commit/{remote.heads['org/repo', branch]}"
    assert same(zoo.load(target), network())
    below = "".join(f"{part}/" for part in target.partition("@")[0].split("/")[2:])
    assert remote.names(branch) == [below + name for name in PLAIN]
    for name in PLAIN[1:]:
        assert remote.read(below + name, branch) == (folder / name).read_bytes()


def test_a_push_is_one_commit_with_the_message_asked_for(folder, remote):
    push(folder, "hf:org/repo@v2")
    push(folder, "hf:org/other", message="as published")
    assert remote.summaries == ["Push GPT2 after 7 training steps", "as published"]
    assert remote.names("main") == []


def test_pushing_the_same_again_makes_no_commit(folder, remote):
    assert push(folder, "hf:org/repo") == push(folder, "hf:org/repo")
    assert len(remote.summaries) == 1


def test_a_folder_of_steps_is_pushed_whole_in_one_commit(steps, remote):
    push(steps, "hf:org/repo")
    for step in (0, 512):
        assert same(zoo.load(f"hf:org/repo/step-{step:06}"), network(seed=step))
    assert remote.names() == ["README.md", *(f"step-{s}/{n}" for s in ("000000", "000512") for n in PLAIN[:3])]
    assert b"# How it learned" in remote.read("README.md")
    assert len(remote.summaries) == 1


def test_of_a_run_with_steps_the_last_one_is_pushed(steps, remote):
    (steps.parent / "run").mkdir()
    steps.rename(steps.parent / "run" / "steps")
    push(steps.parent / "run", "hf:org/repo")
    assert same(zoo.load("hf:org/repo"), network(seed=512))
    assert remote.names() == PLAIN[:3]


def test_a_shipped_checkpoint_is_pushed_by_its_name(remote):
    name = zoo.list_models()[0]
    push(name, "hf:org/repo")
    assert same(zoo.load("hf:org/repo"), zoo.load(name))


def test_a_lightning_checkpoint_is_pushed_as_a_zoo_checkpoint(tmp_path, remote):
    part = {"class": "GPT2", "init_args": network().config, "step": 9, "tokenizer_json": "{}", "provenance": {}}
    state = {f"net.{name}": tensor for name, tensor in network().state_dict().items()}
    ckpt = tmp_path / "run" / "checkpoints" / "last.ckpt"
    ckpt.parent.mkdir(parents=True)
    torch.save({"state_dict": state, "zoo": part}, ckpt)
    push(ckpt, "hf:org/file")
    push(tmp_path / "run", "hf:org/run")
    for repo in ("org/file", "org/run"):
        assert same(zoo.load(f"hf:{repo}"), network())
        assert remote.names(repo=repo) == PLAIN
    assert list(ckpt.parent.iterdir()) == [ckpt]


def test_only_files_of_the_checkpoint_are_sent(folder, remote):
    for name in ("notes.txt", "model.ckpt", "weights.pt", "token_counts.json", "step.json"):
        (folder / name).write_text("[1]")
    push(folder, "hf:org/repo")
    assert remote.names() == PLAIN


def test_a_pickle_that_the_config_claims_as_its_own_is_refused_and_nothing_is_sent(folder, remote, refused):
    (folder / "weights.pt").write_bytes(b"pickle")
    part = checkpoint_config.read(folder)
    part["files"]["weights.pt"] = hashlib.sha256(b"pickle").hexdigest()
    checkpoint_config.write(folder, part, {})
    with refused("weights.pt is not the file that was saved"):
        push(folder, "hf:org/repo")
    assert remote.requests == []


def test_a_model_of_another_kind_is_not_written_over(folder, remote, refused):
    push(folder, "hf:org/repo")
    theirs = dict(remote.branches["org/repo", "main"]) | {"config.json": remote.keep(b'{"model_type": "gpt2"}')}
    remote.branches["org/repo", "main"] = theirs
    with refused("config.json of hf:org/repo belongs to another model"):
        push(folder, "hf:org/repo")
    assert remote.branches["org/repo", "main"] == theirs


def test_a_card_on_the_hub_stays_where_the_steps_that_are_pushed_have_none(steps, remote):
    push(steps, "hf:org/repo")
    card = remote.read("README.md")
    (steps / "README.md").unlink()
    push(steps, "hf:org/repo")
    assert remote.read("README.md") == card


def test_an_older_checkpoint_is_replaced_and_the_rest_is_left_alone(tmp_path, folder, steps, remote):
    push(steps, "hf:org/repo")
    push(folder, "hf:org/repo/deeper")
    remote.branches["org/repo", "main"] |= dict.fromkeys(["notes.txt", "step-000000/plot.png"], remote.keep(b"mine"))
    push(folder, "hf:org/repo")
    kept = [*(f"deeper/{name}" for name in PLAIN), "notes.txt", "step-000000/plot.png"]
    assert remote.names() == sorted([*PLAIN, *kept])
    push(zoo.save(network(seed=1), tmp_path / "other"), "hf:org/repo")
    assert remote.names() == sorted([*PLAIN[:3], *kept])
    assert same(zoo.load("hf:org/repo"), network(seed=1))
    assert len(remote.summaries) == 4


def test_the_card_gets_the_front_matter_the_hub_needs_and_the_local_one_stays(folder, remote):
    card = (folder / "README.md").read_text()
    push(folder, "hf:org/repo")
    head = "---\nlibrary_name: superposition-zoo\ntags:\n- superposition-zoo\n- interpretability\n- gpt2\n---\n\n"
    assert remote.read("README.md").decode() == head + card
    assert (folder / "README.md").read_text() == card


@pytest.mark.parametrize("card", ["---\nlicense: mit\n---\n# Mine\n", "---\r\nlicense: mit\r\n---\r\n# Mine\r\n"])
def test_a_card_with_front_matter_goes_up_as_it_is(folder, remote, card):
    (folder / "README.md").write_bytes(card.encode())
    push(folder, "hf:org/repo")
    assert remote.read("README.md") == card.encode()


def test_a_repository_is_private_if_asked_and_a_public_one_is_refused_then(folder, remote, refused):
    push(folder, "hf:org/secret", private=True)
    push(folder, "hf:org/open")
    assert remote.private == {"org/secret": True, "org/open": False}
    with refused("hf:org/open exists already and is public"):
        push(folder, "hf:org/open@new", private=True)
    assert ("org/open", "new") not in remote.heads


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_of_a_damaged_checkpoint_nothing_is_sent(folder, steps, remote, refused, name):
    (folder / name).write_bytes((folder / name).read_bytes()[:-9])
    (steps / "step-000512" / "model.safetensors").unlink()
    for source in (folder, steps):
        with refused("damaged|is not the config|does not exist"):
            push(source, "hf:org/repo")
    assert remote.requests == []


@pytest.mark.parametrize("source", ["no-such-model", "no/such/folder", "none.ckpt"])
def test_of_a_missing_source_nothing_is_sent(remote, refused, source):
    with refused("no checkpoint|does not exist"):
        push(source, "hf:org/repo")
    assert remote.requests == []


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("hf:repo", "write hf:OWNER/repo, with the name of an org"),
        ("org/repo", "is not a name on the hub"),
        ("hf:", "is not a name on the hub"),
        ("hf:org/../repo", "is not a name on the hub"),
        ("hf:org/re\npo", "is not a name on the hub"),
        ("hf:org/repo@-x", "is not a valid branch name"),
        ("hf:org/repo@a..b", "is not a valid branch name"),
        ("hf:org/repo@" + "0" * 40, "is not a valid branch name"),
        ("hf:org/a--b", "Cannot have -- or .."),
        ("hf:org/repo/.git", "cannot update files under"),
    ],
)
def test_a_place_that_cannot_be_is_refused_and_nothing_is_sent(folder, remote, refused, target, message):
    with refused(message):
        push(folder, target)
    assert remote.requests == []


def test_without_a_token_one_line_says_how_to_log_in(folder, remote, refused, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with refused("you are not logged in; run `hf auth login`, or set HF_TOKEN"):
        push(folder, "hf:org/repo")
    assert remote.requests == []


@pytest.mark.parametrize(
    ("call", "status", "message"),
    [
        ("create", 401, "does not accept your token; run `hf auth login`"),
        ("create", 403, "no permission for it .*because.*`hf auth login`"),
        ("create", 404, "its owner does not exist"),
        ("branch", 400, "the request is not valid: because"),
        ("branch", 403, "no permission for it"),
        ("batch", 403, "no permission for it"),
        ("commit", 403, "no permission for it"),
        ("commit", 412, "changed by another commit meanwhile"),
        ("commit", 500, "could not be written: because"),
        ("validate-yaml", 400, "Invalid metadata in README.md"),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_line_and_nothing_is_committed(
    folder, remote, refused, call, status, message
):
    remote.refusals = {f"/{call}": (status, {"error": "because", "errors": [{"message": "a\nb"}]})}
    if call == "create":
        remote.refusals["/api/models"] = (404, {})
    with refused(message):
        push(folder, "hf:org/repo@v2")
    assert remote.summaries == []


def test_a_commit_of_somebody_else_in_between_is_not_overwritten(folder, remote, refused, monkeypatch):
    listing = remote.tree

    def race(repo, revision):
        answer = listing(repo, revision)
        remote.commit(repo, "main", {"theirs.txt": remote.keep(b"!")}, [], "theirs", revision)
        return answer

    monkeypatch.setattr(remote, "tree", race)
    with refused("changed by another commit meanwhile, and nothing was written; push again"):
        push(folder, "hf:org/repo")
    assert remote.names() == ["theirs.txt"]


def test_offline_one_line_says_so(folder, remote, refused, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with refused("HF_HUB_OFFLINE is set; unset it"):
        push(folder, "hf:org/repo")
    assert remote.requests == []


def test_a_hub_that_cannot_be_reached_gives_one_line(folder, remote, refused, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with refused("could not be written: .*; check that the hub can be reached"):
        push(folder, "hf:org/repo")


def test_importing_it_loads_nothing_heavy():
    code = "import sys, zoo.hub; print([m for m in ('torch', 'huggingface_hub', 'safetensors') if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(zoo.__file__).parents[1]
    )
    assert run.stdout == "[]\n", run.stderr


# Reading from a hub that cannot be reached.


class Deaf(threading.Thread):
    """A server that accepts connections, counts them, and never answers; or it closes them at once."""

    def __init__(self, closes):
        super().__init__(daemon=True)
        self.closes, self.connections = closes, []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]

    def run(self):
        while True:
            try:
                self.connections.append(self.socket.accept()[0])
            except OSError:
                return
            if self.closes:
                self.connections[-1].close()


@pytest.fixture
def unreachable(monkeypatch, hub):
    """A function that puts a server in the hub's place, beside an empty cache; `hub` adds to the cache."""
    servers = []

    def start(closes):
        server = Deaf(closes)
        servers.append(server)
        server.start()
        here = f"http://127.0.0.1:{server.port}"
        template = here + "/{repo_id}/resolve/{revision}/{filename}"
        settings = {"ENDPOINT": here, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_OFFLINE": False}
        for name, value in (settings | {"HF_HUB_ETAG_TIMEOUT": 1}).items():
            monkeypatch.setattr(constants, name, value)
        huggingface_hub.close_session()
        return server

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield start
    for server in servers:
        server.socket.shutdown(socket.SHUT_RDWR)
        server.join()
        for connection in (*server.connections, server.socket):
            connection.close()
    huggingface_hub.close_session()


@contextmanager
def seconds(most):
    """A context that must end within some seconds, far fewer than huggingface_hub's own repetitions take."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < most


NOT_REACHED = "is not in the local cache and the hub cannot be reached"


@pytest.mark.parametrize("closes", [True, False])
def test_a_hub_that_cannot_be_reached_is_asked_once_for_all_files(unreachable, refused, closes):
    server = unreachable(closes)
    with seconds(15):
        for source in ("hf:org/repo", "hf:org/other/folder", "hf:org/repo@v2"):
            for read in (zoo.load, zoo.embedding):
                with refused(f"^hf:org/.*{NOT_REACHED}$"):
                    read(source)
        with refused("hf:org/repo has no step 8, neither"):
            zoo.load("hf:org/repo", step=8)
    assert len(server.connections) == 1


@pytest.mark.parametrize("closes", [True, False])
def test_from_a_cached_repository_everything_is_read_if_the_hub_cannot_be_reached(folder, hub, unreachable, closes):
    server = unreachable(closes)
    hub("org/repo", folder)
    with seconds(15):
        assert same(zoo.load("hf:org/repo"), network())
        assert torch.equal(zoo.embedding("hf:org/repo"), network().W_E)
    assert len(server.connections) == 1


def test_a_look_up_of_the_hubs_name_that_takes_long_counts(unreachable, refused, monkeypatch):
    unreachable(True)
    released = threading.Event()

    def slow(*args, **options):
        released.wait(30)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with seconds(15), refused(NOT_REACHED):
        zoo.load("hf:org/repo")
    released.set()


def test_of_a_repository_that_is_cached_in_part_the_missing_file_is_named(folder, hub, unreachable, refused):
    unreachable(True)
    (folder / "model.safetensors").unlink()
    hub("org/repo", folder)
    with seconds(15), refused(f"model.safetensors {NOT_REACHED}$"):
        zoo.load("hf:org/repo")
    assert Source.open("hf:org/repo").kind == "zoo checkpoint"


def test_offline_nothing_is_asked_and_the_message_says_why(unreachable, refused, monkeypatch):
    server = unreachable(False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with seconds(15), refused(rf"{NOT_REACHED} \(HF_HUB_OFFLINE is set\)$"):
        zoo.load("hf:org/repo")
    assert not server.connections


def test_a_hub_that_can_be_reached_again_is_read(folder, remote, refused, monkeypatch):
    push(folder, "hf:org/repo")
    remote.answers = False
    with seconds(15), refused(NOT_REACHED):
        zoo.load("hf:org/repo")
    remote.answers = True
    with refused(NOT_REACHED):  # as is remembered
        zoo.load("hf:org/repo")
    monkeypatch.setattr(source_files, "REMEMBERED", 0)
    assert same(zoo.load("hf:org/repo"), network())


def test_the_kind_of_a_repository_with_a_config_is_told_by_that_file_alone(folder, remote):
    push(folder, "hf:org/repo")
    remote.requests.clear()
    assert Source.open("hf:org/repo").kind == "zoo checkpoint"
    assert {path.rpartition("/")[2] for _, path in remote.requests} == {"config.json"}


def test_the_command_line_says_in_one_line_that_the_hub_cannot_be_reached(tmp_path, unreachable, monkeypatch, capfd):
    server = unreachable(True)
    monkeypatch.chdir(tmp_path)
    with seconds(15):
        assert main(["fit", "--config", "sae/residual_stream.yaml", "--data.model", "hf:org/repo"]) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("Seed set to")]
    assert lines == [f"error: hf:org/repo: config.json {NOT_REACHED}"]
    assert len(server.connections) == 1
