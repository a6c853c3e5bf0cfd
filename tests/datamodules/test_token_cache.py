import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from supported.tokenizers import letters
from tokenizers import Tokenizer, models, pre_tokenizers

from zoo.datamodules import LocalFiles, TokenizerFile, TrainedBPE
from zoo.datamodules.token_cache import SPLITS, TokenCache

FILES = ["meta.json", "test.bin", "test_bytes.bin", "token_counts.npy", "tokenizer.json", "train.bin", "val.bin"]
FILES.append("val_bytes.bin")


@pytest.fixture
def make_cache(tiny_corpus, tmp_path):
    def make(source=None, fractions=(0.15, 0.15), **options):
        return TokenCache(
            tmp_path / "cache", LocalFiles([str(tiny_corpus)], **options), source or TrainedBPE(300), *fractions
        )

    return make


@pytest.fixture
def cache(make_cache):
    cache = make_cache()
    cache.prepare()
    return cache


def texts(corpus):
    return [path.read_text("utf-8") for path in sorted(corpus.iterdir())]


def split_documents(cache, split):
    """The documents of a split, decoded from its tokens."""
    text = cache.tokenizer().decode(cache.tokens(split).tolist(), skip_special_tokens=False)
    return text.split("<|endoftext|>")[:-1]


def written(folder):
    """Every file's content and time of writing."""
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}


def test_tokens_decode_back_to_the_documents(cache, tiny_corpus):
    decoded = [document for split in SPLITS for document in split_documents(cache, split)]
    assert Counter(decoded) == Counter(texts(tiny_corpus))
    assert sorted(p.name for p in cache.folder.iterdir()) == FILES


def test_documents_keep_their_order_within_a_split(cache, tiny_corpus):
    train = split_documents(cache, "train")
    assert train == [text for text in texts(tiny_corpus) if text in train]


def test_splits_share_no_document_even_when_documents_repeat(make_cache, tiny_corpus):
    for i, text in enumerate(texts(tiny_corpus)):
        (tiny_corpus / f"copy-{i}.txt").write_text(text, "utf-8")
    cache = make_cache()
    cache.prepare()
    train, val, test = (split_documents(cache, split) for split in SPLITS)
    assert len(train) + len(val) + len(test) == 120
    assert not set(train) & set(val) | set(train) & set(test) | set(val) & set(test)
    assert set(Counter(train + val + test).values()) == {2}


def test_a_document_stays_in_its_split_when_others_are_added(cache, make_cache, tiny_corpus):
    (tiny_corpus / "00-new.txt").write_text("A new story.", "utf-8")
    larger = make_cache()
    larger.prepare()
    for split in SPLITS:
        assert set(split_documents(cache, split)) <= set(split_documents(larger, split))


def test_the_tokenizer_learns_from_training_documents_alone(cache):
    again = TrainedBPE(300).tokenizer(split_documents(cache, "train"))
    assert cache.tokenizer().to_str() == again.to_str()


def test_token_counts_are_those_of_the_training_tokens(cache):
    assert np.array_equal(cache.token_counts(), np.bincount(cache.tokens("train"), minlength=300))


def test_sizes_are_those_of_the_documents(cache):
    for split in SPLITS:
        documents = split_documents(cache, split)
        assert cache.meta["splits"][split] == {
            "documents": len(documents),
            "tokens": sum(len(cache.tokenizer().encode(d).ids) + 1 for d in documents),
            "bytes": sum(len(d.encode()) for d in documents),
            **dict.fromkeys(("lost", "unknown", "spaces"), 0),
        }


def test_the_bytes_of_every_evaluated_token_are_those_it_decodes_to(cache):
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    for split in ("val", "test"):
        tokens = [cache.tokenizer().id_to_token(i) for i in cache.tokens(split)]
        expected = [len(token) if alphabet.issuperset(token) and token != "<|endoftext|>" else 0 for token in tokens]
        assert cache.token_bytes(split).tolist() == expected


def test_a_literal_end_of_text_in_a_document_does_not_end_it(make_cache, tiny_corpus):
    for path in tiny_corpus.iterdir():
        path.write_text(f"<|endoftext|>{path.read_text('utf-8')}<|endoftext|> and on", "utf-8")
    for special_tokens, ends in ((False, 60), (True, 180)):
        cache = make_cache()
        cache = TokenCache(cache.folder.parent, cache.corpus, cache.source, 0.15, 0.15, special_tokens)
        cache.prepare()
        assert sum((cache.tokens(split) == 0).sum() for split in SPLITS) == ends
        assert sum(cache.meta["splits"][split]["documents"] for split in SPLITS) == 60


def test_a_tokenizer_that_loses_text_is_refused_and_said_to_when_allowed(make_cache, tmp_path, refused, caplog):
    letters(None)(["the cat sees a"]).save(str(tmp_path / "few.json"))
    cache = make_cache(TokenizerFile(str(tmp_path / "few.json")))
    for _ in range(2):
        with refused(r"loses \d\d % of the text: of [\d,]+ bytes .*a larger data\.max_lost than 0\.01"):
            cache.prepare()
    cache.max_lost = 1.0
    caplog.clear()
    cache.prepare()
    assert "note: the tokenizer loses" in caplog.text


def test_an_unchanged_cache_is_not_written_again(cache, make_cache):
    before = written(cache.folder)
    again = make_cache()
    again.prepare()
    assert again.folder == cache.folder
    assert written(cache.folder) == before


def test_another_corpus_tokenizer_or_split_makes_another_folder(make_cache, tiny_corpus, tmp_path):
    make_cache().prepare()
    folders = [
        make_cache().folder,
        make_cache(TrainedBPE(301)).folder,
        make_cache(TokenizerFile(str(make_cache().folder))).folder,
        make_cache(fractions=(0.15, 0.2)).folder,
        make_cache(separator=".").folder,
    ]
    with (tiny_corpus / "07.txt").open("a") as file:
        file.write("!")
    assert len({*folders, make_cache().folder}) == 6


@pytest.mark.parametrize("name", FILES[1:])
def test_a_flipped_byte_is_refused_naming_the_file(cache, refused, name):
    content = bytearray((cache.folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (cache.folder / name).write_bytes(content)
    with refused(f"damaged: {name}; delete the folder"):
        cache.prepare()


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_or_missing_file_is_refused_naming_it(cache, refused, name):
    (cache.folder / name).write_bytes((cache.folder / name).read_bytes()[:-2])
    with refused(f"damaged: {name}; delete the folder"):
        cache.prepare()
    (cache.folder / name).unlink()
    with refused(f"damaged: {name}; delete the folder"):
        cache.prepare()


@pytest.mark.parametrize("content", ["{}", "[]", "not json", '{"sha256": {}}', '{"sha256": 1, "splits": 2}', "null"])
def test_a_broken_meta_file_is_refused(cache, refused, content):
    (cache.folder / "meta.json").write_text(content)
    with refused(r"damaged: meta\.json"):
        cache.prepare()


def test_a_meta_file_that_leaves_a_hash_out_is_refused(cache, refused):
    meta = cache.meta
    del meta["sha256"]["val.bin"]
    (cache.folder / "meta.json").write_text(json.dumps(meta))
    with refused(r"damaged: meta\.json"):
        cache.prepare()


def test_a_digit_of_the_meta_file_that_has_changed_is_noticed(cache, refused):
    path = cache.folder / "meta.json"
    text = path.read_text()
    n_bytes = str(cache.meta["splits"]["val"]["bytes"])
    path.write_text(text.replace(n_bytes, str(int(n_bytes) + 1)))
    with refused(r"damaged: meta\.json"):
        cache.prepare()


def test_what_a_killed_process_left_is_replaced(make_cache):
    cache = make_cache()
    partial = cache.folder.with_name(f"{cache.folder.name}.partial")
    partial.mkdir(parents=True)
    (partial / "train.bin").write_bytes(b"half")
    (partial / "rubbish").touch()
    cache.prepare()
    assert not partial.exists()
    assert sorted(p.name for p in cache.folder.iterdir()) == FILES


def test_a_failed_preparation_leaves_no_cache(make_cache, refused):
    cache = make_cache(TrainedBPE(30_000))
    with refused("too small"):
        cache.prepare()
    assert [p.name for p in cache.folder.parent.iterdir()] == [f"{cache.folder.name}.lock"]


def test_a_split_without_documents_is_refused(make_cache, refused):
    with refused(r"no document fell into the val split \(60 documents in all"):
        make_cache(fractions=(1e-9, 0.15)).prepare()


def test_two_processes_preparing_one_cache_both_find_it_complete(make_cache, tiny_corpus):
    cache = make_cache()
    code = f"""
from pathlib import Path
from zoo.datamodules import LocalFiles, TrainedBPE
from zoo.datamodules.token_cache import TokenCache
cache = TokenCache(Path({str(cache.folder.parent)!r}), LocalFiles([{str(tiny_corpus)!r}]), TrainedBPE(300), 0.15, 0.15)
input()
cache.prepare()
cache._verify()
"""
    pair = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) for _ in range(2)]
    for process in pair:
        process.stdin.write(b"\n")
        process.stdin.close()
    assert [process.wait() for process in pair] == [0, 0]
    assert sorted(p.name for p in cache.folder.iterdir()) == FILES
    assert [p for p in cache.folder.parent.iterdir() if p.is_dir()] == [cache.folder]
    cache.prepare()


@pytest.mark.parametrize(("size", "dtype"), [(2**16, np.uint16), (2**16 + 1, np.uint32)])
def test_token_ids_fit_their_type(make_cache, tiny_corpus, tmp_path, size, dtype):
    vocabulary = {"</s>": 0, **{f"w{i}": i for i in range(1, size)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "words.json"))
    for i, path in enumerate(sorted(tiny_corpus.iterdir())):
        path.write_text(f"w1 w{i + 1} w{size - 1}")
    cache = make_cache(TokenizerFile(str(tmp_path / "words.json")))
    cache.prepare()
    tokens = cache.tokens("train")
    assert tokens.dtype == dtype
    assert (tokens.reshape(-1, 4)[:, [0, 2, 3]] == [1, size - 1, 0]).all()
    assert cache.token_counts()[size - 1] == len(tokens) / 4
