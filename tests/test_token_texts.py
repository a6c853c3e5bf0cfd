import re

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from zoo.analysis.token_families import kind
from zoo.source import Source
from zoo.token_texts import decoded_tokens, read_tokenizer, without_text


def byte_level(tokens, added=()):
    """A byte-level BPE of some tokens, given as bytes."""
    letters = dict(enumerate(_alphabet()))
    vocab = {"".join(letters[byte] for byte in token): i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in added])
    return tokenizer


def _alphabet():
    """The letter that the pre-tokenizer itself writes for each byte; bytes that no UTF-8 has get the letters left."""
    cut, found = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), {}
    for code in [*range(0x80), *range(0x80, 0x800), *range(0x800, 0xD800, 64), *range(0x10000, 0x110000, 4096)]:
        text = chr(code)
        found |= dict(zip(text.encode(), cut.pre_tokenize_str(text)[0][0], strict=True))
    left = iter(sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(found.values())))
    return [found.get(byte) or next(left) for byte in range(256)]


def test_bytes_that_are_no_text_are_named_and_readable_parts_are_kept():
    tokens = [
        b"\xe2",
        b"\xe2\x80",
        b" the",
        b"caf\xc3",
        b"\x9d.",
        "\ufffd".encode(),
        "\u00e9".encode(),
        b"\n",
    ]
    assert decoded_tokens(byte_level(tokens, added=["<|end|>"])) == [
        "<0xE2>", "<0xE2><0x80>", " the", "caf<0xC3>", "<0x9D>.", "\ufffd", "\u00e9", "\n", "<|end|>"
    ]  # fmt: skip


def test_no_two_bytes_have_the_same_name():
    tokenizer = byte_level([bytes([i]) for i in range(128)] + [bytes([i]) for i in range(0xC2, 0xF5)])
    names = decoded_tokens(tokenizer)
    assert len(set(names)) == len(names) == 179
    assert names[:128] == [chr(i) for i in range(128)]
    assert names[128:] == [f"<0x{i:02X}>" for i in range(0xC2, 0xF5)]


def test_the_byte_tokens_of_sentencepiece_keep_their_names():
    pieces = [("<unk>", 0.0), *((f"<0x{byte:02X}>", -9.0) for byte in range(256)), ("\u2581a", -1.0), ("A", -1.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, 0, byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    names = decoded_tokens(tokenizer)
    assert names[1:] == [*(f"<0x{byte:02X}>" for byte in range(256)), " a", "A"]


@pytest.mark.parametrize("token", ["<0xE2>", "<0xE2><0x80>", " <0xC3>", "caf<0xC3>"])
def test_a_byte_in_a_token_changes_nothing_about_its_kind(token):
    assert kind(token) == kind(re.sub("<0x..>", "\ufffd", token)) != "special"


def test_every_corpus_names_its_tokens_as_its_checkpoint_does(tiny_data):
    assert tiny_data.row_labels == decoded_tokens(tiny_data.tokenizer)
    assert len(set(tiny_data.row_labels)) == tiny_data.vocab_size
    assert not any("\ufffd" in token for token in tiny_data.row_labels)


def test_the_tokens_of_shipped_checkpoints_are_distinct_and_change_only_where_they_hold_bytes():
    for name in ("gpt2-mini.learned", "gpt2-stdlib.learned"):
        tokenizer = read_tokenizer(Source.open(name).tokenizer_json(), name)
        names = Source.open(name).token_strings()
        before = tokenizer.decode_batch([[i] for i in range(len(names))], skip_special_tokens=False)
        assert len(set(names)) == len(names)
        assert all(a == b or "\ufffd" in b for a, b in zip(names, before, strict=True))


def test_no_text_has_a_token_that_words_never_hold_whole():
    tokens = ["[UNK]", "[unused0]", "the", "##ing", "\u5f8c", "##\u5f8c", "caf\u00e9", "cafe", "##5", "##."]
    tokenizer = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["[UNK]"])
    never = {token for token, none in zip(tokens, without_text(tokenizer), strict=True) if none}
    assert never == {"[unused0]", "##\u5f8c", "caf\u00e9", "##."}
    joined = byte_level([b"the", b"a b", b"\xe2", b"1", b"   ", b"'s"])
    assert without_text(joined) == [False, True, False, False, False, False]
