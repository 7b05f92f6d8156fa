"""Where the parts of a run lie in its backup.

<backup>/<run folder's name>/checkpoints/step-00000030/…   the newest `keep_last`
                             models/best-00000025/…        the best model that the newest checkpoint knows of
                             models/final/…                when the run is finished
                             run/status.json …             the run's small files, after each checkpoint
"""

from __future__ import annotations

CHECKPOINTS, MODELS, RUN = "checkpoints", "models", "run"
STATUS = f"{RUN}/status.json"
FINAL = f"{MODELS}/final"


def best_key(step: int) -> str:
    """Of the best model, which was that of this step."""
    return f"{MODELS}/best-{step:08}"
