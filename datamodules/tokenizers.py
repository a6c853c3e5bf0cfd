"""Sources of tokenizers: BPE trained on the corpus, a file, or the Hugging Face hub."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from zoo.described import Described
from zoo.errors import ZooError
from zoo.paths import expanded
from zoo.source_files import hub_file

END_OF_TEXT = "<|endoftext|>"
END_NAMES = (END_OF_TEXT, "</s>", "<|end_of_text|>", "[SEP]", "<eos>")

LARGEST_VOCABULARY = 2**24


class TokenizerSource(Described, ABC):
    """Source of a tokenizer, whose vocabulary size is known before any text is read."""

    vocab_size: int
    end_of_text: str | None = None  # name of the token that ends a document; None for the first name in `END_NAMES`

    @abstractmethod
    def tokenizer(self, training_texts: Iterable[str]) -> Tokenizer:
        """Return the tokenizer. Only sources that train a tokenizer read `training_texts`.

        Raises:
            ZooError: If the tokenizer cannot be trained or loaded.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a string that is different for different tokenizers."""


class TrainedBPE(TokenizerSource):
    """Byte-level BPE like that of GPT-2, trained on the training documents. It can encode any text.

    Args:
        vocab_size: Size of the vocabulary V: 256 bytes, the end-of-text token (id 0) and merges.
        sample_megabytes: Amount of training text, in MiB, taken from the start of the corpus's training documents.
    """

    def __init__(self, vocab_size: int = 4096, sample_megabytes: int = 64) -> None:
        if vocab_size < 257:
            raise ZooError(f"vocab_size is {vocab_size}; 256 bytes and the end-of-text token need at least 257")
        self.vocab_size, self.sample_megabytes = vocab_size, sample_megabytes

    def tokenizer(self, training_texts: Iterable[str]) -> Tokenizer:
        """See `TokenizerSource.tokenizer`."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(self._sample(training_texts), trainer)
        reached = tokenizer.get_vocab_size()
        if reached < self.vocab_size:
            raise ZooError(f"the corpus is too small for vocab_size {self.vocab_size}: BPE training ends at {reached}")
        return tokenizer

    def fingerprint(self) -> str:
        """See `TokenizerSource.fingerprint`."""
        return f"byte-level BPE {self.vocab_size} {self.sample_megabytes}"

    def _sample(self, texts: Iterable[str]) -> Iterable[str]:
        left = self.sample_megabytes * 2**20
        for text in texts:
            yield text
            left -= len(text.encode())
            if left <= 0:
                return


class TokenizerFile(TokenizerSource):
    """A `tokenizer.json` of the tokenizers library.

    Args:
        path: The file, or a folder that contains a file of this name.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        file = expanded(path)
        self._file = file / "tokenizer.json" if file.is_dir() else file
        try:
            self._json = self._file.read_text("utf-8-sig")
            self._tokenizer = Tokenizer.from_str(self._json)
        except FileNotFoundError:
            raise ZooError(f"tokenizer file {self._file} does not exist") from None
        except Exception as error:
            raise ZooError(f"{self._file} is not a tokenizer.json of the tokenizers library: {error}") from None
        self.vocab_size = vocabulary_size(self._tokenizer, str(self._file))

    def tokenizer(self, training_texts: Iterable[str]) -> Tokenizer:
        """See `TokenizerSource.tokenizer`."""
        return self._tokenizer

    def fingerprint(self) -> str:
        """See `TokenizerSource.fingerprint`."""
        return json.dumps(json.loads(self._json), sort_keys=True)


class HubTokenizer(TokenizerFile):
    """The `tokenizer.json` of a repository on the Hugging Face hub.

    Args:
        name: Repository, such as openai-community/gpt2.
        revision: Branch, tag or commit. By default the main branch.
    """

    def __init__(self, name: str, revision: str | None = None) -> None:
        path = hub_file(name, revision, "tokenizer.json")
        if path is None:
            raise ZooError(f"hf:{name} has no tokenizer.json")
        super().__init__(str(path))
        self.name, self.revision = name, revision


def vocabulary_size(tokenizer: Tokenizer, name: str) -> int:
    """Return the largest token id plus 1. There may be unused ids below it.

    Raises:
        ZooError: If the largest id is not below `LARGEST_VOCABULARY`.
    """
    size = max(tokenizer.get_vocab().values(), default=-1) + 1
    if size > LARGEST_VOCABULARY:
        raise ZooError(f"{name} has a token with id {size - 1:,}; ids must be below {LARGEST_VOCABULARY:,}")
    return size


def end_of_text_id(tokenizer: Tokenizer, name: str | None = None) -> int:
    """Return the id of the token that ends a document.

    Args:
        tokenizer: The tokenizer.
        name: Name of the token; None for the first name in `END_NAMES` that is a token.

    Raises:
        ZooError: If the tokenizer has no such token.
    """
    names = END_NAMES if name is None else (name,)
    for known in names:
        if (token_id := tokenizer.token_to_id(known)) is not None:
            return token_id
    raise ZooError(f"the tokenizer has no token that ends a document; looked for {', '.join(names)}")
