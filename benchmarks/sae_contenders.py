"""Contenders of `benchmarks.sae_speed`: training steps of the zoo in a plain loop, and of other libraries.

A contender is made from the settings and a sample of the data. It consists of a function that makes one whole training
step and one that returns codes. If a library has no function for a training step, the loop of its trainer is written
out here, with the library's own network, loss and counts.
"""

import os
from argparse import Namespace
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.models import SAE, AdamLinear, ReLUSAE, TopKSAE

LEARNING_RATE = 1e-3
CLIP = 1.0  # largest gradient norm


class Contender(NamedTuple):
    """Training step and encoder of one of the implementations that are compared."""

    step: Callable[[Tensor], Any]  # data (B, d_in): one whole training step
    on: Callable[[Tensor], Tensor]  # data (B, d_in) -> codes (B, K)


def autocast(args: Namespace) -> torch.autocast:
    """Return the autocast context for the networks of all contenders."""
    return torch.autocast(args.device, torch.bfloat16, enabled=args.precision == "bf16-mixed")


def bare(args: Namespace, net: SAE, sample: Tensor) -> Contender:
    """Return the zoo's network in a plain loop that does the same as `SparseAutoencoder`."""
    net = net.to(args.device)
    net.initialise(sample)
    since_fired = torch.zeros(net.d_sae, dtype=torch.int64, device=args.device)
    groups: dict[float, list[Tensor]] = {}
    for name, p in net.named_parameters():
        lr = LEARNING_RATE * net.scale.item() if name in net.biases else LEARNING_RATE
        groups.setdefault(lr, []).append(p)
    made = AdamLinear(warmup_steps=0).configure([{"params": p, "lr": lr} for lr, p in groups.items()], float("inf"))
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]

    def step(x: Tensor) -> None:
        dead = (since_fired >= args.dead_after).nonzero().squeeze(1)
        with autocast(args):
            loss = net.loss(x, dead)
        optimizer.zero_grad()
        loss.total.backward()
        net.before_optimizer_step()
        nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        net.after_optimizer_step()
        since_fired.add_(len(x))
        since_fired[loss.fired > 0] = 0

    return Contender(step, net.encode)


def network(args: Namespace, variant: str) -> SAE:
    torch.manual_seed(0)
    return TopKSAE(args.d_in, args.d_sae, args.k) if variant == "topk" else ReLUSAE(args.d_in, args.d_sae, args.l1)


def saelens(args: Namespace, variant: str, sample: Tensor, sparse: bool = False) -> Contender:
    """Return SAELens: `SAETrainer.step`, and what its `fit` adds to every step. Its default is not `sparse`."""
    from sae_lens import StandardTrainingSAE, StandardTrainingSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    sizes = {"d_in": args.d_in, "d_sae": args.d_sae, "device": args.device}
    sae = (
        TopKTrainingSAE(
            TopKTrainingSAEConfig(
                **sizes, k=args.k, use_sparse_activations=sparse, rescale_acts_by_decoder_norm=not sparse
            )
        )
        if variant == "topk"
        else StandardTrainingSAE(StandardTrainingSAEConfig(**sizes, l1_coefficient=args.l1))
    )
    sae.b_dec.data = sample.mean(0)
    config = SAETrainerConfig(
        total_training_samples=10**12,
        train_batch_size_samples=args.batch_size,
        lr=LEARNING_RATE,
        lr_end=LEARNING_RATE,
        device=args.device,
        autocast=args.precision == "bf16-mixed",
        logger=LoggingConfig(log_to_wandb=False),
    )
    trainer = SAETrainer(config, sae, data_provider=iter(()))

    def step(x: Tensor) -> None:
        trainer.maybe_reset_sparsity()
        trainer.step(x)
        trainer.n_training_steps += 1

    return Contender(step, lambda x: sae.encode(x).to_dense() if sparse else sae.encode(x))


def dictionary_learning(args: Namespace, variant: str, sample: Tensor) -> Contender:
    """Return dictionary_learning: the `update` of its trainer."""
    from dictionary_learning.trainers.standard import StandardTrainerAprilUpdate
    from dictionary_learning.trainers.top_k import TopKTrainer

    shared = {"steps": 10**9, "activation_dim": args.d_in, "dict_size": args.d_sae, "lr": LEARNING_RATE}
    shared |= {"warmup_steps": 0, "layer": 0, "lm_name": "", "device": args.device}
    trainer: Any = (
        TopKTrainer(**shared, k=args.k)
        if variant == "topk"
        else StandardTrainerAprilUpdate(**shared, l1_penalty=args.l1, sparsity_warmup_steps=None)
    )
    n_steps = 0

    def step(x: Tensor) -> None:
        nonlocal n_steps
        with autocast(args):
            trainer.update(n_steps, x)
        n_steps += 1

    step(sample)  # the first step also sets the decoder's bias, to a geometric median
    return Contender(step, trainer.ae.encode)


def sparsify(args: Namespace, variant: str, sample: Tensor) -> Contender:
    """Return sparsify: its `SparseCoder` in the loop of its `Trainer`, which itself requires a language model."""
    if args.device == "cpu":
        os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
    with redirect_stdout(StringIO()):
        from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(args.d_in, SparseCoderConfig(num_latents=args.d_sae, k=args.k), device=args.device)
    coder.b_dec.data = sample.mean(0)
    optimizer = torch.optim.Adam(coder.parameters(), lr=LEARNING_RATE)
    since_fired = torch.zeros(args.d_sae, dtype=torch.long, device=args.device)
    did_fire = torch.zeros(args.d_sae, dtype=torch.bool, device=args.device)

    def step(x: Tensor) -> None:
        coder.set_decoder_norm_to_unit_norm()
        total_variance = (x - x.mean(0)).pow(2).sum()
        out = coder(x, dead_mask=since_fired > 10_000_000, total_variance=total_variance)
        did_fire[out.latent_indices.flatten()] = True
        float(out.fvu.detach())
        float(out.auxk_loss.detach())
        (out.fvu + out.auxk_loss / 32).backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()
        since_fired.add_(len(x))
        since_fired[did_fire] = 0
        did_fire.zero_()

    return Contender(step, lambda x: coder.encode(x).top_acts)


def overcomplete(args: Namespace, variant: str, sample: Tensor) -> Contender:
    """Return overcomplete: its `train_sae` on one batch, without monitoring."""
    from overcomplete.sae import SAE, TopKSAE, train_sae

    kind = TopKSAE if variant == "topk" else SAE
    options = {"top_k": args.k} if variant == "topk" else {}
    sae = kind(args.d_in, args.d_sae, device=args.device, **options)
    optimizer = torch.optim.Adam(sae.parameters(), lr=LEARNING_RATE)

    def loss(x: Tensor, x_hat: Tensor, pre_codes: Tensor, codes: Tensor, dictionary: Tensor) -> Tensor:
        error = (x - x_hat).square().mean()
        return error if variant == "topk" else error + args.l1 * codes.abs().sum(1).mean() / args.d_in

    def step(x: Tensor) -> None:
        with autocast(args):
            train_sae(sae, [x], loss, optimizer, nb_epochs=1, monitoring=0, device=args.device)

    def on(x: Tensor) -> Tensor:
        return nn.Module.eval(sae).encode(x)[1]

    return Contender(step, on)


PEERS = {
    "topk": {
        "SAELens": saelens,
        "SAELens, sparse": partial(saelens, sparse=True),
        "dictionary_learning": dictionary_learning,
        "sparsify": sparsify,
        "overcomplete": overcomplete,
    },
    "relu": {"SAELens": saelens, "dictionary_learning": dictionary_learning, "overcomplete": overcomplete},
}
