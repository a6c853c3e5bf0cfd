"""Common kinds of tokenizers."""

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from supported import Case
from zoo.datamodules import TrainedBPE

TITLE = "Tokenizers"
INTRODUCTION = (
    "This is how `TokenizerFile` and `HubTokenizer` read a `tokenizer.json`. One line says which share of the text "
    "the tokenizer loses. A share above `max_lost`, 1 % by default, is refused. Bits per byte are over the bytes that "
    "tokens represent. Names of special tokens in the text are treated as text, unless `special_tokens` is set."
)


def byte_level(alphabet=True, prefix_space=False, normalizer=None):
    """GPT-2's kind, trained on ASCII letters, with or without all other bytes."""

    def make(texts):
        tokenizer = Tokenizer(models.BPE())
        if normalizer:
            tokenizer.normalizer = normalizer
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
        tokenizer.decoder = decoders.ByteLevel()
        letters = pre_tokenizers.ByteLevel.alphabet() if alphabet else []
        return trained(tokenizer, trainers.BpeTrainer, texts, 350, ["<|endoftext|>"], initial_alphabet=letters)

    return make


def trained(tokenizer, trainer, texts, size, special, **options):
    """The tokenizer, trained on the ASCII letters of the texts."""
    ascii_texts = ["".join(filter(str.isascii, text)) for text in texts]
    options = {"vocab_size": size, "special_tokens": special, "show_progress": False, **options}
    tokenizer.train_from_iterator(ascii_texts, trainer(**options))
    return tokenizer


def letters(unknown):
    """BPE over ASCII letters, with or without an unknown token."""

    def make(texts):
        tokenizer = Tokenizer(models.BPE(unk_token=unknown))
        special = ["</s>", unknown] if unknown else ["</s>"]
        return trained(tokenizer, trainers.BpeTrainer, texts, 100, special)

    return make


def words(tokens, unknown="[UNK]", whole=False):
    """A vocabulary of words, and of all of the texts' if `whole`."""

    def make(texts):
        tokenizer = Tokenizer(models.WordLevel(unk_token=unknown))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        known = {word for text in texts for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)} if whole else ()
        vocabulary = dict(tokens) | {word: i for i, word in enumerate(sorted(known), len(tokens))}
        tokenizer.model = models.WordLevel(vocabulary, unk_token=unknown)
        return tokenizer

    return make


def word_pieces(texts):
    """BERT's kind."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    alphabet = sorted({letter for text in texts for letter in tokenizer.normalizer.normalize_str(text)})
    return trained(tokenizer, trainers.WordPieceTrainer, texts, 300, ["[UNK]", "[SEP]"], initial_alphabet=alphabet)


def unigram(unknown=0, byte_fallback=False, alphabet=None):
    """SentencePiece's kind, over ASCII letters."""

    def make(texts):
        known = alphabet or sorted({letter for text in texts for letter in text if letter.isascii() and letter != " "})
        pieces = [("<unk>", 0.0), ("</s>", 0.0), *((letter, -3.0) for letter in ["\u2581", *known])]
        pieces += [(f"<0x{byte:02X}>", -9.0) for byte in range(256)] if byte_fallback else []
        tokenizer = Tokenizer(models.Unigram(pieces, unknown, byte_fallback=byte_fallback))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        return tokenizer

    return make


def cutting_and_padding(texts):
    """Byte-level BPE whose file asks for texts of 5 to 9 tokens."""
    tokenizer = TrainedBPE(300).tokenizer(texts)
    tokenizer.enable_truncation(9)
    tokenizer.enable_padding(length=5)
    return tokenizer


def ordinary_end(texts):
    """Byte-level BPE that knows its end of text, but not as special."""
    tokenizer = byte_level()(texts)
    tokenizer.add_tokens([AddedToken("</s>", special=False)])
    return tokenizer


LARGE = {"</s>": 0, "[UNK]": 1, "far": 70_000}
CASES = [
    Case("byte-level BPE (GPT-2, Llama 3)", byte_level(), "reads it; nothing can be lost"),
    Case("byte-level BPE that normalises (Qwen)", byte_level(normalizer=normalizers.NFC()), "reads it"),
    Case("byte-level BPE that adds a space before the text (RoBERTa)", byte_level(prefix_space=True), "reads it"),
    Case(
        "byte-level BPE that lacks some bytes of the text", byte_level(alphabet=False),
        "refuses it, saying which share is lost", r"loses [\d.]+ % of the text: of [\d,]+ bytes it has no token for",
    ),
    Case(
        "letter-level BPE without an unknown token", letters(None),
        "refuses it, saying which share is lost", r"has no token for \d\d+ and only its unknown token for 0;",
    ),
    Case(
        "letter-level BPE with an unknown token", letters("<unk>"),
        "refuses it, saying which share is unknown", r"has no token for 0 and only its unknown token for \d\d+;",
    ),
    Case(
        "word-level, all words of the text known", words({"</s>": 0, "[UNK]": 1}, whole=True),
        "reads it; white space between words is dropped",
    ),
    Case(
        "word-level, some words of the text unknown", words(LARGE),
        "refuses it, saying which share is unknown", r"has no token for 0 and only its unknown token for [\d,]+;",
    ),
    Case(
        "word-level without its unknown token", words({"</s>": 0}),
        "refuses it, naming a text", r"cannot encode the text '.*': .*Missing \[UNK\] token",
    ),
    Case("WordPiece (BERT)", word_pieces, "reads it; white space between words is dropped"),
    Case("Unigram with byte fallback (T5, Llama 2)", unigram(byte_fallback=True), "reads it"),
    Case(
        "Unigram with an unknown token", unigram(),
        "refuses it, saying which share is unknown", r"has no token for 0 and only its unknown token for \d\d+;",
    ),
    Case(
        "Unigram without an unknown token", unigram(None),
        "refuses it, naming a text", r"cannot encode the text '.*': .*`unk_id` is missing",
    ),
    Case("a file with padding and truncation", cutting_and_padding, "reads it; texts are neither padded nor truncated"),
    Case("an end-of-text token that is not special", ordinary_end, "reads it"),
    Case(
        "token ids with gaps and above 65,536", words(LARGE, whole=True),
        "reads it; white space between words is dropped",
    ),
    Case(
        "token ids of 16,777,216 and more", words({"</s>": 0, "far": 2**24}),
        "refuses it", r"has a token with id 16,777,216",
    ),
    Case(
        "no end-of-document token", words({"[UNK]": 0}),
        "refuses it, naming the tokens that it looked for", "no token that ends a document; looked for",
    ),
]  # fmt: skip
