import gzip
import json
import re
import sysconfig
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from supported.corpora import CASES, LINES, NULLS, TEXTS, changing_columns, linked

from zoo.datamodules import HubDataset, LocalFiles, StdlibCorpus
from zoo.datamodules.token_cache import TokenCache
from zoo.datamodules.tokenizers import TrainedBPE

DOCUMENTS = ["first", "zweites — mit\nUmlaut: ü", "third\n\n\nstill third", "4"]


@pytest.fixture(autouse=True)
def datasets_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets_cache")


def documents(path, **options):
    return list(LocalFiles([str(path)], **options).documents())


def write_jsonl(path, texts=DOCUMENTS, field="text"):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"id": i, field: text}) + "\n" for i, text in enumerate(texts)), "utf-8")
    return path


def test_standard_library_gives_the_same_documents_every_time():
    assert list(StdlibCorpus().documents()) == list(StdlibCorpus().documents())
    assert StdlibCorpus().fingerprint() == StdlibCorpus().fingerprint()


def test_standard_library_holds_its_modules_but_no_tests_and_no_installed_packages():
    root = Path(sysconfig.get_path("stdlib"))
    paths = {str(path.relative_to(root)) for path in StdlibCorpus()._paths()}
    assert {"json/decoder.py", "argparse.py", "asyncio/events.py"} <= paths
    folders = {part for path in paths for part in Path(path).parts[:-1]}
    assert not folders & {"test", "tests", "site-packages", "dist-packages", "__pycache__", "idlelib"}


def test_a_text_file_is_one_document(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n\n".join(DOCUMENTS), "utf-8")
    assert documents(tmp_path / "a.txt") == ["\n\n\n".join(DOCUMENTS)]


def test_a_separator_cuts_text_files_and_blank_pieces_are_dropped(tmp_path):
    (tmp_path / "a.txt").write_text("one|two\n||  |three", "utf-8")
    assert documents(tmp_path / "a.txt", separator="|") == ["one", "two\n", "three"]


def test_json_lines_give_their_text_field(tmp_path):
    assert documents(write_jsonl(tmp_path / "a.jsonl")) == DOCUMENTS
    assert documents(write_jsonl(tmp_path / "b.jsonl", field="body"), text_field="body") == DOCUMENTS


def test_parquet_files_give_their_text_field(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"n": [1, 2, 3, 4], "text": DOCUMENTS}), tmp_path / "a.parquet")
    assert documents(tmp_path / "a.parquet") == DOCUMENTS


def test_names_with_wildcard_characters_are_taken_literally(tmp_path):
    assert documents(write_jsonl(tmp_path / "[draft] a.jsonl")) == DOCUMENTS


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_a_folder_gives_its_documents_or_is_refused(tmp_path, refused, case):
    folder = tmp_path / "corpus"
    folder.mkdir()
    expected = case.make(folder)
    if case.refusal:
        with refused(case.refusal):
            documents(folder)
    else:
        assert documents(folder) == expected


@pytest.mark.parametrize("name", ["a.JSONL", "a.Ndjson", "a.jsonl.GZ"])
def test_a_named_file_is_read_by_its_ending_whatever_its_case(tmp_path, name):
    content = gzip.compress(LINES.encode()) if name.endswith("GZ") else LINES.encode()
    (tmp_path / name).write_bytes(content)
    assert documents(tmp_path / name) == TEXTS


def test_a_named_file_with_another_ending_is_plain_text_unless_it_is_none(tmp_path, refused):
    (tmp_path / "novel.tex").write_text("\ufefftext", "utf-8")
    assert documents(tmp_path / "novel.tex") == documents(tmp_path / "*.tex") == ["text"]
    (tmp_path / "data.bin").write_bytes(b"abc\0")
    with refused(r"data\.bin is not text: byte 3 is NUL; supported are \.txt, \.md, \.jsonl.*compressed: \.gz"):
        documents(tmp_path / "data.bin")


def test_what_is_not_read_of_a_folder_is_named(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    linked(folder)
    (folder / ".git").mkdir()
    for name in ("picture.png", ".DS_Store", "a.txt~", "._a.txt", ".git/config.txt"):
        (folder / name).touch()
    (folder / "lost.txt").symlink_to(folder / "nowhere.txt")
    names = {Path(path).name for path in LocalFiles([str(folder)]).left_out()}
    assert names == {"picture.png", ".DS_Store", "a.txt~", "._a.txt", ".git", "lost.txt", "loop"}
    names = {Path(path).name for path in LocalFiles([str(folder / "*")]).left_out()}
    assert names == {"picture.png", ".DS_Store", "a.txt~", "._a.txt", ".git", "lost.txt", "loop"}


def test_a_file_that_several_paths_lead_to_is_read_once(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    expected = linked(folder)
    paths = [str(folder), str(folder / "*.txt"), str(folder / "a.txt"), str(folder / "loop" / "a.txt")]
    assert list(LocalFiles(paths).documents()) == expected


@pytest.mark.parametrize("kind", ["LocalFiles", "HubDataset"])
def test_null_and_blank_texts_are_skipped_counted_and_the_first_is_named(tmp_path, kind):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text(NULLS)
    corpus = LocalFiles([str(tmp_path / "set")]) if kind == "LocalFiles" else HubDataset(str(tmp_path / "set"))
    assert list(corpus.documents()) == ["first", "4"]
    null, empty = corpus.skipped
    assert re.fullmatch(r"1 null text \(first: .*, row 2\)", null)
    assert re.fullmatch(r"1 empty document \(first: .*, row 3\)", empty)
    list(corpus.documents())
    assert list(corpus.skipped) == [null, empty]


def test_files_and_rows_that_are_left_out_are_told_when_text_is_tokenized_and_when_it_is_found_again(tmp_path, caplog):
    folder = tmp_path / "corpus"
    folder.mkdir()
    lines = [{"text": f"document {i} of several"} for i in range(60)]
    lines += [{"text": None}, {"text": ""}, *[{"text": "a copy"}] * 3]
    (folder / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "b.png").touch()
    for _ in range(2):
        caplog.clear()
        TokenCache(tmp_path / "cache", LocalFiles([str(folder)]), TrainedBPE(257), 0.2, 0.2).prepare()
        assert f"1 files or folders of the corpus are not read: {folder / 'b.png'}" in caplog.text
        assert f"has 1 null text (first: {folder / 'a.jsonl'}, row 61) and 1 empty document" in caplog.text
        assert "2 of 63 documents are copies of others" in caplog.text


def test_a_data_set_whose_columns_change_says_what_reads_it(tmp_path, refused):
    folder = tmp_path / "set"
    folder.mkdir()
    changing_columns(folder)
    with refused("cannot be read: .*; LocalFiles can read text files in a folder"):
        list(HubDataset(str(folder), streaming=True).documents())


def test_empty_files_hold_no_document(tmp_path):
    for name in ("a.txt", "b.jsonl", "c.parquet"):
        (tmp_path / name).touch()
    assert documents(tmp_path) == []


def test_folders_are_searched_in_order_for_known_endings_only(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "folder.txt").mkdir()
    for name in ("b.txt", "a.md", "sub/c.txt", "picture.png", "notes"):
        (tmp_path / name).write_text(name)
    assert documents(tmp_path) == ["a.md", "b.txt", "sub/c.txt"]


def test_patterns_pick_matching_files_in_order(tmp_path):
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).write_text(name)
    assert documents(tmp_path / "*.txt") == ["a.txt", "b.txt"]


@pytest.mark.parametrize("path", ["nothing.txt", "no/such/folder", "*.nope", "empty"])
def test_paths_that_find_nothing_are_refused(tmp_path, refused, path):
    (tmp_path / "empty").mkdir()
    with refused("is no file, and no folder or pattern"):
        documents(tmp_path / path)


def test_a_file_that_is_not_utf8_is_refused(tmp_path, refused):
    (tmp_path / "a.txt").write_bytes("naïve".encode("latin-1"))
    with refused(r"a\.txt is not UTF-8 text: byte 2"):
        documents(tmp_path / "a.txt")


def test_a_missing_field_is_refused_naming_those_there_are(tmp_path, refused):
    with refused(r"no field 'body'; its fields are \['id', 'text'\]"):
        documents(write_jsonl(tmp_path / "a.jsonl"), text_field="body")


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", b'{"text": "x"}\n{"text": \n'), ("b.jsonl", b'{"text": "\xff"}\n'), ("c.parquet", b"PAR1 junk")],
)
def test_damaged_files_are_refused(tmp_path, refused, name, content):
    (tmp_path / name).write_bytes(content)
    with refused(f"{name} cannot be read"):
        documents(tmp_path / name)


def test_the_fingerprint_follows_content_ending_and_options_but_not_the_place(tmp_path):
    def fingerprint(folder, name, text, **options):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_text(text)
        return LocalFiles([str(tmp_path / folder / name)], **options).fingerprint()

    same = fingerprint("here", "a.txt", "text")
    assert fingerprint("there", "a.txt", "text") == same
    assert fingerprint("here", "a.md", "text") != same
    assert fingerprint("here", "a.TXT", "text") == same
    assert fingerprint("here", "a.txt.gz", "text") != fingerprint("here", "a.jsonl.gz", "text") != same
    assert fingerprint("here", "a.txt", "text", separator="x") != same
    assert fingerprint("here", "a.txt", "text", text_field="body") != same
    assert fingerprint("here", "a.txt", "texT") != same


@pytest.mark.parametrize("streaming", [False, True])
def test_a_data_set_folder_gives_the_same_documents_whole_and_streamed(tmp_path, streaming):
    write_jsonl(tmp_path / "set" / "train-1.jsonl", DOCUMENTS[:2])
    write_jsonl(tmp_path / "set" / "train-2.jsonl", DOCUMENTS[2:])
    assert list(HubDataset(str(tmp_path / "set"), streaming=streaming).documents()) == DOCUMENTS


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("limit", [0, 3, 100])
def test_a_data_set_stops_after_max_documents(tmp_path, streaming, limit):
    write_jsonl(tmp_path / "set" / "train.jsonl")
    corpus = HubDataset(str(tmp_path / "set"), streaming=streaming, max_documents=limit)
    assert list(corpus.documents()) == DOCUMENTS[:limit]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_data_set_that_cannot_be_read_is_refused(tmp_path, refused, streaming):
    folder = str(write_jsonl(tmp_path / "set" / "train.jsonl").parent)
    for options, message in (
        ({"name": folder, "text_field": "body"}, r"its fields are \['id', 'text'\]"),
        ({"name": folder, "split": "nosuch"}, "cannot be read.*nosuch"),
        ({"name": str(tmp_path / "missing")}, "cannot be read"),
    ):
        with refused(message):
            list(HubDataset(**options, streaming=streaming).documents())
    write_jsonl(tmp_path / "set" / "train.jsonl").write_text('{"text": \n')
    with refused("cannot be read"):
        list(HubDataset(folder, streaming=streaming).documents())


def test_a_data_set_folder_is_known_by_its_content(tmp_path):
    write_jsonl(tmp_path / "set" / "train.jsonl")
    before = HubDataset(str(tmp_path / "set")).fingerprint()
    assert HubDataset(str(tmp_path / "set"), streaming=True).fingerprint() == before
    write_jsonl(tmp_path / "set" / "train.jsonl", [*DOCUMENTS, "more"])
    assert HubDataset(str(tmp_path / "set")).fingerprint() != before
