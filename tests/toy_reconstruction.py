"""A module with `reconstruct` and a datamodule with rows, both as small as the callbacks' protocol allows."""

import lightning as L
import torch
from torch.utils.data import DataLoader


class Rows(L.LightningDataModule):
    """Rows dealt out to ranks in turn, in validation batches of unequal size, the last of which may be empty."""

    def __init__(self, rows, counts=None, held_out=None, batch_size=5):
        super().__init__()
        self.rows, self.row_counts, self.batch_size = rows, counts, batch_size
        self.held_out = torch.zeros(len(rows), dtype=torch.bool) if held_out is None else held_out
        self.row_labels = [f"token {i}" for i in range(len(rows))]
        self.W_E, self.d_in, self.true_atoms = rows, rows.shape[1], None

    def train_dataloader(self):
        return DataLoader([{"x": self.rows[~self.held_out]}] * 100, batch_size=None)

    def val_dataloader(self):
        mine = torch.arange(len(self.rows))[self.trainer.global_rank :: self.trainer.world_size]
        n_batches = -(-len(self.rows) // (self.batch_size * self.trainer.world_size))
        chunks = [mine[i * self.batch_size : (i + 1) * self.batch_size] for i in range(n_batches)]
        batches = [
            {"x": self.rows[i], "row": i, "weight": torch.ones(len(i)), "held_out": self.held_out[i]} for i in chunks
        ]
        return DataLoader(batches, batch_size=None)


class SignedCoordinates(L.LightningModule):
    """The simplest dictionary: codes are the positive and negative parts of each coordinate, in a learned scale.

    With scale 1 and every coordinate kept, the reconstruction is exact.
    """

    def __init__(self, d_in, scale=1.0, learning_rate=0.0, kept=None):
        super().__init__()
        kept = torch.eye(d_in)[: kept or d_in]
        self.register_buffer("signed", torch.cat([kept, -kept]))
        self.scale = torch.nn.Parameter(torch.tensor(scale))
        self.learning_rate = learning_rate

    def reconstruct(self, x):
        codes = torch.relu(x @ self.signed.T)
        return codes @ self.embedding_rows()["W_dec"], codes

    def embedding_rows(self):
        return {"W_dec": self.scale * self.signed}

    def training_step(self, batch, batch_idx):
        x_hat, _ = self.reconstruct(batch["x"])
        return (batch["x"] - x_hat).square().sum(1).mean()

    def validation_step(self, batch, batch_idx):
        x_hat, codes = self.reconstruct(batch["x"])
        error, norm = (batch["x"] - x_hat).square().sum(), batch["x"].square().sum()
        self.log("val/fvu", error / norm, sync_dist=True, batch_size=max(1, len(x_hat)))
        self.log("val/l0", (codes != 0).sum() / max(1, len(x_hat)), sync_dist=True, batch_size=max(1, len(x_hat)))
        return {"x": batch["x"], "x_hat": x_hat, "codes": codes}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate)
