"""Small annotation projects and people who answer at random."""

from dataclasses import replace

from rlhf.annotate.session import AnnotationPlan, Session
from rlhf.annotate.store import Store
from rlhf.toy.world import ToyWorld


def tasks(size=10, k=2):
    return [replace(r, votes=()) for r in ToyWorld(size=size, min_completions=k, max_completions=k).records()]


def project(tmp_path, records=None, pause=0.0, **plan):
    plan = {"gold_share": 0.0} | plan
    session = Session(Store(f"sqlite:///{tmp_path}/p.db"), AnnotationPlan(**plan), pause)
    session.load(tasks() if records is None else records)
    return session


def person(session, name):
    return session.store.person(session.store.link(name))


def some_answer(item, rng):
    slots = [s["slot"] for s in item["slots"]]
    if item["form"] == "pair":
        return {"choice": rng.choice([*slots, "tie"])}
    if item["form"] == "ranking":
        rng.shuffle(slots)
        return {"ranking": [[s] for s in slots]}
    return {"likert": {c: {s: rng.randint(1, 5) for s in slots} for c in item["criteria"]}}


def work(session, who, rng, limit=10_000):
    for done in range(limit):
        item = session.next(who)
        if item["done"]:
            return done
        session.answer(who, {"assignment": item["assignment"], "answer": some_answer(item, rng), "seconds": 1})
    return limit
