import random

import pytest
from supported.tokenizers import CASES
from tokenizers import Tokenizer, models, pre_tokenizers

from zoo.datamodules import HubTokenizer, LocalFiles, TokenizerFile, TrainedBPE
from zoo.datamodules.token_cache import NOT_LEARNED, SPLITS, TokenCache
from zoo.datamodules.tokenizers import END_OF_TEXT, end_of_text_id


@pytest.fixture
def texts(tiny_corpus):
    return [path.read_text("utf-8") for path in sorted(tiny_corpus.iterdir())]


@pytest.fixture
def saved(texts, tmp_path):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    TrainedBPE(300).tokenizer(texts).save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_a_tokenizer_accounts_for_every_byte_of_the_text_or_is_refused(
    texts, tiny_corpus, tmp_path, refused, caplog, case
):
    case.make(texts).save(str(tmp_path / "tokenizer.json"))

    def prepared(max_lost=0.01):
        source = TokenizerFile(str(tmp_path))
        cache = TokenCache(tmp_path, LocalFiles([str(tiny_corpus)]), source, 0.15, 0.15, max_lost=max_lost)
        cache.prepare()
        return cache

    if case.refusal:
        for _ in range(2):  # when the text is tokenized, and when its tokens are found
            with refused(case.refusal):
                prepared()
        if "% of the text" not in case.refusal and "only its unknown" not in case.refusal:
            return
    cache = prepared(max_lost=1)
    end, whole, learned = end_of_text_id(cache.tokenizer()), 0, 0
    for split in SPLITS:
        stats = cache.meta["splits"][split]
        assert (cache.tokens(split) == end).sum() == stats["documents"]
        if split != "train":
            missing = sum(stats[key] for key in NOT_LEARNED)
            assert cache.token_bytes(split).sum() == stats["bytes"] - missing
        whole += stats["bytes"]
        learned += stats["bytes"] - sum(stats[key] for key in NOT_LEARNED)
    assert whole == sum(len(text.encode()) for text in texts)
    assert case.refusal or ("white space" in caplog.text) == ("white space" in case.answer)
    assert ("the tokenizer loses" in caplog.text) == (case.refusal is not None)
    assert learned == whole or case.refusal or "white space" in case.answer


def test_a_byte_order_mark_before_a_tokenizer_changes_nothing(saved):
    before = TokenizerFile(str(saved)).fingerprint()
    file = saved / "tokenizer.json"
    file.write_text(file.read_text("utf-8"), "utf-8-sig")
    assert TokenizerFile(str(saved)).fingerprint() == before


def random_text(seed):
    rng = random.Random(seed)
    points = (
        rng.choice((rng.randrange(0x80), rng.randrange(0xD800), rng.randrange(0xE000, 0x110000))) for _ in "x" * 50
    )
    return "".join(map(chr, points))


def test_trained_bpe_gives_back_any_unicode_text(texts):
    tokenizer = TrainedBPE(300).tokenizer(texts)
    for text in (*map(random_text, range(200)), "  two  spaces\n\n\ttab \r\n", "e\u0301\u200d\ufeff\0", ""):
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_trained_bpe_has_exactly_the_vocabulary_asked_for_and_end_of_text_first(texts):
    for size in (257, 300):
        tokenizer = TrainedBPE(size).tokenizer(texts)
        assert sorted(tokenizer.get_vocab().values()) == list(range(size))
        assert tokenizer.token_to_id(END_OF_TEXT) == end_of_text_id(tokenizer) == 0


def test_training_twice_gives_the_same_tokenizer(texts):
    assert TrainedBPE(300).tokenizer(texts).to_str() == TrainedBPE(300).tokenizer(texts).to_str()


def test_training_reads_no_more_than_its_sample():
    read = []
    megabyte = "the cat sees a dog. " * 2**16
    TrainedBPE(260, sample_megabytes=2).tokenizer(read.append(i) or megabyte for i in range(10))
    assert read == [0, 1]


def test_a_corpus_too_small_for_the_vocabulary_is_refused(refused):
    with refused("too small for vocab_size 4096"):
        TrainedBPE().tokenizer(["a few words"])
    with refused("at least 257"):
        TrainedBPE(256)


def test_a_tokenizer_file_gives_the_ids_of_the_tokenizer_that_was_saved(texts, saved):
    trained = TrainedBPE(300).tokenizer(texts)
    for path in (saved, saved / "tokenizer.json"):
        source = TokenizerFile(str(path))
        assert source.vocab_size == 300
        assert source.tokenizer([]).encode(texts[0]).ids == trained.encode(texts[0]).ids


def test_the_fingerprint_of_a_tokenizer_file_follows_its_content_alone(texts, saved):
    before = TokenizerFile(str(saved)).fingerprint()
    (saved / "copy.json").write_text((saved / "tokenizer.json").read_text("utf-8") + "\n", "utf-8")
    assert TokenizerFile(str(saved / "copy.json")).fingerprint() == before
    TrainedBPE(299).tokenizer(texts).save(str(saved / "tokenizer.json"))
    assert TokenizerFile(str(saved)).fingerprint() != before


def test_the_vocabulary_reaches_to_the_largest_id_even_over_gaps(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 7, "[UNK]": 2}, unk_token="[UNK]"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert TokenizerFile(str(tmp_path)).vocab_size == 8


def test_tokenizer_files_that_are_missing_or_no_tokenizer_are_refused(tmp_path, refused):
    with refused("does not exist"):
        TokenizerFile(str(tmp_path / "none.json"))
    for content in (b"{}", b"not json", b"\xff\xfe"):
        (tmp_path / "bad.json").write_bytes(content)
        with refused(r"bad\.json is not a tokenizer\.json"):
            TokenizerFile(str(tmp_path / "bad.json"))


def test_a_tokenizer_without_an_end_of_text_token_is_refused(refused):
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with refused("no token that ends a document"):
        end_of_text_id(tokenizer)


def test_a_hub_tokenizer_is_found_in_the_local_cache_by_branch_and_commit(saved, hub):
    commit = hub("org/words", saved)
    expected = TokenizerFile(str(saved)).fingerprint()
    for revision in (None, "main", commit):
        source = HubTokenizer("org/words", revision)
        assert source.fingerprint() == expected
        assert source.vocab_size == 300


def test_a_hub_tokenizer_that_is_out_of_reach_is_refused(saved, hub, refused):
    hub("org/words", saved)
    for name, revision in (("org/other", None), ("org/words", "dev"), ("not a name", None)):
        with refused(f"hf:{name}"):
            HubTokenizer(name, revision)
