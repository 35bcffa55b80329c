"""What happens around the math: one callback per file."""

from treadle.callbacks.checkpoints import Checkpoints
from treadle.callbacks.layer_table import Row, parameter_table
from treadle.callbacks.progress import Progress, progress_bar
from treadle.callbacks.summary import Summary

__all__ = ["Checkpoints", "Progress", "Row", "Summary", "parameter_table", "progress_bar"]
