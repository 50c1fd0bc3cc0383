"""The task of evaluate.py: score the data once, build the sections, write the report."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from rlhf.data.source import RecordStream
from rlhf.evaluation.metrics.calibration import fit_temperature
from rlhf.evaluation.metrics.metrics import evaluate
from rlhf.evaluation.metrics.scored import Results
from rlhf.evaluation.perturbations import Perturbation
from rlhf.evaluation.report.section import Evaluation, Section
from rlhf.evaluation.report.write import Report, write_report
from rlhf.evaluation.score_pass import Entry, Pass, read_spools, results_from, write_spool
from rlhf.evaluation.score_source import Ensemble, ScoreSource
from rlhf.records import Comparison

SectionFunction = Callable[[Evaluation], Section | None]


@dataclass
class EvaluationRun:
    """Everything one report needs; `rlhf.assemble` builds it from the configuration.

    folder       the report
    scoring      the evaluated model, models beside it on the same completions, votes to labels; this process among all
    data         the records it is evaluated on; validation: those that temperatures may be fitted on, or None
    about, part  one line that says which data this is; which part of it
    shifts       name -> perturbation of the answers; shifted: name -> data that is shifted already, of which as many
                 records are read as are perturbed
    probes       name -> perturbation of the answers
    sections     name -> function that makes a section, in order
    learned      how many of some prompts (hashes) the evaluated models know from their training: counts by name
    samples, seed  of every interval
    wait         a barrier of the processes
    """

    folder: Path
    scoring: Pass
    data: RecordStream
    member_names: tuple[str, ...]
    sections: Mapping[str, SectionFunction]
    validation: RecordStream | None = None
    about: str = ""
    part: str = "test"
    shifts: Mapping[str, Perturbation] = field(default_factory=dict)
    shifted: Mapping[str, RecordStream] = field(default_factory=dict)
    probes: Mapping[str, Perturbation] = field(default_factory=dict)
    learned: Callable[[Collection[str]], Mapping[str, int]] = lambda _: {}
    samples: int = 1000
    seed: int = 0
    wait: Callable[[], None] = lambda: None

    def __call__(self) -> Report | None:
        """Score, and write the report in the first process; the others return None.

        Raises:
            ValueError: nothing to evaluate.
        """
        spools = self.folder / "scoring"
        spools.mkdir(parents=True, exist_ok=True)
        plain = replace(self.scoring, others=())
        main = replace(self.scoring, perturbations={**self.shifts, **self.probes})
        total = sum(1 for _ in self.data.records()) if main.perturbations else 0
        self._spool("main", main.entries(self.data.records(), total))
        uncalibrated = self._uncalibrated()
        if self.validation is not None and uncalibrated:
            beside = replace(plain, source=uncalibrated[0], others=uncalibrated[1:])
            self._spool("validation", beside.entries(self.validation.records()))
        for name, shifted in self.shifted.items():
            records = islice(shifted.records(), self.scoring.perturbed_records)
            self._spool(f"shift-{name}", plain.entries(records, name=name))
        counts = json.dumps(getattr(self.scoring.source, "counts", {}))
        (spools / f"counts-{self.scoring.rank}.json").write_text(counts)
        self.wait()
        if self.scoring.rank:
            return None
        evaluation = self._evaluation()
        shutil.rmtree(spools)
        made = [make(evaluation) for make in self.sections.values()]
        return write_report(self.folder, evaluation, [s for s in made if s is not None], self.about)

    def _evaluation(self) -> Evaluation:
        found = self._results("main")
        if not len(found.scored.reward):
            raise ValueError(
                f"no record of this data has anything to evaluate ({dict(found.counts)}): choose another part=, or "
                "the votes are missing"
            )
        read = sum((Counter(json.loads(p.read_text())) for p in self._files("counts", ".json")), Counter())
        found = replace(found, counts={**found.counts, **self.learned(set(found.prompt_hash)), **read})
        temperatures = self._temperatures()
        t = temperatures[self.scoring.source.name]
        shifts = {name: self._results("main", name) for name in self.shifts}
        shifts |= {name: self._results(f"shift-{name}", name) for name in self.shifted}
        uncalibrated = self._uncalibrated() if self.validation is None else []
        raw = [s.name for s in (*uncalibrated, *_inside(self.scoring.source)) if s.calibration is None]
        return Evaluation(
            name=self.scoring.source.name,
            results=found,
            temperature=t,
            metrics=evaluate(found.scored, temperature=t, bootstrap=self.samples, seed=self.seed),
            temperatures=temperatures,
            uncalibrated=frozenset(raw),
            shifts=shifts,
            probes={name: self._results("main", name) for name in self.probes},
            models=(self.scoring.source, *self.scoring.others),
            look_up=self._look_up,
            part=self.part,
            samples=self.samples,
            seed=self.seed,
        )

    def _uncalibrated(self) -> list[ScoreSource]:
        return [s for s in (self.scoring.source, *self.scoring.others) if s.calibration is None]

    def _temperatures(self) -> dict[str, float]:
        """Of every model and of the runs in an ensemble: its own, or fitted on the validation part, or 1."""
        models = (*_inside(self.scoring.source), self.scoring.source, *self.scoring.others)
        found = {s.name: 1.0 if s.calibration is None else s.calibration.temperature for s in models}
        uncalibrated = self._uncalibrated()
        if self.validation is None or not uncalibrated:
            return found
        held = self._results("validation")
        rewards = {uncalibrated[0].name: held.scored.reward, **held.others}
        for name, reward in rewards.items():
            difference = reward[held.scored.first] - reward[held.scored.second]
            found[name] = fit_temperature(difference, held.scored.win_prob)
        return found

    def _spool(self, name: str, entries: Iterable[Entry]) -> None:
        write_spool(self.folder / "scoring" / f"{name}-{self.scoring.rank}", entries)

    def _results(self, spool: str, name: str = "") -> Results:
        entries = read_spools(self._files(spool))
        return results_from((e for e in entries if e.name == name), self.member_names)

    def _files(self, name: str, suffix: str = "") -> list[Path]:
        """What every process left."""
        return [self.folder / "scoring" / f"{name}-{rank}{suffix}" for rank in range(self.scoring.world_size)]

    def _look_up(self, numbers: Collection[int]) -> Mapping[int, Comparison]:
        wanted = set(numbers)
        return {n: record for n, record in enumerate(self.data.records()) if n in wanted}


def _inside(source: ScoreSource) -> Sequence[ScoreSource]:
    """The runs that an ensemble is made of."""
    return source.sources if isinstance(source, Ensemble) else ()
