"""Reward functions for OpenRLHF and verl, which ask the scoring service; this file stands alone and can be copied.

    OpenRLHF, commit 3c3be62 (13 August 2026)
        --reward.remote_url <this file> --data.label_key label         calls reward_func(queries, prompts, labels)
    verl, commit 1dda039 (22 August 2026)
        reward.custom_reward_function.path=<this file>                 calls compute_score(data_source, ...)

Both need the prompt as it was before the policy's chat template: under `label`, and in `extra_info`, where
`rlhf.serve.interop.prompts` writes it. So policy and reward model may have different templates. Rewards are
`normalised`. Two variables of the environment say the rest:

    RLHF_SERVICE       address of `python -m rlhf.serve`, http://127.0.0.1:8100 by default
    RLHF_END_TOKENS    end tokens of the policy, separated by spaces, `<|im_end|> <|endoftext|>`: OpenRLHF leaves them
                       in its texts, and the reward model is to see the answer only
"""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

TIMEOUT = 180
"""Seconds for an answer, as OpenRLHF waits for its own servers."""


def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **_: Any) -> dict[str, Any]:
    """OpenRLHF's reward function.

    Args:
        queries: prompt and answer as one text, special tokens included.
        prompts: the rendered prompts that the queries begin with.
        labels: the prompts before they were rendered: a text, or the JSON of a chat's messages.

    Returns:
        rewards, scores: normalised rewards [N]; extra_logs: raw rewards [N].

    Raises:
        ValueError: a query does not begin with its prompt (it was cut at the front: lower the prompt's length).
        RuntimeError: the service refuses; the message says why and holds no text.
    """
    import torch

    groups = []
    for number, (query, prompt, label) in enumerate(zip(queries, prompts, labels, strict=True)):
        if not query.startswith(prompt):
            raise ValueError(f"queries[{number}] does not begin with its prompt: was the prompt cut at the front?")
        groups.append({"prompt": _prompt(label), "completions": [_without_end(query[len(prompt) :])]})
    found = _ask("/score_batch", {"groups": groups})["groups"]
    rewards = torch.tensor([group["normalised"][0] for group in found])
    return {
        "rewards": rewards,
        "scores": rewards,
        "extra_logs": {"raw_reward": torch.tensor([group["scores"][0] for group in found])},
    }


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: dict[str, Any] | None = None, **_: Any
) -> dict[str, float]:
    """Verl's reward function for one answer.

    Args:
        data_source: is not looked at; nor is `ground_truth`.
        solution_str: the answer, without special tokens.
        ground_truth: of the set; a reward model needs none.
        extra_info: `prompt`, a text or the JSON of a chat's messages.

    Returns:
        score: normalised reward; raw_reward.

    Raises:
        KeyError: `extra_info` has no prompt.
        RuntimeError: as `reward_func`.
    """
    body = {"prompt": _prompt((extra_info or {})["prompt"]), "completions": [solution_str]}
    found = _ask("/score", body)
    return {"score": found["normalised"][0], "raw_reward": found["scores"][0]}


def _prompt(written: Any) -> Any:
    """A text as it is; messages from their JSON, or from whatever a table made of a list."""
    if not isinstance(written, str):
        return [dict(turn) for turn in written]
    if not written.startswith("[{"):
        return written
    try:
        return json.loads(written)
    except json.JSONDecodeError:
        return written


def _without_end(text: str) -> str:
    for token in os.environ.get("RLHF_END_TOKENS", "").split():
        text = text.removesuffix(token)
    return text.strip()


def _ask(route: str, body: dict[str, Any]) -> Any:
    address = os.environ.get("RLHF_SERVICE", "http://127.0.0.1:8100").rstrip("/") + route
    request = urllib.request.Request(
        address, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{address} answered {error.code}: {json.load(error)['error']}") from None
    except urllib.error.URLError as error:
        raise RuntimeError(f"{address}: {error.reason} (RLHF_SERVICE=<address of python -m rlhf.serve>)") from None
