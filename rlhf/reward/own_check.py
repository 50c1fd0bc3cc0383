"""Scores the probes of an exported folder that needs `rlhf.load`, in a process of its own; prints one JSON line."""

import json
import sys
from pathlib import Path

import torch

from rlhf.reward.scoring.scorer import load


def main(folder: Path) -> None:
    """Compare scores with the ones stored beside the model."""
    torch.set_num_threads(1)
    scorer = load(folder)
    probes = json.loads((folder / "probes.json").read_text())
    wanted = torch.tensor([p["score"] for p in probes])
    found = torch.tensor([scorer.score(p["prompt"], [p["response"]])[0] for p in probes])
    difference = ((found - wanted).abs() / (1 + wanted.abs())).max()
    dtype = str(next(scorer.model.backbone.parameters()).dtype)
    print(json.dumps({"difference": float(difference), "dtype": dtype, "probes": len(probes)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
