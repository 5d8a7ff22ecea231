"""`python -m inspect_daytona` is the command `inspect-daytona`."""

import sys

from ._cli import main

sys.exit(main())
