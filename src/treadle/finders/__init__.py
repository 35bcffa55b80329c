"""What to give the trainer: a learning rate, a micro-batch size. Looking for them leaves no trace."""

from treadle.finders.batch_size import find_batch_size
from treadle.finders.finding import Finding
from treadle.finders.learning_rate import find_learning_rate
from treadle.finders.untouched import untouched

__all__ = ["Finding", "find_batch_size", "find_learning_rate", "untouched"]
