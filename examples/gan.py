"""A generative adversarial network on points of a circle: two optimizers, one training step of its own.

python examples/gan.py [--epochs 60] [--accumulate 2] [--precision bf16] [--resume]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import treadle

NOISE = 4


def circle(samples: int, seed: int = 0) -> Tensor:
    """Points near the unit circle, [samples, 2]."""
    generator = torch.Generator().manual_seed(seed)
    angles = 2 * math.pi * torch.rand(samples, generator=generator)
    points = torch.stack([angles.cos(), angles.sin()], dim=1)
    return points + 0.05 * torch.randn(samples, 2, generator=generator)


def network(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 64), nn.LeakyReLU(0.2), nn.Linear(64, outputs))


class GAN(treadle.Task):
    """Goodfellow et al. 2014. A step turns the discriminator, then the generator."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.discriminator = network(NOISE, 2), network(2, 1)

    def configure_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {
            name: torch.optim.Adam(part.parameters(), 1e-3, betas=(0.5, 0.99))
            for name, part in (("discriminator", self.discriminator), ("generator", self.generator))
        }

    def train_step(self, window: Sequence[Any], state: treadle.State) -> None:
        engine = state.engine
        for name, loss_of in (
            ("discriminator", self.discriminator_loss),
            ("generator", self.generator_loss),
        ):
            for batch, share in engine.microbatches(window, self.items(window)):
                with engine.autocast():
                    loss = loss_of(batch)
                engine.backward(loss, share)
                state.log(f"{name}_loss", loss)
            engine.step(self.optimizers[name])  # and clears the gradients of both

    def discriminator_loss(self, real: Tensor) -> Tensor:
        fake = self.generate(real).detach()
        return (self.judge(real, 1.0) + self.judge(fake, 0.0)) / 2

    def generator_loss(self, real: Tensor) -> Tensor:
        return self.judge(self.generate(real), 1.0)

    def generate(self, like: Tensor) -> Tensor:
        return self.generator(torch.randn(len(like), NOISE, device=like.device))  # type: ignore[no-any-return]

    def judge(self, points: Tensor, answer: float) -> Tensor:
        logits = self.discriminator(points)
        return binary_cross_entropy_with_logits(logits, torch.full_like(logits, answer))

    def eval_step(self, batch: Tensor, state: treadle.State) -> None:
        """How far from the circle the generated points are, on average."""
        state.log("distance", (self.generate(batch).norm(dim=1) - 1).abs().mean())

    def predict_step(self, batch: Tensor, state: treadle.State) -> Tensor:
        """From noise, [samples, NOISE], to points, [samples, 2]."""
        return self.generator(batch)  # type: ignore[no-any-return]


def main(arguments: Sequence[str] | None = None) -> treadle.Run:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--accumulate", type=int, default=1, help="batches in a step")
    parser.add_argument("--precision", default="fp32", help="fp32, bf16 or fp16")
    parser.add_argument("--run-dir", default="runs/gan")
    parser.add_argument("--resume", action="store_true", help="go on with the newest run in run-dir")
    given = parser.parse_args(arguments)
    torch.manual_seed(given.seed)
    trainer = treadle.Trainer(
        max_epochs=given.epochs,
        accumulate=given.accumulate,
        precision=given.precision,
        seed=given.seed,
        run_dir=given.run_dir,
        checkpoint=treadle.Checkpoints(monitor="val/distance"),
    )
    run = trainer.fit(
        GAN(),
        treadle.Loader(circle(given.samples), batch_size=128, shuffle=True),
        circle(given.samples, seed=1),
        resume="last" if given.resume else None,
    )
    print(run.history)
    return run


if __name__ == "__main__":
    main()
