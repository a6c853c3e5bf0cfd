import pytest
from supported.tokenizers import letters, ordinary_end, unigram, words
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from zoo.datamodules import TrainedBPE
from zoo.datamodules.text_encoder import SPACES, TextEncoder

TEXT = "a <|endoftext|> ï 漢字 </s>"


@pytest.fixture
def bpe(tiny_corpus):
    return TrainedBPE(300).tokenizer(path.read_text("utf-8") for path in sorted(tiny_corpus.iterdir()))


def encode(tokenizer, text, **options):
    (encoded,) = TextEncoder(tokenizer, **options).encode([text])
    return encoded


def missing(encoded):
    return encoded.lost, encoded.unknown, encoded.spaces


def test_the_name_of_a_special_token_is_text_unless_asked_for(bpe):
    text = encode(bpe, TEXT)
    assert 0 not in text.ids
    assert bpe.decode(text.ids.tolist(), skip_special_tokens=False) == TEXT
    special = encode(bpe, TEXT, special_tokens=True)
    assert special.ids.tolist().count(0) == 1
    assert special.n_bytes[special.ids.tolist().index(0)] == len("<|endoftext|>")


def test_an_end_of_text_that_is_not_marked_special_is_text_too(bpe):
    tokenizer = ordinary_end(["a </s>"] * 9)
    end = TextEncoder(tokenizer).end
    ids = encode(tokenizer, TEXT).ids.tolist()
    assert end not in ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == TEXT


def test_a_word_that_cannot_but_end_the_document_is_lost():
    tokenizer = words({"</s>": 0, "a": 1, "[UNK]": 2})([])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    encoded = encode(tokenizer, "a </s> a")
    assert encoded.ids.tolist() == [1, 1]
    assert missing(encoded) == (4, 0, 2)


def test_every_byte_of_a_byte_level_token_is_counted_even_within_a_character(bpe):
    encoded = encode(bpe, "漢ï")
    assert encoded.n_bytes.sum() == 5
    assert len(encoded.ids) >= 2
    tokens = [bpe.id_to_token(i) for i in encoded.ids]
    assert encoded.n_bytes.tolist() == [len(token) for token in tokens]


def test_letters_without_a_token_are_lost_and_those_of_the_unknown_token_are_unknown():
    text = "naïve 漢字 cafe"
    assert missing(encode(letters(None)(["nave cf"] * 3), text)) == (2 + 6, 0, 0)
    assert missing(encode(letters("<unk>")(["nave cf"] * 3), text)) == (0, 2 + 6, 0)


def test_white_space_between_words_is_told_apart_from_what_is_lost():
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "[SEP]": 1, "ab": 2, "##c": 3, "naive": 4}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    encoded = encode(tokenizer, " abc  Naïve\u2003\x01 xyz\n")
    assert encoded.ids.tolist() == [2, 3, 4, 0]
    assert encoded.n_bytes.tolist() == [2, 1, 6, 0]
    assert missing(encoded) == (1, 3, 1 + 2 + 3 + 1 + 1)  # \x01 is lost, xyz unknown


def test_bytes_that_stand_for_a_run_of_letters_are_shared_out(tiny_corpus):
    encoded = encode(unigram(byte_fallback=True)(["ab"]), "a 漢ïb")
    assert encoded.n_bytes.tolist() == [0, 1, 1, *[1] * 5, 1]
    assert missing(encoded) == (0, 0, 0)


def test_a_post_processor_that_trims_spaces_does_not_make_them_lost(bpe):
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.post_processor = processors.ByteLevel(trim_offsets=True)
    encoded = encode(bpe, "the cat  sees")
    assert encoded.n_bytes.sum() == len("the cat  sees")
    assert missing(encoded) == (0, 0, 0)


def test_a_text_of_no_tokens_is_all_lost():
    encoded = encode(letters(None)(["abc"]), "漢")
    assert len(encoded.ids) == len(encoded.n_bytes) == 0
    assert missing(encoded) == (3, 0, 0)


def test_the_text_that_a_tokenizer_cannot_encode_is_named(refused):
    encoder = TextEncoder(words({"</s>": 0, "fine": 1})([]))
    with refused(r"cannot encode the text 'fine so far': .*Missing \[UNK\] token.*needs an unknown token"):
        encoder.encode(["fine", "fine so far", "fine"])


def test_white_space_is_what_unicode_says():
    assert [i for i in range(0x110000) if chr(i).isspace()] == SPACES
