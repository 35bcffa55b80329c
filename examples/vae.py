"""A variational autoencoder on handwritten digits: two named losses in one step.

python examples/vae.py [--epochs 30] [--kl-weight 1.0] [--accumulate 2] [--precision bf16] [--resume]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import treadle
from treadle.data import Digits

PIXELS, HIDDEN, LATENT = 64, 128, 8


class VAE(treadle.Task):
    """Kingma and Welling 2014. The loss is reconstruction + kl_weight * kl, each logged by its name."""

    def __init__(self, kl_weight: float = 1.0) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * LATENT))
        self.decoder = nn.Sequential(nn.Linear(LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, PIXELS))
        self.loss_weights = {"kl": kl_weight}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=2e-3)

    def compute_loss(self, batch: tuple[Tensor, Tensor], state: treadle.State) -> dict[str, Tensor]:
        pixels, _ = batch
        mean, log_variance = self.encoder(pixels).chunk(2, dim=1)
        latent = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        logits = self.decoder(latent)
        reconstruction = binary_cross_entropy_with_logits(logits, pixels, reduction="none").sum(dim=1)
        kl = (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1) / 2
        return {"reconstruction": reconstruction.mean(), "kl": kl.mean()}

    def predict_step(self, batch: tuple[Tensor, Tensor], state: treadle.State) -> Tensor:
        """The most likely picture of each: pixels in 0 .. 1, [samples, 64]."""
        pixels, _ = batch
        mean, _ = self.encoder(pixels).chunk(2, dim=1)
        return self.decoder(mean).sigmoid()  # type: ignore[no-any-return]


def main(arguments: Sequence[str] | None = None) -> treadle.Run:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--kl-weight", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--accumulate", type=int, default=1, help="batches in a step")
    parser.add_argument("--precision", default="fp32", help="fp32, bf16 or fp16")
    parser.add_argument("--run-dir", default="runs/vae")
    parser.add_argument("--resume", action="store_true", help="go on with the newest run in run-dir")
    given = parser.parse_args(arguments)
    torch.manual_seed(given.seed)
    trainer = treadle.Trainer(
        max_epochs=given.epochs,
        accumulate=given.accumulate,
        precision=given.precision,
        seed=given.seed,
        run_dir=given.run_dir,
    )
    task = VAE(given.kl_weight)
    train = treadle.Loader(Digits("train"), batch_size=64, shuffle=True)
    run = trainer.fit(task, train, Digits("val"), resume="last" if given.resume else None)
    pictures = trainer.predict(task, Digits("val"))
    print(run.history)
    print(f"{len(pictures)} pictures reconstructed")
    return run


if __name__ == "__main__":
    main()
