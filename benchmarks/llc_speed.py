"""Speed of sampling for the local learning coefficient, compared with devinterp and canonical-interp.

    python -m benchmarks.llc_speed

All contenders sample the same reduced-rank regression x -> B A x by SGLD, with batches of the same size. Speeds are in
chain steps per second; a chain step is one step of one chain. Every turn is one whole call, and ratios compare turns in
the same round. The peers are installed into an environment of their own: `python -m venv peers`, then
`peers/bin/pip install devinterp==1.3.2 canonical-interp==0.1.5`, and `--peers peers/lib/python3.X/site-packages`.
"""

import argparse
import itertools
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import zoo
from zoo.local_learning import SGLD
from zoo.local_learning.linear import squared_error

WIDTH, HIDDEN = 5, 3
STEP_SIZE, LOCALIZATION = 1e-5, 1.0
INSTALL = "pip install devinterp==1.3.2 canonical-interp==0.1.5 into an environment, and name it with --peers"
Contender = tuple[Callable[[int, int], Any], int]  # sampling with some chains and steps, and its number of chains


class Regression(nn.Module):
    """x -> B A x, at true rank 1."""

    def __init__(self) -> None:
        super().__init__()
        self.A, self.B = nn.Parameter(torch.zeros(HIDDEN, WIDTH)), nn.Parameter(torch.zeros(WIDTH, HIDDEN))
        with torch.no_grad():
            self.A[0, 0] = self.B[0, 0] = 1

    def forward(self, x: Tensor) -> Tensor:
        """Return B A x of rows x, (n, 5)."""
        return x @ self.A.T @ self.B.T


def mean_squared(output: Tensor, y: Tensor) -> Tensor:
    return (output - y).square().sum(1).mean() / 2


def contenders(args: argparse.Namespace) -> dict[str, Contender]:
    """Return the zoo's two contenders and the peers that are installed."""
    model = Regression().eval()
    x = torch.randn(args.n, WIDTH, generator=torch.Generator().manual_seed(0))
    y = model(x).detach() + torch.randn(args.n, WIDTH, generator=torch.Generator().manual_seed(1))
    n_beta = args.n / np.log(args.n)
    moments = squared_error(lambda model: model.B @ model.A, x, y)

    def of_zoo(loss: Any, data: Any, batch_size: int | None) -> Callable[[int, int], Any]:
        return lambda chains, steps: zoo.local_learning_coefficient(
            model,
            loss,
            data,
            sampler=SGLD(STEP_SIZE, steps, 0),
            chains=chains,
            batch_size=batch_size,
            n=args.n,
            localization=LOCALIZATION,
        )

    def on_batches(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return mean_squared(model(batch[0]), batch[1])

    batch_size = args.batch_size if args.batch_size < args.n else None
    found: dict[str, Contender] = {
        "zoo": (of_zoo(on_batches, (x, y), batch_size), args.chains),
        "zoo, second moments": (of_zoo(moments, None, None), args.chains),
    }
    loader = DataLoader(TensorDataset(x, y), args.batch_size, shuffle=True, drop_last=True)
    try:
        from devinterp.optim.sgld import SGLD as Peer
        from devinterp.slt.sampler import estimate_learning_coeff_with_summary

        def devinterp(chains: int, steps: int) -> Any:
            return estimate_learning_coeff_with_summary(
                model,
                loader,
                evaluate=lambda model, batch: mean_squared(model(batch[0]), batch[1]),
                sampling_method=Peer,
                optimizer_kwargs={"lr": STEP_SIZE, "localization": LOCALIZATION, "nbeta": n_beta},
                num_draws=steps,
                num_chains=chains,
                init_loss=0.5 * WIDTH,
                verbose=False,
            )

        found["devinterp"] = devinterp, args.slow_chains
    except ImportError as error:
        print(f"devinterp is skipped: {error}; {INSTALL}")
    try:
        if not hasattr(itertools, "batched"):  # imported there, not used here, and new in Python 3.12
            itertools.batched = None
        from canonical_interp.slt import LLCEstimator

        def canonical(compiled: bool) -> Callable[[int, int], Any]:
            return lambda chains, steps: LLCEstimator(
                steps, chains, 0, 1, learning_rate=STEP_SIZE, localization=LOCALIZATION, nbeta=n_beta
            ).estimate_llc(model, loader, mean_squared, show_progress=False, compile=compiled)

        found["canonical-interp"] = canonical(False), args.chains
        if args.compiled:
            found["canonical-interp, compiled"] = canonical(True), args.chains
    except ImportError as error:
        print(f"canonical-interp is skipped: {error}; {INSTALL}")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--n", type=int, default=1000, help="rows of the data, default 1000")
    made.add_argument("--batch_size", type=int, default=1000, help="rows of a batch, default 1000")
    made.add_argument("--chains", type=int, default=64, help="number of chains, default 64")
    made.add_argument(
        "--slow_chains", type=int, default=2, help="chains of devinterp, which runs one by one, default 2"
    )
    made.add_argument("--steps", type=int, default=200, help="steps of a turn, default 200")
    made.add_argument("--repeats", type=int, default=5, help="number of rounds, default 5")
    made.add_argument("--compiled", action="store_true", help="also measure canonical-interp with torch.compile")
    made.add_argument("--peers", help="folder site-packages in which the peers are installed")
    args = made.parse_args(argv)
    if args.peers:
        sys.path.append(args.peers)
    warnings.filterwarnings("ignore")
    rates: dict[str, list[float]] = {}
    for measured in range(args.repeats + 1):
        for name, (sample, chains) in contenders(args).items():
            began = time.perf_counter()
            sample(chains, args.steps)
            rate = chains * args.steps / (time.perf_counter() - began)
            if measured:
                rates.setdefault(name, []).append(rate)
    title = f"reduced-rank regression ({WIDTH}, {HIDDEN}, {WIDTH}), n = {args.n}, batch {args.batch_size}"
    columns = ("contender", "chain steps per second", "zoo / this: median (min to max)")
    table = Table(*columns, title=f"{title}, {args.chains} chains")
    for name, found in rates.items():
        ratio = np.array(rates["zoo"]) / np.array(found)
        ratios = f"{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})"
        table.add_row(name, f"{np.median(found):,.0f}", ratios)
    console = Console()
    console.print(table)
    console.print(f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
