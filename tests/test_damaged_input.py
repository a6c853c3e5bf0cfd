import contextlib
import copy
import functools
import io
import json
import logging
import pickle
import shutil
import string
import sys
import warnings
import zipfile
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import zoo
import zoo.cli
from zoo import ZooError, checkpoint_config, saelens
from zoo.__main__ import main
from zoo.models import GPT2, TopKSAE
from zoo.source import Source

ROOT = Path(__file__).parents[1]
GPT2_SIZES = {"vocab_size": 50, "context_length": 12, "d_model": 16, "n_layers": 2, "n_heads": 2}
SAE_SIZES = {"d_in": 8, "d_sae": 32, "k": 3}
IDS = torch.arange(24).view(2, 12)
X = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
HASHED = ["config.json", "model.safetensors", "token_counts.json", "tokenizer.json"]
SPLICES = (b"\n", b"\\n", b"\\u2028", b"\\u0000", b"\x00" * 8, b"\xff", b"null", b"1e999", b"9" * 40, b"[" * 100_000)


def examples(n, **options):
    """Settings under which a test sees the same `n` inputs every time."""
    quiet = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(
        max_examples=n, derandomize=True, database=None, deadline=None, suppress_health_check=quiet, **options
    )


def network(cls, sizes, seed=0):
    torch.manual_seed(seed)
    model = cls(**sizes).eval().requires_grad_(False)
    for p in model.parameters():
        p.normal_(std=0.3)
    return model


NETWORKS = {"GPT2": (GPT2, GPT2_SIZES, IDS), "TopKSAE": (TopKSAE, SAE_SIZES, X)}


def same(a, b):
    """Whether two networks are alike, bit by bit, in weights, class and settings."""
    x, y = a.state_dict(), b.state_dict()
    alike = type(a) is type(b) and a.config == b.config and x.keys() == y.keys()
    return alike and all(torch.equal(x[name], y[name]) for name in x)


def one_line(message):
    return len(message.splitlines()) == 1


def refused(read, *args, **kwargs):
    """Whether a call raises a ZooError of one line; another exception fails the test. Also what it returned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return False, read(*args, **kwargs)
        except ZooError as error:
            message = str(error)
    assert one_line(message), f"{message!r} is not one line"
    return True, None


def check_command(*args):
    """Run a command, which must end well or with exit code 2 and one line; returns the exit code."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = main([str(arg) for arg in args])
    lines = [line for line in err.getvalue().splitlines() if not line.startswith("note: ")]
    assert code in (0, 2)
    if code == 2:
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
    return code


def put(path, content):
    """Write a file anew; tensors mapped from an older one keep what they had."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


class TooLarge(BaseException):
    """A network far larger than its checkpoint is being made."""


@contextlib.contextmanager
def little_memory():
    """A block within which no network is made on once it has three million numbers."""
    room = 3_000_000

    def count(module, name, parameter):
        nonlocal room
        if room < 0:
            raise TooLarge
        room -= parameter.numel()

    hook = torch.nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        yield
    except TooLarge:
        pytest.fail("a network far larger than its checkpoint is made before it is refused")
    finally:
        hook.remove()


@st.composite
def damage(draw, content, others=()):
    """Bytes with flipped bits or with a run overwritten, inserted, deleted or repeated, cut off, or of another file."""
    kinds = ["flip", "flip", "overwrite", "insert", "splice", "delete", "repeat", "truncate"]
    kind = draw(st.sampled_from([*kinds, *(["swap"] if others else [])]))
    if kind == "swap":
        return draw(st.sampled_from(others))
    near = st.integers(0, min(len(content), 400))
    start = draw(near | near.map(lambda i: len(content) - i) | st.integers(0, len(content)))
    if kind == "flip":
        damaged = bytearray(content)
        for place in [start, *draw(st.lists(st.integers(0, len(content) - 1), max_size=3))]:
            damaged[min(place, len(content) - 1)] ^= 1 << draw(st.integers(0, 7))
        return bytes(damaged)
    end = start + draw(st.integers(1, 40))
    if kind in ("overwrite", "insert"):
        run = draw(st.binary(min_size=1, max_size=16))
        return content[:start] + run + content[start + len(run) * (kind == "overwrite") :]
    if kind == "splice":
        return content[:start] + draw(st.sampled_from(SPLICES)) + content[start:]
    if kind == "repeat":
        return content[:end] + content[start:]
    return content[:start] + (content[end:] if kind == "delete" else b"")


WORDS = st.sampled_from(
    ["", "a\nb", "\u2028", "a\x00b", "x" * 5000, "../config.json", "\ud800", "config.json", "GPT2", "os.system", "NaN"]
)
NUMBERS = (
    st.integers(-3, 300)
    | st.sampled_from([10**12, 2**40, 2**63, 2**64 + 1, 10**30, 10**400, -(2**63)])
    | st.floats()
    | st.sampled_from([0.5, 1.0, 2.0, 16.0])
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


@pytest.fixture(scope="module")
def folders(place):
    """Class name -> a zoo checkpoint of it, and another of the same class."""

    def make(name, seed):
        cls, sizes, _ = NETWORKS[name]
        tokenizer, counts = json.dumps({"a": seed, "text": "\u00e9"}), [seed, *range(49)]
        return zoo.save(network(cls, sizes, seed), place / f"{name}-{seed}", 7, {"seed": seed}, tokenizer, None, counts)

    return {name: (make(name, 0), make(name, 1)) for name in NETWORKS}


def read_tokenizer_json(source):
    return Source.open(source).tokenizer_json()


def read_token_counts(source):
    return Source.open(source).token_counts()


READERS = {
    "load": (zoo.load, same, set(HASHED)),
    "embedding": (zoo.embedding, torch.equal, {"config.json", "model.safetensors"}),
    "tokenizer_json": (read_tokenizer_json, str.__eq__, {"config.json", "tokenizer.json"}),
    "token_counts": (read_token_counts, torch.equal, {"config.json", "token_counts.json"}),
}


@pytest.mark.parametrize("file", HASHED)
@pytest.mark.parametrize("name", NETWORKS)
@examples(100)
@given(data=st.data())
def test_a_damaged_checkpoint_is_refused_or_exactly_what_was_saved(folders, name, file, data):
    folder, other = folders[name]
    intact = (folder / file).read_bytes()
    strangers = [(folder / f).read_bytes() for f in HASHED if f != file] + [(other / file).read_bytes()]
    expected = {}
    for reader, (read, _, _) in READERS.items():
        tensor = {"tensor": "W_dec"} if (reader, name) == ("embedding", "TopKSAE") else {}
        expected[reader] = functools.partial(read, folder, **tensor), read(folder, **tensor)
    damaged = data.draw(damage(intact, strangers))
    try:
        put(folder / file, damaged)
        for reader, (_, equal, files) in READERS.items():
            read, original = expected[reader]
            was_refused, result = refused(read)
            assert was_refused or (result is not None and equal(result, original)), f"{reader} took {damaged[:99]}"
            if file not in files:
                assert not was_refused
    finally:
        put(folder / file, intact)


def resigned(folder, edit):
    """The text of a config after an edit by someone who knows how to sign it."""
    content = json.loads((folder / "config.json").read_text())
    part = content.pop("zoo")
    del part["sha256"]
    edit(part)
    scratch = folder.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    checkpoint_config.write(scratch, part, content)
    return (scratch / "config.json").read_bytes()


@pytest.mark.parametrize("name", NETWORKS)
@examples(200)
@given(data=st.data())
def test_a_signed_config_with_other_values_is_refused_or_gives_a_network_of_the_same_tensors(folders, name, data):
    folder, _ = folders[name]
    cls, sizes, batch = NETWORKS[name]
    original, intact = network(cls, sizes), (folder / "config.json").read_bytes()

    def edit(part):
        key = data.draw(st.sampled_from([*part, *["init_args"] * 5]))
        inside = isinstance(part[key], dict) and data.draw(st.integers(0, 3))
        where, key = (part[key], data.draw(st.sampled_from([*part[key]]) | WORDS)) if inside else (part, key)
        where[key] = data.draw(VALUES)

    try:
        put(folder / "config.json", resigned(folder, edit))
        with little_memory():
            was_refused, loaded = refused(zoo.load, folder)
        if not was_refused:
            assert type(loaded) is cls
            before, after = original.state_dict(), loaded.state_dict()
            assert all(torch.equal(before[key], after[key]) for key in before)
            assert loaded(batch).isfinite().all()
        for reader in ("tokenizer_json", "token_counts", "embedding"):
            refused(READERS[reader][0], folder)
    finally:
        put(folder / "config.json", intact)


@pytest.mark.parametrize(
    ("name", "size"),
    [("GPT2", "vocab_size"), ("GPT2", "context_length"), ("GPT2", "n_layers"), ("TopKSAE", "d_sae")],
)
def test_a_network_far_larger_than_its_checkpoint_is_refused_before_it_is_made(folders, name, size):
    folder, _ = folders[name]
    intact = (folder / "config.json").read_bytes()
    try:
        put(folder / "config.json", resigned(folder, lambda part: part["init_args"].update({size: 10**6})))
        with little_memory():
            assert refused(zoo.load, folder)[0]
    finally:
        put(folder / "config.json", intact)


def lightning_content():
    model = network(GPT2, GPT2_SIZES)
    part = {"class": "GPT2", "init_args": model.config, "step": 9, "tokenizer_json": "{}", "token_counts": [1, 2]}
    state = {f"net.{key}": tensor for key, tensor in model.state_dict().items()}
    return {"state_dict": {**state, "frozen": torch.ones(2)}, "zoo": part}


@pytest.fixture(scope="module")
def ckpt(place):
    torch.save(lightning_content(), place / "last.ckpt")
    return place / "last.ckpt"


@examples(250)
@given(data=st.data())
def test_a_damaged_lightning_checkpoint_is_refused_or_exactly_what_was_saved(ckpt, data):
    intact, expected = ckpt.read_bytes(), network(GPT2, GPT2_SIZES)
    readers = {
        zoo.load: lambda model: same(model, expected),
        zoo.embedding: lambda W_E: torch.equal(W_E, expected.W_E),
        read_tokenizer_json: "{}".__eq__,
        read_token_counts: lambda counts: counts.tolist() == [1, 2],
    }
    path = ckpt.with_name("damaged.ckpt")
    put(path, data.draw(damage(intact, [b"", b"PK\x05\x06" + bytes(18)])))
    for read, is_original in readers.items():
        was_refused, result = refused(read, path)
        assert was_refused or is_original(result)


TENSORS = {
    "whole numbers": torch.ones(50, 16, dtype=torch.int64),
    "complex numbers": torch.ones(50, 16, dtype=torch.complex64),
    "a sparse matrix": torch.eye(50, 16).to_sparse(),
    "no memory": torch.empty(50, 16, device="meta"),
    "a number": torch.tensor(1.0),
}


@examples(100)
@given(data=st.data())
def test_a_lightning_checkpoint_of_other_plain_values_is_refused_or_loads(place, data):
    content = lightning_content()
    where, key = content, data.draw(st.sampled_from(["state_dict", "zoo", "inside"]))
    if key == "inside":
        where = content[data.draw(st.sampled_from(["state_dict", "zoo"]))]
        key = data.draw(st.sampled_from([*where]) | st.integers() | st.none() | WORDS)
    value = data.draw(VALUES | st.sampled_from([*TENSORS]))
    where[key] = TENSORS.get(value, value) if isinstance(value, str) else value
    torch.save(content, place / "other.ckpt")
    for read in (zoo.load, zoo.embedding, read_token_counts):
        refused(read, place / "other.ckpt")


def strings(*values):
    """Opcodes that push text."""
    return b"".join(b"X" + len(v.encode()).to_bytes(4, "little") + v.encode() for v in values)


def calls(marker):
    """Module, name and arguments of calls that create the file `marker`."""
    touch = f"open({marker!r}, 'w').close()"
    return {
        ("os", "system"): strings(f"touch {marker}"),
        ("posix", "system"): strings(f"touch {marker}"),
        ("subprocess", "getoutput"): strings(f"touch {marker}"),
        ("builtins", "eval"): strings(touch),
        ("builtins", "exec"): strings(touch),
        ("builtins", "open"): strings(marker, "w"),
        ("io", "open"): strings(marker, "w"),
        ("os", "mkdir"): strings(marker),
        ("pathlib", "Path.touch"): b"cpathlib\nPosixPath\n" + strings(marker) + b"\x85R",
        ("shutil", "copyfile"): strings(__file__, marker),
    }


def call_opcodes(module, name, arguments, form):
    """A pickled call, in one of the ways in which pickles make them."""
    pushed = strings(module, name) + b"\x93"
    plain = b"." not in name.encode()
    if form == "inst" and plain:
        return b"(" + arguments + f"i{module}\n{name}\n".encode()
    if form == "obj":
        return b"(" + pushed + arguments + b"o"
    if form == "global" and plain:
        pushed = f"c{module}\n{name}\n".encode()
    return pushed + b"(" + arguments + b"t" + b"R"


CALLS = [*calls("")]
FORMS = ["inst", "obj", "global", "stack_global"]


def remove(marker):
    if marker.is_dir():
        marker.rmdir()
    marker.unlink(missing_ok=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("call", CALLS, ids=".".join)
def test_a_malicious_call_would_run_if_it_were_unpickled(place, call, form):
    marker = place / "ran"
    pickle.loads(b"\x80\x04" + call_opcodes(*call, calls(str(marker))[call], form) + b".")
    assert marker.exists()
    remove(marker)


@examples(100)
@given(data=st.data())
def test_code_in_a_lightning_checkpoint_is_refused_and_does_not_run(ckpt, place, data):
    marker, path = place / "ran", place / "evil.ckpt"
    call, form = data.draw(st.sampled_from(CALLS)), data.draw(st.sampled_from(FORMS))
    opcodes = call_opcodes(*call, calls(str(marker))[call], form)
    where = data.draw(st.sampled_from(["alone", "zoo", "state_dict", "key", "popped", "state"]))
    with zipfile.ZipFile(ckpt) as intact, zipfile.ZipFile(path, "w") as evil:
        for entry in intact.infolist():
            content = intact.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert content[:3] == b"\x80\x02}"
                body = {
                    "alone": opcodes,
                    "zoo": content[2:-1] + strings("zoo") + opcodes + b"s",
                    "state_dict": content[2:-1] + strings("state_dict") + opcodes + b"s",
                    "key": content[2:-1] + opcodes + b"Ns",
                    "popped": opcodes + b"0" + content[2:-1],
                    "state": content[2:-1] + opcodes + b"b",
                }[where]
                content = b"\x80" + data.draw(st.sampled_from([b"\x02", b"\x04"])) + body + b"."
            evil.writestr(entry.filename, content)
    for read in (zoo.load, zoo.embedding, read_token_counts):
        assert refused(read, path)[0]
    ran = marker.exists()
    remove(marker)
    assert not ran


@pytest.fixture(scope="module")
def sae_folder(place):
    return saelens.write(network(TopKSAE, SAE_SIZES), place / "sae")


@examples(250)
@given(data=st.data())
def test_a_saelens_config_with_other_values_is_refused_or_gives_a_network_that_computes(sae_folder, data):
    intact = (sae_folder / "cfg.json").read_bytes()
    cfg = json.loads(intact)
    later = ["activation_fn", "activation_fn_kwargs", "finetuning_scaling_factor", "hook_point", "scale", "zoo"]
    where = cfg["metadata"] if data.draw(st.integers(0, 4)) == 0 else cfg
    key = data.draw(st.sampled_from([*where, *later]))
    if data.draw(st.integers(0, 3)) == 0:
        where.pop(key, None)
    else:
        where[key] = data.draw(VALUES | st.sampled_from(["standard", "topk", "gated", "jumprelu"]))
    try:
        put(sae_folder / "cfg.json", json.dumps(cfg).encode())
        was_refused, sae = refused(zoo.load, sae_folder)
        if not was_refused:
            output = sae(X)
            assert output.shape == X.shape
            assert output.isfinite().all()
    finally:
        put(sae_folder / "cfg.json", intact)


@pytest.mark.parametrize("file", ["cfg.json", "sae_weights.safetensors"])
@examples(80)
@given(data=st.data())
def test_a_damaged_saelens_folder_is_refused_or_loads(sae_folder, file, data):
    """SAELens folders hold no hashes: a weight whose value changed cannot be told from one that was trained."""
    intact = (sae_folder / file).read_bytes()
    [stranger] = [f.read_bytes() for f in sae_folder.iterdir() if f.name != file]
    try:
        put(sae_folder / file, data.draw(damage(intact, [stranger])))
        was_refused, sae = refused(zoo.load, sae_folder)
        if not was_refused:
            assert sae.encode(X).shape == (16, 32)
            assert sae(X).shape == X.shape
    finally:
        put(sae_folder / file, intact)


@examples(100)
@given(data=st.data())
def test_a_command_on_a_damaged_source_ends_well_or_with_one_line(folders, ckpt, sae_folder, place, data):
    folder = folders["GPT2"][0]
    files = [*(folder / name for name in (*HASHED, "README.md")), ckpt, *sorted(sae_folder.iterdir())]
    file = data.draw(st.sampled_from(files), label="file")
    source = ckpt if file == ckpt else file.parent
    intact = file.read_bytes()
    try:
        put(file, data.draw(damage(intact)))
        check_command("info", source)
        if check_command("export", source, place / "exported") == 0 and source != sae_folder:
            assert same(zoo.load(place / "exported"), network(GPT2, GPT2_SIZES))
    finally:
        put(file, intact)


def npy(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


ARRAYS = [
    (np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32), (1, 0)),
    (np.random.default_rng(0).normal(size=(20, 4)), (2, 0)),
    (np.arange(80, dtype=np.int16).reshape(20, 4), (3, 0)),
]
HEADERS = st.fixed_dictionaries(
    {
        "descr": st.sampled_from(["<f4", ">f4", "<f8", "|O", "<U3", "<c8", "<f2", "|b1", [("a", "<f4")], "<M8", "<f16"])
        | VALUES,
        "fortran_order": st.booleans() | VALUES,
        "shape": st.lists(NUMBERS, max_size=3).map(tuple) | VALUES,
    }
)


def npy_of(header, body=bytes(320)):
    text = repr(header).encode("utf-8", "surrogatepass") + b"\n"
    return b"\x93NUMPY\x03\x00" + len(text).to_bytes(4, "little") + text + body


def is_matrix(W_E):
    return W_E.ndim == 2 and W_E.dtype == torch.float32


@examples(250)
@given(data=st.data())
def test_a_damaged_npy_file_is_refused_or_a_matrix(place, data):
    if data.draw(st.integers(0, 3)):
        content = data.draw(damage(npy(*data.draw(st.sampled_from(ARRAYS))), [b"", b"PK\x05\x06" + bytes(18)]))
    else:
        content = npy_of(data.draw(HEADERS))
    put(place / "W_E.npy", content)
    was_refused, W_E = refused(zoo.embedding, place / "W_E.npy")
    assert was_refused or is_matrix(W_E)


DTYPES = ["BOOL", "F4", "F8_E5M2", "F8_E4M3", "F8_E8M0", "U8", "I16", "F16", "BF16", "I32", "U32", "F64", "C64", "x\ny"]


def safetensors_of(header, body=bytes(320)):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


@examples(250)
@given(data=st.data())
def test_a_damaged_safetensors_file_is_refused_or_a_matrix(place, data):
    path = place / "W_E.safetensors"
    if data.draw(st.booleans()):
        path.unlink(missing_ok=True)
        save_file({"W_E": torch.ones(20, 4), "b": torch.ones(3)}, path)
        content = data.draw(damage(path.read_bytes(), [b"", npy(*ARRAYS[0])]))
    else:
        dtype = data.draw(st.sampled_from(DTYPES) | WORDS)
        shape = data.draw(st.sampled_from([[20, 4], [10, 4], [40, 4], [20, 8], [80], [2, 2, 20], [0, 4]]) | VALUES)
        entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, 320]}
        content = safetensors_of({data.draw(st.just("W_E") | WORDS): entry})
    put(path, content)
    was_refused, W_E = refused(zoo.embedding, path)
    assert was_refused or is_matrix(W_E)


class Accepted(Exception):
    """Training would begin."""


@pytest.fixture(scope="module")
def fit(place):
    """Runs `python -m zoo fit` up to the point where training would begin: 0 if it gets there, else the exit code."""
    shutil.copytree(ROOT / "cli_configs", place / "cli_configs")

    @functools.wraps(L.Trainer.fit)
    def stop(self, *args, **kwargs):
        raise Accepted

    fit_only = {"fit": zoo.cli.ZooCLI.subcommands()["fit"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(L.Trainer, "fit", stop)
        patch.setattr(zoo.cli.ZooCLI, "subcommands", staticmethod(lambda: fit_only))
        patch.setattr(zoo.cli, "COMMANDS", {"fit": zoo.cli.COMMANDS["fit"]})
        patch.setenv("ZOO_CACHE", str(place / "cache"))
        patch.setattr(sys, "argv", ["zoo"])
        for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
            patch.setattr(logging.getLogger(name), "disabled", True)

        def call(config):
            try:
                return check_command("fit", "--config", config, "--run_dir", place / "run")
            except Accepted:
                return 0

        yield call


LOCAL = [
    *("quickstart.yaml", "gpt2/base.yaml", "gpt2/learned.yaml", "gpt2/local_files.yaml", "gpt2/some_rows.yaml"),
    *("sae/base_embedding.yaml", "sae/topk_embedding.yaml", "sae/residual_stream.yaml", "basis_pursuit/embedding.yaml"),
    *("toy/pentagon.yaml", "toy/skip_bigrams.yaml", "toy/u_and.yaml", "toy/superposition.yaml"),
]


WHOLE = [name for name in LOCAL if "\nbase:" not in (ROOT / "cli_configs" / name).read_text()]


def parts_of(config, kind, path=()):
    """Paths to all mappings or to all plain values within a config."""
    inside = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    own = isinstance(config, dict) == (kind is dict) and not isinstance(config, list) and path != ()
    return [*([path] if own else []), *(p for key, part in inside for p in parts_of(part, kind, (*path, key)))]


def at(config, path):
    return functools.reduce(lambda part, key: part[key], path, config)


@st.composite
def misspelt(draw, word):
    """A word with one or two letters inserted, left out or replaced that no setting has for a name."""
    letters = list(word)
    for _ in range(draw(st.integers(1, 2))):
        where, edit = draw(st.integers(0, len(letters) - 1)), draw(st.sampled_from(["insert", "replace", "delete"]))
        new = [] if edit == "delete" else [draw(st.sampled_from(string.ascii_lowercase))]
        letters[where : where + (edit != "insert")] = new or ([] if len(letters) > 1 else ["q"])
    result = "".join(letters)
    return result if result not in {word, *KNOWN} else f"q{result}"


KNOWN = {"config", "print_config", "help", "ckpt_path", "weights_only", "n_seeds"}
KNOWN |= {key for c in (ROOT / "cli_configs").rglob("*.yaml") for key in yaml.safe_load(c.read_text())}


def misspell_a_key(draw, config):
    path = draw(st.sampled_from([p for p in parts_of(config, dict) + parts_of(config, None) if isinstance(p[-1], str)]))
    owner = at(config, path[:-1])
    owner[draw(misspelt(path[-1]))] = owner.pop(path[-1])


def change_a_type(draw, config):
    *owner, key = draw(st.sampled_from(parts_of(config, None)))
    at(config, owner)[key] = draw(st.sampled_from([{"a": 1}, [{"a": 1}], [[1, [2]]], {"class_path": "Nothing"}]))


def name_an_unknown_class(draw, config):
    *owner, key = draw(st.sampled_from([p for p in parts_of(config, None) if p[-1] == "class_path"]))
    name = at(config, owner)[key]
    wrong = misspelt(name) | st.sampled_from(["os.system", "builtins.eval", "torch.nn.Linear", "", "a.b", "zoo.load"])
    at(config, owner)[key] = draw(wrong)


def remove_a_block(draw, config):
    classes = [path for path in parts_of(config, None) if path[-1] == "class_path" and len(at(config, path[:-1])) > 1]
    *owner, key = draw(st.sampled_from([("model",), ("data",), *classes]))
    at(config, owner).pop(key)


def put_a_list_for_a_mapping(draw, config):
    *owner, key = draw(st.sampled_from(parts_of(config, dict)))
    mapping = at(config, owner)[key]
    at(config, owner)[key] = draw(st.sampled_from([[1], [mapping], [[mapping]], [*mapping]]))


def add_an_unknown_key(draw, config):
    path = draw(st.sampled_from([(), *parts_of(config, dict)]))
    at(config, path)["q" + draw(st.text(string.ascii_lowercase + "_", min_size=3, max_size=8))] = draw(
        st.sampled_from([1, "a", None, [], {"a": 1}, {"class_path": "GPT2"}])
    )


MISTAKES = [
    *(misspell_a_key, change_a_type, name_an_unknown_class, remove_a_block, put_a_list_for_a_mapping),
    add_an_unknown_key,
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda f: f.__name__)
@examples(40, phases=[Phase.generate])
@given(data=st.data())
def test_a_config_with_a_mistake_is_refused_in_one_line(fit, place, mistake, data):
    name = data.draw(st.sampled_from(LOCAL if mistake is not remove_a_block else WHOLE))
    config = yaml.safe_load((ROOT / "cli_configs" / name).read_text())
    before = copy.deepcopy(config)
    mistake(data.draw, config)
    assert config != before
    path = (place / "cli_configs" / name).with_name("mistaken.yaml")
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    assert fit(path) == 2, path.read_text()


@examples(80, phases=[Phase.generate])
@given(data=st.data())
def test_a_config_with_damaged_bytes_is_refused_in_one_line_or_could_be_trained(fit, place, data):
    name = data.draw(st.sampled_from(LOCAL))
    path = (place / "cli_configs" / name).with_name("damaged.yaml")
    put(path, data.draw(damage((ROOT / "cli_configs" / name).read_bytes(), [b"", npy(*ARRAYS[0])])))
    fit(path)
