"""Statistics of BatchNorm computed anew."""

from __future__ import annotations

from torch.nn.modules.batchnorm import _BatchNorm

from treadle.data import Batches
from treadle.state import State


def measure_batch_norms(state: State, batches: Batches) -> None:
    """Set running statistics to the plain mean over all batches, as torch.optim.swa_utils.update_bn does.

    Call it where gradients are off and the model is in eval mode, such as inside `state.looking`; what is
    run is `task.predict_step`.
    """
    norms = [m for m in state.task.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum, norm.training = None, True
        for batch in batches.look():
            with state.engine.autocast():
                state.task.predict_step(state.engine.move(batch), state)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum, norm.training = momentum, False
