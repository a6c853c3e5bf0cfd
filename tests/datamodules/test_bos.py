"""Contexts begin as the model's tokenizer begins a text, and documents end with the model's own token."""

import json

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

import zoo
from zoo.datamodules import ActivationsDataModule, LocalFiles, TokenizerFile, TrainedBPE
from zoo.models import GPT2

T = 12


def network():
    torch.manual_seed(0)
    net = GPT2(320, 20, 8, 2, 2).eval().requires_grad_(False)
    for p in net.parameters():
        p.normal_(std=0.5)
    return net


@pytest.fixture
def tokenizer(tiny_data):
    """A function that makes a BPE with more special tokens, and puts some of them before every text."""

    def make(*names, before=()):
        made = Tokenizer.from_str(tiny_data.tokenizer.to_str())
        made.add_special_tokens([AddedToken(name, special=True) for name in names])
        if before:
            known = [(name, made.token_to_id(name)) for name in before]
            made.post_processor = TemplateProcessing(single=[*before, "$A"], special_tokens=known)
        return made

    return make


@pytest.fixture
def foreign(tmp_path):
    """A function that writes a folder of a GPT-2 as transformers does."""

    def write(tokenizer, **config):
        folder, net = tmp_path / "foreign", network()
        folder.mkdir(exist_ok=True)
        save_file(
            {k: v.contiguous() for k, v in net.state_dict().items() if k != "lm_head.weight"},
            folder / "model.safetensors",
            {"format": "pt"},
        )
        (folder / "config.json").write_text(json.dumps(net.hf_config()))
        if tokenizer:
            (folder / "tokenizer.json").write_text(tokenizer.to_str())
        if config:
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
        return str(folder)

    return write


@pytest.fixture
def make(tiny_corpus, tmp_path):
    def make(model, prepared=True, **options):
        defaults = {"layer": 1, "corpus": LocalFiles([str(tiny_corpus)]), "sequence_length": T, "val_contexts": 7}
        defaults |= {"batch_size": 24, "positions_per_context": 3, "cache_dir": str(tmp_path / "cache")}
        data = ActivationsDataModule(model, **defaults | {"val_fraction": 0.15, "test_fraction": 0.15} | options)
        if prepared:
            data.prepare_data()
            data.setup()
        return data

    return make


def contexts(data):
    """Token ids and targets of the evaluation, and whether they count."""
    batches = list(data.evaluation_contexts())
    ids, targets = (torch.cat([batch[key] for batch in batches]) for key in ("input_ids", "targets"))
    return ids, targets, targets != -100


def test_contexts_begin_with_the_tokens_of_transformers_own_tokenizer(foreign, tokenizer, make):
    data = make(foreign(tokenizer("<s>", before=["<s>"])))
    peer = PreTrainedTokenizerFast(tokenizer_file=f"{data.model_name}/tokenizer.json")
    text = "the cat"
    assert peer(text).input_ids == [*data.bos, *peer(text, add_special_tokens=False).input_ids]
    ids, _, counts = contexts(data)
    assert ids.shape[1] == T
    assert (ids[counts.any(1)][:, 0] == data.bos[0]).all()


@pytest.mark.parametrize("before", [["<s>"], ["[mask]", "<sop>"]])
def test_targets_are_the_tokens_that_follow(foreign, tokenizer, make, before):
    ids, targets, counts = contexts(make(foreign(tokenizer(*before, before=before))))
    n = len(before)
    both = counts[:, n - 1 : -1] & counts[:, n:]
    assert both.sum() > 50
    assert torch.equal(targets[:, n - 1 : -1][both], ids[:, n:][both])
    assert counts[counts.any(1)][:, n - 1].all()  # the first token of the text is predicted from BOS
    assert not counts[:, : n - 1].any()  # and BOS from nothing


def test_batches_are_the_models_activations_after_bos(foreign, tokenizer, make):
    data = make(foreign(tokenizer("<s>", before=["<s>"])))
    batches, seen = data.train_dataloader(), set()
    for refill in range(12):
        windows = batches.contexts.batch(refill)["input_ids"]
        assert windows.shape == (8, T - 1)
        bos = torch.full((8, 1), data.bos[0])
        own = network().residual_stream(torch.cat([bos, windows], 1))[1]  # (8, T, D)
        for step in range(refill * 3, refill * 3 + 3):
            x = batches.batch(step)["x"].view(8, 3, 8)
            distance = (x.unsqueeze(2) - own.unsqueeze(1)).norm(dim=3)
            assert distance.amin(2).max() < 1e-4
            seen |= set(distance.argmin(2).flatten().tolist())
    assert seen == set(range(1, T))  # BOS is the position that skip_positions=1 leaves out


def test_bos_is_a_position_that_may_be_kept(foreign, tokenizer, make):
    model = foreign(tokenizer("<s>", before=["<s>"]))
    kept, left_out = (make(model, skip_positions=n) for n in (0, 1))
    rows = [torch.cat([batch["row"] for batch in data.val_dataloader()]) for data in (kept, left_out)]
    bos = kept.bos[0]
    assert (rows[0] == bos).sum() == 7 == len(rows[0]) - len(rows[1])
    assert bos not in rows[1]


def test_ranks_share_out_the_batch_of_one_rank(foreign, tokenizer, make):
    data = make(foreign(tokenizer("<s>", before=["<s>"])))
    parts = [data._train_loader(rank, 2).batch(5)["x"] for rank in range(2)]
    torch.testing.assert_close(torch.cat(parts), data._train_loader(0, 1).batch(5)["x"])


@pytest.mark.parametrize("bos", ["<s>", {"content": "<s>", "lstrip": False, "__type": "AddedToken"}])
@pytest.mark.parametrize("add", [True, False])
def test_the_tokenizers_config_may_ask_for_bos(foreign, tokenizer, make, bos, add):
    made = tokenizer("<s>")
    data = make(foreign(made, bos_token=bos, add_bos_token=add))
    assert data.bos == ([made.token_to_id("<s>")] if add else [])
    assert make(data.model_name, prepend_bos=True).bos == [made.token_to_id("<s>")]
    assert make(data.model_name, prepend_bos=False).bos == []


def test_a_tokenizer_that_puts_nothing_before_a_text_leaves_contexts_as_they_were(foreign, tokenizer, make):
    data = make(foreign(tokenizer("<s>")))
    assert data.bos == []
    assert not data.prepend_bos
    ids, _, counts = contexts(data)
    tokens = data.text.cache.tokens("val").tolist()
    windows = {tuple(tokens[i : i + T]) for i in range(0, len(tokens), T)}
    assert {tuple(row) for row in ids[counts.all(1)].tolist()} <= windows


def test_a_model_of_the_zoo_was_trained_without_bos(tokenizer, make, tmp_path):
    text = tokenizer("<s>", before=["<s>"]).to_str()
    model = str(zoo.save(network(), tmp_path / "zoo", tokenizer_json=text))
    assert make(model).bos == []
    assert make(model, prepend_bos=True).bos == [Tokenizer.from_str(text).token_to_id("<s>")]


def test_a_tokenizer_given_for_a_model_without_one_tells_its_bos(foreign, tokenizer, make, tmp_path):
    made = tokenizer("<s>", before=["<s>"])
    made.save(str(tmp_path / "given.json"))
    data = make(foreign(None), tokenizer=TokenizerFile(str(tmp_path / "given.json")))
    assert data.bos == [made.token_to_id("<s>")]
    assert make(data.model_name, tokenizer=TrainedBPE(300)).bos == []


def test_data_with_and_without_bos_are_different_data(foreign, tokenizer, make):
    model = foreign(tokenizer("<s>", before=["<s>"]))
    with_bos, without = make(model), make(model, sequence_length=T - 1, prepend_bos=False)
    assert with_bos.text.context_length == without.text.context_length  # the windows of the text are the same
    assert with_bos.corpus_fingerprint != without.corpus_fingerprint


@pytest.mark.parametrize(
    ("names", "eos", "end"),
    [
        (["</s>", "<eos>"], "<eos>", "<eos>"),  # Gemma's </s> ends text that is struck through
        (["<im_end>", "<eos>"], "<im_end>", "<im_end>"),
        (["<im_end>", "<|end_of_text|>", "</s>"], "<im_end>", "<|end_of_text|>"),  # <im_end> ends a turn of a chat
        (["</s>"], "not a token", "</s>"),
        (["</s>"], None, "</s>"),
    ],
)
def test_documents_end_with_the_models_own_token(foreign, tiny_data, make, names, eos, end):
    settings = json.loads(tiny_data.tokenizer.to_str().replace("<|endoftext|>", "<unused>"))
    made = Tokenizer.from_str(json.dumps(settings))
    made.add_special_tokens([AddedToken(name, special=True) for name in names])
    data = make(foreign(made, eos_token=eos))
    counts = data.row_counts[[made.token_to_id(name) for name in names]].tolist()
    n_documents = data.text.cache.meta["splits"]["train"]["documents"]
    assert counts == [n_documents * (name == end) for name in names]


def test_a_chat_model_with_the_common_token_ends_documents_with_it(foreign, tokenizer, make):
    data = make(foreign(tokenizer("<im_end>"), eos_token="<im_end>"))
    assert data.row_counts[data.text.tokenizer.token_to_id("<|endoftext|>")] > 40
    assert data.row_counts[data.text.tokenizer.token_to_id("<im_end>")] == 0


def test_a_tokenizer_without_a_token_between_documents_is_refused(foreign, tiny_data, make, refused):
    bare = Tokenizer.from_str(tiny_data.tokenizer.to_str().replace("<|endoftext|>", "<unused>"))
    with refused("the tokenizer has no token that ends a document; looked for <|endoftext|>, </s>"):
        make(foreign(bare))


def test_bos_where_there_is_none_is_refused(foreign, tokenizer, make, refused):
    with refused("data.prepend_bos is true, but the tokenizer of .*foreign has no BOS token"):
        make(foreign(tokenizer()), prepared=False, prepend_bos=True)
    with refused("sequence_length is 1; a context has 1 BOS and at least 1 token more"):
        make(
            foreign(tokenizer("<s>", before=["<s>"])),
            prepared=False,
            sequence_length=1,
            positions_per_context=1,
            skip_positions=0,
        )


def test_a_model_with_a_slow_tokenizer_only_is_refused_with_the_file_that_it_lacks(foreign, make, refused):
    with refused("foreign has no tokenizer.json; set data.tokenizer"):
        make(foreign(None, bos_token="<s>", tokenizer_class="LlamaTokenizer"), prepared=False)
