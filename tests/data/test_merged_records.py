"""Records of one prompt become one: nothing said about them is lost, and training sees the same comparisons."""

import random
from dataclasses import replace
from functools import partial
from itertools import permutations

import numpy as np
import pytest
import torch
from reward_modules import build_module

from rlhf.data import merge as merging
from rlhf.data.augment import AS_THEY_ARE
from rlhf.data.batch import Batch
from rlhf.data.blocks import GroupLimits
from rlhf.data.collate import BlockRows, collate
from rlhf.data.datamodule import PreferenceData
from rlhf.data.merge import Merger, merge
from rlhf.data.order import Block, BlockOrder, GroupOrder
from rlhf.data.prepare import Grouping, Preparation
from rlhf.data.render import Renderer
from rlhf.data.splits import HashSplit
from rlhf.data.store import Rows, write_store
from rlhf.data.token_layout import padded
from rlhf.data.weighing import pairs, prompts
from rlhf.labels.aggregation import soft
from rlhf.models.pretrained import Tiny
from rlhf.records import Comparison, Completion, Vote
from rlhf.reward.listwise import observations
from rlhf.reward.losses import (
    LearnedDavidson,
    LearnedRaoKupper,
    centring,
    dpo,
    pairwise,
    pick_best,
    plackett_luce,
    ranking,
    regression,
    soft_label,
)  # fmt: skip
from rlhf.reward.module import mean_loss, units_of, weighing_of

TEXTS = [f"answer {n} " + "x" * n for n in range(7)]


def pair(i, j, choice=0, *, prompt="Why?", name=None, ids=("a", "b"), who="w", **more):
    completions = (Completion(ids[0], TEXTS[i]), Completion(ids[1], TEXTS[j]))
    winner = "tie" if choice == "tie" else ids[choice]
    vote = Vote(who, pair=ids, choice=winner, **more)
    return Comparison(name or f"{prompt}-{i}-{j}", prompt, completions, (vote,))


def all_pairs(k=5, prompt="Why?"):
    rng = random.Random(prompt)
    made = [
        pair(i, j, rng.choice([0, 1, "tie"]), prompt=prompt, margin=rng.random()) for i in range(k) for j in range(i)
    ]
    return rng.sample(made, len(made))


class Held:
    """Records as a source."""

    skipped_count = 0

    def __init__(self, *records):
        self.skipped = []
        self.kept = records
        self.fingerprint = repr(records)

    def records(self):
        return iter(self.kept)


@pytest.fixture(scope="module")
def renderer():
    return Renderer(Tiny().tokenizer(), max_length=80, min_prompt=5)


def prepared(renderer, *records, merge=True, most=100, aggregation=soft, augment=AS_THEY_ARE):
    grouping = Grouping(merge, GroupLimits(most) if merge else None)
    work = Preparation(Held(*records), aggregation, soft, HashSplit(val=0, test=0), renderer, augment, grouping)
    return [row for _, row in work.rows()], work.as_dict()


def columns(rows):
    names = rows[0].keys()
    return {name: [row[name] for row in rows] for name in names} | {"row": list(range(len(rows)))}


def batch_of(rows) -> Batch:
    return collate(columns(rows), layout=partial(padded, pad_id=0), denominator=1.0)


# ------------------------------------------------------------------------------------------------ records


def test_texts_are_kept_once_with_all_votes_and_ids_that_can_be_traced():
    first, second = pair(0, 1, 0, name="p1"), pair(0, 2, 1, name="p2")
    found = merge([first, second])
    assert [c.text for c in found.record.completions] == [TEXTS[0], TEXTS[1], TEXTS[2]]
    assert [c.id for c in found.record.completions] == ["a", "b", "p2/b"]
    assert [v.choice for v in found.record.votes] == ["a", "p2/b"]
    assert [v.pair for v in found.record.votes] == [("a", "b"), ("a", "p2/b")]
    assert [(r.prompt_id, places) for r, places in found.parts] == [("p1", (0, 1)), ("p2", (0, 2))]


def test_every_form_of_vote_keeps_what_it_says():
    texts = tuple(Completion(f"x{n}", TEXTS[n]) for n in (2, 0, 1))
    votes = (
        Vote("r", ranking=(("x1",), ("x0", "x2"))),
        Vote("l", likert={"x0": 2.0, "x2": 5.0}, criterion="style"),
        Vote("g", pair=("x0", "x1"), choice="x1", gold=True),
        Vote("p", pair=("x0", "x2"), choice="x0", p=0.7, margin=0.5),
        Vote("t", pair=("x0", "x1"), choice="tie"),
    )
    found = merge([pair(0, 1), Comparison("many", "Why?", texts, votes)]).record
    ids = {c.text: c.id for c in found.completions}
    old = {f"x{n}": ids[TEXTS[n]] for n in range(3)}
    ranked, rated, gold, sure, tied = found.votes[1:]
    assert ranked.ranking == ((old["x1"],), (old["x0"], old["x2"]))
    assert rated.likert == {old["x0"]: 2.0, old["x2"]: 5.0}
    assert gold.gold
    assert gold.choice == old["x1"]
    assert (sure.p, sure.margin, sure.choice) == (0.7, 0.5, old["x0"])
    assert tied.choice == "tie"


def test_equal_texts_inside_a_record_stay_apart():
    twice = Comparison("twice", "Why?", (Completion("a", TEXTS[0]), Completion("b", TEXTS[0])), ())
    found = merge([twice, pair(0, 1)])
    assert [c.text for c in found.record.completions] == [TEXTS[0], TEXTS[0], TEXTS[1]]
    assert found.parts[1][1] == (0, 2)


def merged_groups(*records):
    merger = Merger(records)
    kept = [r for r in records if not merger.takes(r)]
    return kept, [g.record for g in merger.merged()]


def test_prompts_are_compared_by_their_messages_and_domain_not_by_their_hash():
    chat = ({"role": "user", "content": "Why?"},)
    records = [
        pair(0, 1, prompt="Why?"), pair(1, 2, prompt="why?"), pair(2, 3, prompt=chat), pair(3, 4, prompt="  Why?"),
        replace(pair(4, 5, prompt="Why?"), domain="law"),
    ]  # fmt: skip
    kept, groups = merged_groups(*records)
    assert not kept
    assert sorted(len(g.completions) for g in groups) == [2, 2, 2, 4]
    assert next(g for g in groups if len(g.completions) == 4).prompt == "Why?"


def test_single_records_keep_their_place_and_nothing_is_written_for_them(monkeypatch):
    records = [pair(0, 1, prompt=f"question {n}") for n in range(50)]
    monkeypatch.setattr(merging.tempfile, "TemporaryFile", None)
    kept, groups = merged_groups(*records)
    assert kept == records
    assert groups == []


def test_memory_holds_one_bucket(monkeypatch):
    records = [r for n in range(200) for r in all_pairs(3, prompt=f"question {n}")]
    held = []
    whole = merging.merge
    monkeypatch.setattr(merging, "merge", lambda some: held.append(len(some)) or whole(some))
    merger = Merger(records)
    assert all(merger.takes(r) for r in records)
    sizes = [file.tell() for file in merger._files]
    assert max(sizes) < 0.08 * sum(sizes), "spread over the buckets"
    assert sum(1 for _ in merger.merged()) == 200
    assert sum(held) == len(records)


def test_a_prompt_of_any_size_is_merged_piece_by_piece(monkeypatch):
    monkeypatch.setattr(merging, "LARGEST", 4)
    records = all_pairs(7)
    _, groups = merged_groups(*records)
    assert max(len(g.completions) for g in groups) <= 5, "one record more at most"
    texts = [{c.id: c.text for c in g.completions} for g in groups]
    found = sorted(sorted(t[i] for i in v.pair) for g, t in zip(groups, texts, strict=True) for v in g.votes)
    assert found == sorted(sorted(c.text for c in r.completions) for r in records)


# --------------------------------------------------------------------------------------------------- rows


def test_a_long_answer_costs_the_others_of_its_prompt_nothing(renderer):
    prompt = "Why is that so? " * 2
    long = pair(0, 1, prompt=prompt, name="long")
    long = replace(long, completions=(long.completions[0], replace(long.completions[1], text="y" * 60)))
    longer = replace(long, prompt_id="longer", completions=(Completion("a", TEXTS[2]), Completion("b", "z" * 60)))
    records = [pair(0, 1, prompt=prompt), long, pair(1, 2, prompt=prompt), longer]
    (whole, trimmed), report = prepared(renderer, *records)
    singles = prepared(renderer, *records, merge=False)[0]
    assert [len(row["records"]) for row in (whole, trimmed)] == [2, 2]
    assert len(trimmed["prompt"]) < len(whole["prompt"]), "or nothing is shown"
    assert whole["prompt"] == singles[0]["prompt"]
    assert trimmed["prompt"] == singles[1]["prompt"] == singles[3]["prompt"]
    assert report["merge/records_before"] == 4


def test_data_without_repeated_prompts_has_the_same_rows(renderer):
    records = [pair(n % 5, 5, prompt=f"question {n}") for n in range(20)]
    assert prepared(renderer, *records)[0] == prepared(renderer, *records, merge=False)[0]


def test_the_report_counts_what_merging_saves(renderer):
    records = [*all_pairs(5), *all_pairs(4, prompt="How?"), pair(0, 1, prompt="Alone?")]
    rows, report = prepared(renderer, *records)
    found = {k: v for k, v in report.items() if k.startswith("merge/")}
    assert found == {
        "merge/records_before": 17, "merge/records_after": 3, "merge/encodings_before": 34,
        "merge/encodings_after": 11, "merge/pairs": 17, "merge/pairs_left_out_per_epoch": 0,
    }  # fmt: skip
    assert {name for row in rows for name in row["records"]} == {r.prompt_id for r in records}
    plain = prepared(renderer, *records, merge=False)[1]
    assert plain["merge/records_after"] == 17
    assert plain["merge/encodings_after"] == 34


def test_a_large_group_says_what_an_epoch_leaves_out(renderer):
    report = prepared(renderer, *all_pairs(6), most=3)[1]
    assert report["merge/pairs_left_out_per_epoch"] == pytest.approx(15 - 6, abs=0.1)


# ------------------------------------------------------------------------------------------------- losses

PAIR_LOSSES = {
    "pairwise": pairwise, "soft_label": soft_label, "smoothed": partial(soft_label, label_smoothing=0.1),
    "davidson": LearnedDavidson(), "rao_kupper": LearnedRaoKupper(), "dpo": partial(dpo, beta=0.3),
}  # fmt: skip


def total(loss, batch, reward_of):
    """The loss of a batch: mean per judged pair, with its gradient by text."""
    reward_of = reward_of.clone().requires_grad_()
    lengths = torch.tensor([len(t) for t in TEXTS])
    which = torch.stack([torch.nonzero(lengths == n)[0, 0] for n in batch.length])
    reward = batch.unflatten(reward_of[which])
    value = loss(reward, batch.target).sum() / batch.target.pairs.sum()
    return value, torch.autograd.grad(value, reward_of)[0]


def double(batch):
    target = batch.target
    fields = {k: v.double() if v.is_floating_point() else v for k, v in vars(target).items()}
    return replace(batch, target=type(target)(**fields))


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_loss_and_gradient_are_those_of_the_unmerged_records(renderer, name):
    records = [*all_pairs(5), pair(0, 1, prompt="Alone?")]
    reward = torch.randn(len(TEXTS), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    merged, single = (double(batch_of(prepared(renderer, *records, merge=m)[0])) for m in (True, False))
    for ours, theirs in zip(
        total(PAIR_LOSSES[name], merged, reward), total(PAIR_LOSSES[name], single, reward), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_a_pair_of_two_records_counts_twice(renderer):
    records = [pair(0, 1, 0), pair(0, 1, 1, name="again"), pair(1, 2, 0)]
    reward = torch.randn(len(TEXTS), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    merged, single = (double(batch_of(prepared(renderer, *records, merge=m)[0])) for m in (True, False))
    assert merged.target.pairs.tolist() == [3.0]
    for ours, theirs in zip(total(soft_label, merged, reward), total(soft_label, single, reward), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_a_step_of_training_is_that_of_the_unmerged_records(renderer):
    module = build_module(centring_weight=0.05).double()
    torch.nn.init.normal_(module.model.head.weight, std=0.1)
    records = [*all_pairs(5), pair(0, 1, prompt="Alone?")]
    gradients, losses = [], []
    for together in (True, False):
        batch = double(batch_of(prepared(renderer, *records, merge=together)[0]))
        loss = module.step_loss(batch)
        gradients.append(torch.autograd.grad(loss, list(module.parameters()), allow_unused=True))
        losses.append(loss)
    torch.testing.assert_close(losses[0], losses[1], atol=1e-6, rtol=0)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)  # the trunk's norms compute in single precision
    assert max(float(g.abs().max()) for g in gradients[0] if g is not None) > 0.01


def test_ranking_is_the_mean_over_the_prompts_pairs(renderer):
    batch = double(batch_of(prepared(renderer, *all_pairs(5))[0]))
    reward = torch.randn(1, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ranking(reward, batch.target), soft_label(reward, batch.target) / 10)
    assert centring(reward, batch.target).shape == (1,)


def test_listwise_losses_see_one_ranking_and_regression_all_ratings(renderer):
    records = [
        Comparison(f"r{i}", "Why?", tuple(Completion(f"c{n}", TEXTS[n]) for n in places), (vote,))
        for i, (places, vote) in enumerate(
            [
                ((0, 1, 2), Vote("w", ranking=(("c0",), ("c1",), ("c2",)))),
                ((2, 3), Vote("w", likert={"c2": 4.0, "c3": 2.0}, criterion="overall")),
            ]
        )
    ]
    rows, _ = prepared(renderer, *records, aggregation=partial(soft, attributes=["overall"]))
    batch = double(batch_of(rows))
    reward = torch.zeros(1, 4, dtype=torch.float64)
    assert float(regression(reward, batch.target)) == pytest.approx((16 + 4) / 2)
    for loss in (plackett_luce, pick_best):
        assert float(loss(reward, batch.target)) > 0


@pytest.mark.parametrize("loss", [plackett_luce, pick_best])
def test_a_listwise_loss_of_merged_records_is_the_sum_of_theirs(renderer, loss):
    """Two records rank the same texts, another one some of them, one compares a pair that was ranked."""
    votes = [
        ranks(0, 1, 2), ranks(2, 1, 0), ranks(4, 2, 3), Vote("w", pair=("c0", "c1"), choice="c1"),
        Vote("w", pair=("c5", "c4"), choice="tie"),
    ]  # fmt: skip
    named = [[0, 1, 2], [0, 1, 2], [2, 3, 4], [0, 1], [4, 5]]
    records = [
        Comparison(f"r{n}", "Why?", tuple(Completion(f"c{i}", TEXTS[i]) for i in places), (vote,))
        for n, (places, vote) in enumerate(zip(named, votes, strict=True))
    ]
    reward = torch.randn(len(TEXTS), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    merged, single = (double(batch_of(prepared(renderer, *records, merge=m)[0])) for m in (True, False))
    values = [loss(batch.unflatten(reward[order_of(batch)]), batch.target).sum() for batch in (merged, single)]
    torch.testing.assert_close(*values, atol=1e-6, rtol=0)
    assert [float(observations(batch.target).sum()) for batch in (merged, single)] == [5, 5]


def ranks(*order):
    return Vote("w", ranking=tuple((f"c{i}",) for i in order))


def order_of(batch):
    """Which of the texts each completion of a batch is."""
    return torch.tensor([[len(t) for t in TEXTS].index(n) for n in batch.length.tolist()])


# -------------------------------------------------------------------------------------------- cut groups


def loader(cache, renderer, *records, most=3, **settings):
    options = {"batch_size": 2, "eval_batch_size": 4, "seed": 0, "weighing": pairs} | settings
    others = [pair(0, 1, prompt=f"other {n}") for n in range(60)]
    data = PreferenceData(
        source=Held(*records, *others), aggregation=soft, splitter=HashSplit(val=0.2, test=0.2), renderer=renderer,
        cache=cache, grouping=Grouping(True, GroupLimits(most, options.get("batch_tokens"))), **options,
    )  # fmt: skip
    data.setup()
    return data


def large(k=7):
    """Records of a prompt that trains."""
    prompt = next(p for n in range(99) if HashSplit(0.2, 0.2).split_of(pair(0, 1, prompt=(p := f"big {n}"))) == "train")
    return all_pairs(k, prompt=prompt)


def test_the_expected_gradient_of_blocks_is_that_of_the_whole(tmp_path, renderer):
    whole, cut = (loader(tmp_path, renderer, *large(), most=n) for n in (100, 3))
    weights = torch.randn(len(TEXTS), dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def epoch(data, number):
        batches = data.train_dataloader()
        batches.sampler.set_epoch(number)
        found = []
        for batch in batches:
            big = double(batch)
            reward_of = weights.clone().requires_grad_()
            which = torch.tensor([[len(t) for t in TEXTS].index(n) for n in big.length.tolist()])
            value = soft_label(big.unflatten(reward_of[which]), big.target).sum() / batch.denominator / len(batches)
            found.append(torch.autograd.grad(value, reward_of)[0])
        return torch.stack(found).sum(0)

    draws = torch.stack([epoch(cut, n) for n in range(120)])
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - epoch(whole, 0)).abs() <= 4.5 * error + 1e-9).all()


def counted(loss, reward, target):
    """What a group adds to the summed loss."""
    return (mean_loss(loss, reward, target) * units_of(target, weighing_of(loss, pairs))).sum()


@pytest.mark.parametrize("loss", [soft_label, ranking, plackett_luce, partial(pick_best)])
def test_the_mean_over_all_permutations_is_the_loss_of_all_pairs(tmp_path, renderer, monkeypatch, loss):
    """Exactly, where not all pairs were judged and some were judged twice."""
    dense = [pair(i, j, i % 2, prompt="Why?", name=f"{i}{j}") for i in range(5) for j in range(i) if (i, j) != (4, 0)]
    rows, _ = prepared(renderer, *dense, pair(3, 1, 0, name="again"), most=3)
    reward = torch.randn(1, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    file = tmp_path / "store"
    write_store(file, (("train", row) for row in rows), dict)
    stored = Rows(file / "train.arrow")
    whole = double(batch_of(rows)).target
    orders, found = list(permutations(range(5))), 0
    for order in orders:
        monkeypatch.setattr(np.random, "default_rng", lambda _, o=order: Fixed(o))
        blocks = BlockOrder(GroupOrder(2, batch_size=2, seed=0), np.array([2]), np.array([5]))
        (batch,) = list(blocks)
        columns = BlockRows(stored)[batch]
        target = double(collate(columns, layout=partial(padded, pad_id=0), denominator=1.0)).target
        own = torch.zeros(2, 3, dtype=torch.float64)
        for n, block in enumerate(batch):
            own[n, : len(block.places)] = reward[0, block.places]
        found += counted(loss, own, target) / len(orders)
    torch.testing.assert_close(found, counted(loss, reward, whole), atol=1e-6, rtol=0)
    rewards = torch.zeros_like(reward)
    assert float(mean_loss(loss, rewards, whole)) == pytest.approx(np.log(2)), "a coin's, whatever the number of pairs"


class Fixed:
    """A random generator that draws one permutation."""

    def __init__(self, order):
        self.order = order

    def permutation(self, k):
        return np.array(self.order)


def test_two_processes_see_the_blocks_of_one_with_twice_the_batch():
    def seen(batch_size, rank=0, world=1):
        order = GroupOrder(9, batch_size=batch_size, seed=3, rank=rank, world=world)
        order.set_epoch(2)
        return list(BlockOrder(order, np.array([1, 3, 2, 3]), np.array([2, 9, 5, 7])))

    one, parts = seen(4), [seen(2, rank, 2) for rank in (0, 1)]
    for step, blocks in enumerate(one[:-1]):
        both = [block for part in parts for block in part[step]]
        assert sorted(map(repr, both)) == sorted(map(repr, blocks))


def test_ratings_without_pairs_count_their_prompt_once_in_all_blocks(tmp_path, renderer):
    rated = {f"c{n}": float(n % 5 + 1) for n in range(6)}
    texts = tuple(Completion(name, TEXTS[n]) for n, name in enumerate(rated))
    votes = (Vote("w", likert=rated, criterion="style"), Vote("w", pair=("c0", "c1"), choice="c0", criterion="none"))
    label = partial(soft, criterion="other", attributes=["style"])
    rows, _ = prepared(renderer, Comparison("r", "Why?", texts, votes), most=3, aggregation=label)
    assert rows[0]["prompt_pairs"] == 0
    write_store(tmp_path / "store", (("train", row) for row in rows), dict)
    blocks = BlockRows(Rows(tmp_path / "store" / "train.arrow"))[[Block(0, [0, 3, 5], 2.0), Block(0, [1, 2, 4], 2.0)]]
    target = collate(blocks, layout=partial(padded, pad_id=0), denominator=1.0).target
    assert float((units_of(target, prompts) * target.weight).sum()) == pytest.approx(1)


def test_an_interrupted_epoch_of_blocks_goes_on_exactly(tmp_path, renderer):
    data = loader(tmp_path, renderer, *large())

    def seen(batches):
        return [(b.row.tolist(), b.length.tolist(), b.target.pair_weight.sum().item()) for b in batches]

    whole = seen(data.train_dataloader())
    first = data.train_dataloader()
    iterator = iter(first)
    for _ in range(3):
        next(iterator)
    data.resume = first.state_dict()
    assert seen(data.train_dataloader()) == whole[3:]


def test_batches_by_tokens_hold_blocks_within_the_budget(tmp_path, renderer):
    data = loader(tmp_path, renderer, *large(), most=100, batch_tokens=90)
    assert len({row for b in data.train_dataloader() for row in b.row.tolist()}) == len(data.rows["train"])
    counts = [int(n) for b in data.train_dataloader() for n in b.target.candidate.sum(1)]
    assert max(counts) < 7


@pytest.mark.parametrize("weighing", [pairs, prompts])
def test_a_model_that_knows_nothing_has_the_loss_of_a_coin(tmp_path, renderer, weighing):
    data = loader(tmp_path, renderer, *large(), most=4, weighing=weighing)
    batches = list(data.train_dataloader())
    module = build_module(weighing=weighing)
    module.model.head.weight.data.zero_()
    with torch.no_grad():
        losses = [
            float(module.step_loss(b)) * b.denominator / float(units_of(b.target, weighing).sum()) for b in batches
        ]
    assert losses == pytest.approx([np.log(2)] * len(losses), abs=1e-5)
    units = sum(float(units_of(b.target, weighing).sum()) for b in batches)
    assert units == pytest.approx(batches[0].denominator * len(batches), rel=0.35)


def test_prompts_count_once_however_many_blocks_they_have(renderer):
    rows, _ = prepared(renderer, *all_pairs(5), pair(0, 1, prompt="Alone?"))
    target = batch_of(rows).target
    assert units_of(target, pairs).tolist() == [1.0, 10.0]
    assert units_of(target, prompts).tolist() == [1.0, 1.0]


def test_what_nobody_judged_is_not_encoded_beside_what_somebody_did(renderer):
    """A file with open tasks: a voted pair per prompt, and answers that wait for votes."""
    asked = [f"Question {n}?" for n in range(6)]
    voted = [pair(0, 1, prompt=prompt) for prompt in asked]
    waiting = [replace(pair(i, i + 1, prompt=prompt), votes=()) for prompt in asked for i in (2, 3, 4)]
    (merged, told), (alone, expected) = (prepared(renderer, *voted, *waiting, merge=m) for m in (True, False))
    assert [len(row["responses"]) for row in merged] == [len(row["responses"]) for row in alone] == [2] * 6
    for key in ("merge/encodings_before", "merge/encodings_after", "merge/records_before"):
        assert told[key] == expected[key]
    for key in ("records", "kept", "dropped/no_votes"):
        assert told["rows"]["train"][key] == expected["rows"]["train"][key], key
    assert told["rows"]["train"]["dropped/no_votes"] == 18
