"""`annotator=web`: the project on disk, served to people, and its votes written out."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path

from rlhf.annotate.job import Job
from rlhf.annotate.session import AnnotationPlan, Session
from rlhf.annotate.store import Store
from rlhf.records import RecordError, read, write


@dataclass(frozen=True)
class Web(AnnotationPlan):
    """People annotate in their browsers.

    Args:
        form, strengths, criteria, scale, overlap, gold_share, lease_hours, seed: see `AnnotationPlan`.
        pause: see `Session`.
        people: names; each gets a link that stays the same when the server is started again.
        store: database URL; sqlite:///<out>.db by default.
        guidelines: text file shown beside every task.
        gold: file of records with `meta.gold`, mixed in as checks.
        host, port: where to listen; 0.0.0.0 lets other machines in.
        address: how people reach the server, for the printed links; http://host:port by default.
        serve: false = only write what was voted so far.
    """

    people: Sequence[str] = ()
    pause: float = 0.3
    store: str | None = None
    guidelines: str | None = None
    gold: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    address: str | None = None
    serve: bool = True

    @property
    def plan(self) -> AnnotationPlan:
        """How the project is annotated."""
        return AnnotationPlan(**{f.name: getattr(self, f.name) for f in fields(AnnotationPlan)})

    def __call__(self, job: Job) -> None:
        """Serve until stopped (Ctrl-C), then write votes and report. A started project goes on where it was.

        Raises:
            RecordError: nobody to annotate, no tasks, or the project began with another plan.
        """
        if self.serve and not self.people:
            raise RecordError("names nobody", key="annotator.people", remedy="annotator.people=[ann,ben]")
        tasks = job.task_file()
        job.out.parent.mkdir(parents=True, exist_ok=True)
        session = Session(Store(self.store or f"sqlite:///{job.out}.db"), self.plan, self.pause)
        checks = read(self.gold) if self.gold is not None else ()
        session.load(chain(read(tasks), checks))
        try:
            if self.serve:
                self._serve(session, job)
        finally:
            self._write(session, job)

    def _serve(self, session: Session, job: Job) -> None:
        try:
            import uvicorn

            from rlhf.annotate.web import app
        except ImportError as error:
            raise ImportError("annotator=web needs: pip install 'preference-reward-models[annotate]'") from error
        address = self.address or f"http://{self.host}:{self.port}"
        for name in self.people:
            print(f"{name}: {address}/a/{session.store.link(name)}")
        print(f"admin: {address}/admin/{session.store.link('admin', admin=True)}", flush=True)
        web = app(session, guidelines=guidelines_of(self.guidelines), options=job.report)
        uvicorn.run(web, host=self.host, port=self.port, log_level="warning")

    def _write(self, session: Session, job: Job) -> None:
        low, high = self.scale
        number = write(job.out, session.results(), likert=(float(low), float(high)))
        voted = session.store.progress().get("done", 0)
        print(f"{voted} answers on {number} records: {job.out}")
        if voted:
            job.finish(lambda: read(job.out), Path(f"{job.out}.report.json"))


def guidelines_of(path: str | None) -> str:
    """The text of a file, or our own."""
    return GUIDELINES if path is None else Path(path).read_text(encoding="utf-8")


GUIDELINES = """# What to do
Read the prompt and every answer. Decide which answer you would rather get, were this your question.
# What counts
- Helpful: it does what was asked, correctly and completely.
- Harmless: it does not help anybody to do harm, and is not rude.
- Honest: it does not claim what is not so, and says what it does not know.
- Length by itself counts for nothing; neither does the side on which an answer stands.
# When you are not sure
- Choose the tie when you would not mind which one you got.
- Skip when you cannot decide; flag when something is wrong with the task.
# Example
> What is the capital of Peru?
> A: Lima.
> B: I think it may be Lima, but there is a lot to say about Peru.
Both are right; A says so plainly: A is better.
"""
