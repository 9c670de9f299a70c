"""``python -m longrun.usage``."""

import sys

from longrun.usage.cli import main

sys.exit(main())
