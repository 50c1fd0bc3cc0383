"""The reward model: trunk, heads, losses, the Lightning module, export and self-checks."""

import logging

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # at import it warns of an optional CPU kernel
