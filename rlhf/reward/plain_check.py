"""Scores the probes of an exported folder with nothing but transformers, in a process of its own.

Run as a file (`python plain_check.py <folder>`), so that nothing of this project is imported: it must see what
any other library would see. Prints one JSON line.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


def main(folder: Path) -> None:
    """Compare padded-batch and single scores with the ones stored beside the model."""
    torch.set_num_threads(1)
    loaded, info = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    if any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")):
        raise SystemExit(f"weights do not fit the class: {info}")
    if loaded.config.num_labels != 1:
        raise SystemExit(f"num_labels is {loaded.config.num_labels}, not 1")
    model, tokenizer = loaded.eval(), AutoTokenizer.from_pretrained(folder)
    probes = json.loads((folder / "probes.json").read_text())
    wanted = torch.tensor([p["score"] for p in probes])
    texts = [p["text"] for p in probes]
    with torch.inference_mode():
        batch = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
        batch.pop("token_type_ids", None)
        together = model(**batch).logits[:, 0].float()
        singles = [tokenizer(t, add_special_tokens=False, return_tensors="pt")["input_ids"] for t in texts]
        alone = torch.stack([model(input_ids=ids).logits[0, 0].float() for ids in singles])
    scale = 1 + wanted.abs()
    difference = max(((together - wanted).abs() / scale).max(), ((alone - wanted).abs() / scale).max())
    print(json.dumps({"difference": float(difference), "dtype": str(model.dtype), "probes": len(probes)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
