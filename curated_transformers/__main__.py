"""``python -m curated_transformers``."""

import sys

from .cli import main

sys.exit(main())
