"""The task `doctor`: checks on the user's own model and data, before any training.

`python train.py debug=doctor model=local model.path=... data=pairs data.path=...` prints one line per check with
the number it measured and, where it fails, the remedy; doctor.json in the run's folder holds the same.
The checks on the model are in `rlhf.reward.doctor.model_checks`, those on the data in `rlhf.reward.doctor.data_checks`.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rlhf.reward.doctor.data_checks import Check, data_checks, rendering_checks
from rlhf.reward.doctor.model_checks import MODEL_CHECKS
from rlhf.reward.training import RewardRun


def examine(run: RewardRun) -> dict[str, float]:
    """Run every check, print the table, write doctor.json.

    Returns:
        `doctor/failed` and `doctor/checks`; `train.py` ends with exit code 1 when a check failed.
    """
    run.data.setup()
    checks = [*data_checks(run.data), *rendering_checks(run.data)]
    checks += [check(run) for check in MODEL_CHECKS]
    print(table(checks))
    (run.folder / "doctor.json").write_text(json.dumps([asdict(c) for c in checks], indent=2))
    return {"doctor/failed": sum(c.failed for c in checks), "doctor/checks": len(checks)}


def table(checks: Sequence[Check]) -> str:
    """One line per check: verdict, name, what was measured; under a line that is not `ok`, the remedy."""
    width = max(len(c.name) for c in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.verdict:<5} {check.name:<{width}}  {check.measured}")
        if check.verdict != "ok":
            lines.append(f"{'':<5} {'':<{width}}  -> {check.remedy}")
    failed, warned = sum(c.failed for c in checks), sum(c.verdict == "warn" for c in checks)
    return "\n".join([*lines, f"{len(checks)} checks: {failed} failed, {warned} to look at"])
