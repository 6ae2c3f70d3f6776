"""Where work runs and where results live."""

import os

# Ray reads it when it is imported; without it, progress lines of workers side by side are swallowed as repetitions.
os.environ.setdefault("RAY_DEDUP_LOGS", "0")
