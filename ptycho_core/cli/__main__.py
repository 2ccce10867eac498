"""``python -m ptycho_core.cli`` is ``ptycho``."""

import sys

from .main import main

sys.exit(main())
