"""``python -m LiverCascadeLib`` is the command ``livercascade``."""

import sys

from .cli import main

sys.exit(main())
