"""A policy of the toy world with a handful of parameters: it decides on the qualities of its answer, not on tokens.

The answer's text is then composed as the toy world does, in the same way for policy and reference, so KL and
log-probabilities are those of the decisions: exact, and cheap enough for experiments over many seeds. Rewards still
read the text.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.nn.utils.rnn import pad_sequence

from rlhf.collect.decoding import Decoding
from rlhf.collect.prompts import Task
from rlhf.optimise.policy.rollout import Rollout
from rlhf.optimise.shaping.rules import Completions
from rlhf.records import Prompt
from rlhf.toy.gold import ToyGold, read_qualities
from rlhf.toy.texts import DOMAINS, answer
from rlhf.toy.world import QUALITIES

START = {"correct": 0.1, "polite": -0.4, "hedged": -0.85, "repetitive": -2.0, "off_topic": -2.6}
"""Log-odds of the reference, as of `rlhf.toy.source.ToyPolicy` between easy and hard tasks."""
PADDING = (0.5, 0.3, 0.15, 0.05)
"""Probabilities of 0, 1, 2, 3 sentences that only add length; more have EXTRA of the one before."""
EXTRA = 0.2


class TabularPolicy(nn.Module):
    """Decides, per domain, on every quality of an answer independently.

    Args:
        gold: knows the tasks of the prompts.
        longest: sentences that only add length, at most.
    """

    def __init__(self, gold: ToyGold, *, longest: int = 8) -> None:
        super().__init__()
        self.gold, self.most = gold, longest + 1
        shares = [PADDING[min(n, 3)] * EXTRA ** max(0, n - 3) for n in range(self.most)]
        start = torch.full((len(QUALITIES), self.most), -torch.inf)
        for row, name in enumerate(QUALITIES):
            odds = [0.0, START[name]] if name in START else torch.tensor(shares).log().tolist()
            start[row, : len(odds)] = torch.tensor(odds)
        self.allowed = torch.isfinite(start)
        self.logits = nn.Parameter(start.masked_fill(~self.allowed, 0.0).repeat(len(DOMAINS), 1, 1))
        self.register_buffer("start", self.logits.detach().clone())

    def table(self, reference: bool = False) -> Float[Tensor, "D Q V"]:
        """Log-probabilities of every decision, by domain and quality."""
        logits = self.get_buffer("start") if reference else self.logits
        return logits.masked_fill(~self.allowed, -torch.inf).log_softmax(-1)

    def kl(self, domains: Sequence[str | None]) -> float:
        """KL(policy || reference) in nats, exact, averaged over prompts of these domains."""
        own, ref = self.table().detach(), self.table(reference=True)
        per_domain = (own.exp() * torch.where(self.allowed, own - ref, 0.0)).sum((1, 2))
        return float(per_domain[_codes(domains)].mean())

    def expected_gold(self, domains: Sequence[str | None], *, reference: bool = False) -> float:
        """Mean gold reward of the policy over prompts of these domains: exact, summed over all decisions."""
        chance = self.table(reference).detach().exp()
        shares = [chance[:, q, :width] for q, width in enumerate(self.worth.shape[1:])]
        per_domain = torch.einsum("da,db,dc,de,df,dg,dabcefg->d", *shares, self.worth)
        return float(per_domain[_codes(domains)].mean())

    @cached_property
    def worth(self) -> Float[Tensor, "D 2 2 2 V 2 2"]:
        """Gold reward of every combination of decisions, read from a text that was composed of it."""
        known: dict[str, Prompt] = {}
        for record in self.gold.world.records():
            known.setdefault(str(record.domain), record.prompt)
        shape = [self.most if name == "verbose" else 2 for name in QUALITIES]
        rows = []
        for domain in DOMAINS:
            if domain not in known:
                rows.append(torch.full(shape, torch.nan))
                continue
            task = self.gold.task(known[domain])[0]
            made = (dict(zip(QUALITIES, map(float, place), strict=True)) for place in np.ndindex(*shape))
            texts = [answer(task, qualities, lambda n: 0) for qualities in made]
            rows.append(torch.tensor(self.gold([known[domain]] * len(texts), texts)).view(shape))
        return torch.stack(rows)

    @torch.no_grad()
    def rollout(
        self, tasks: Sequence[Task], g: int, *, reference: bool = False, decoding: Decoding | None = None
    ) -> Rollout:
        """G completions per prompt. Of a decoding only the temperature counts, as in `rlhf.toy.source`."""
        known = [self.gold.task(t.prompt) for t in tasks for _ in range(g)]
        domain = _codes([d for _, d, _ in known])
        logp, heat = self.table(reference)[domain], 1.0 if decoding is None else decoding.temperature
        if heat == 0:
            chosen = logp.argmax(-1)
        else:
            chances = (logp / heat).softmax(-1)
            chosen = torch.multinomial(chances.flatten(0, 1), 1).view(len(domain), len(QUALITIES))
        rng = np.random.default_rng(int(torch.randint(2**31, (1,))))
        texts = []
        for (task, _, _), row in zip(known, chosen.tolist(), strict=True):
            qualities = dict(zip(QUALITIES, map(float, row), strict=True))
            texts.append(answer(task, qualities, lambda n: int(rng.integers(n))))
        group = torch.arange(len(tasks)).repeat_interleave(g)
        mask = torch.ones_like(chosen, dtype=torch.bool)
        return Rollout(as_words(texts), group, mask, (domain, chosen))

    def trimmed(self, tasks: Sequence[Task]) -> int:
        """None: it reads no tokens."""
        return 0

    @property
    def width(self) -> int:
        """Of `states`."""
        return len(QUALITIES) * (len(DOMAINS) + self.most)

    def logp(self, rollout: Rollout, rows: Int[Tensor, " M"] | None = None) -> Float[Tensor, "B Q"]:
        """Log-probabilities of the decisions."""
        domain, chosen = rollout.state
        return self._taken(self.table(), (domain, chosen) if rows is None else (domain[rows], chosen[rows]))

    @torch.no_grad()
    def states(self, rollout: Rollout) -> Float[Tensor, "B Q H"]:
        """Before every decision: domain and place (one of D · Q), and the decisions made before it (Q · V, one-hot).

        A value that is linear in them is one number per domain and place, plus what each decision so far is worth.
        """
        domain, chosen = rollout.state
        places, count = len(QUALITIES), len(domain)
        here = one_hot(domain[:, None] * places + torch.arange(places), places * len(DOMAINS))
        made = one_hot(chosen, self.most)[:, None].expand(-1, places, -1, -1)
        before = torch.ones(places, places, dtype=torch.bool).tril(-1)
        made = torch.where(before[None, :, :, None], made, 0).reshape(count, places, -1)
        return torch.cat([here, made], 2).float()

    def ref_logp(self, rollout: Rollout) -> Float[Tensor, "B Q"]:
        """The same under the reference."""
        return self._taken(self.table(reference=True), rollout.state)

    def recall(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> Rollout:
        """Answers that were given before, as a rollout: their decisions are read from the texts."""
        known = [self.gold.task(prompt) for prompt in prompts]
        domain = _codes([d for _, d, _ in known])
        read = [read_qualities(task, text) for (task, _, _), text in zip(known, texts, strict=True)]
        chosen = torch.tensor([[min(int(q[name]), self.most - 1) for name in QUALITIES] for q in read])
        mask = torch.ones_like(chosen, dtype=torch.bool)
        return Rollout(as_words(texts), torch.arange(len(texts)), mask, (domain, chosen))

    def _taken(self, table: Tensor, state: Any) -> Tensor:
        domain, chosen = state
        return table[domain].gather(2, chosen[..., None])[..., 0]


def _codes(domains: Sequence[str | None]) -> Int[Tensor, " N"]:
    names = list(DOMAINS)
    return torch.tensor([names.index(domain or "") for domain in domains])


def as_words(texts: Sequence[str]) -> Completions:
    """Texts as rules see them, a word being a token; all of them have ended by themselves."""
    words = [text.split() for text in texts]
    ids = {w: i for i, w in enumerate(dict.fromkeys(w for row in words for w in row))}
    rows = [torch.tensor([ids[w] for w in row], dtype=torch.long) for row in words]
    tokens = pad_sequence(rows, batch_first=True)
    tokens = tokens if tokens.shape[1] else tokens.new_zeros(len(texts), 1)
    mask = torch.arange(tokens.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    return Completions(tokens, mask, torch.ones(len(texts), dtype=torch.bool), texts)
