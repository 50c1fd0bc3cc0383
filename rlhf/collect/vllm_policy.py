"""Completions by vLLM for throughput on GPUs (extra `vllm`); same seeds, same provenance."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf.collect.decoding import Decoding
from rlhf.collect.sampling import Draft
from rlhf.collect.transformers_policy import fingerprint
from rlhf.records import Prompt, as_messages


@dataclass
class VllmPolicy:
    """A causal language model in vLLM's offline engine.

    vLLM batches across prompts, so a completion may change in its last bits with the batch; seeds per completion keep
    it from changing for any other reason. Not tested without a GPU.

    Args:
        path: folder or hub id.
        max_new_tokens: length limit of an answer.
        stop: texts that end an answer.
        engine: further options of `vllm.LLM` (tensor_parallel_size, dtype, gpu_memory_utilization, ...).
    """

    path: str
    max_new_tokens: int = 256
    stop: Sequence[str] = ()
    engine: dict[str, Any] = field(default_factory=dict)
    _llm: Any = field(default=None, init=False, repr=False)

    @property
    def provenance(self) -> dict[str, Any]:
        """Name and a fingerprint of the weights."""
        local = Path(self.path).is_dir()
        return {"model": Path(self.path).name, "checkpoint": fingerprint(self.path) if local else self.path}

    def answer(self, prompt: Prompt, decoding: Decoding, seeds: Sequence[int]) -> list[Draft]:
        """One answer per seed; all of them in one batch."""
        try:
            from vllm import LLM, SamplingParams
        except ImportError as error:
            raise ImportError("backend=vllm needs a GPU and: pip install 'preference-reward-models[vllm]'") from error
        if self._llm is None:
            self._llm = LLM(model=self.path, **self.engine)
        parameters = [
            SamplingParams(
                temperature=decoding.temperature, top_p=decoding.top_p, top_k=decoding.top_k or -1,
                min_p=decoding.min_p, max_tokens=self.max_new_tokens, stop=list(self.stop), seed=seed,
            )
            for seed in seeds
        ]  # fmt: skip
        outputs = self._llm.chat([as_messages(prompt)] * len(seeds), parameters, use_tqdm=False)
        answers = [output.outputs[0] for output in outputs]
        return [Draft(a.text.strip(), a.finish_reason == "stop", len(a.token_ids)) for a in answers]
