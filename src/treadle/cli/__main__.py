"""`python -m treadle.cli`, for launchers that start modules, such as torchrun -m."""

import sys

from treadle.cli.main import main

sys.exit(main())
