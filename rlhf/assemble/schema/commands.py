"""One schema per command: type, bounds, default and meaning of every key that is no group's."""

from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt
from hydra.core.config_store import ConfigStore
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from rlhf.assemble.schema import groups
from rlhf.assemble.schema.bounds import AtLeastTwo, Hint, Settings, Share, ShareOrZero, defaults_of

Monitored = Literal["val/nll", "val/pair_accuracy", "val/ece"]
"""What `rlhf.reward.checkpoint` can look at, said without importing torch."""
Models = Annotated[Any, Hint("a model, or several: [a,b,c]")]
Threads = PositiveInt | None


def key(default: Any, meaning: str) -> Any:
    """A key with its default and what it means, unit included."""
    return Field(default, description=meaning)


# fmt: off
class Command(Settings):
    """A command: its keys, and what `--help` says of it."""

    command: ClassVar[str]
    examples: ClassVar[tuple[tuple[str, str], ...]]


class Batches(Settings):
    """Records to batches."""

    batch_tokens: PositiveInt | None = key(None,
        "tokens per batch and process instead of batch_size prompts (each prompt counted once)")
    eval_batch_size: PositiveInt = key(64, "prompts per batch in validation and test")
    min_prompt: NonNegativeInt = key(16, "tokens of the prompt that stay when it is trimmed to make room for an answer")
    attributes: list[str] = key([],
        "Likert criteria for head=attributes and loss=regression, e.g. [helpfulness,honesty]")
    weighing: Literal["pairs", "prompts"] = key("pairs",
        "what counts once in the training loss; losses that are one number per prompt count prompts")
    workers: NonNegativeInt = key(0, "processes that collate batches beside training")
    cache: str = key("${runs}/cache", "prepared data, shared between runs; safe to delete")


class Optimizer(Settings):
    """The optimizer, and what keeps weights and rewards near 0."""

    build: groups.Build
    weight_decay: NonNegativeFloat
    centring: NonNegativeFloat = key(0.01,
        "c of c * mean((r_i + r_j)^2): keeps rewards near 0 (Eisenstein et al. 2023, eq. 2)")


class Trainer(Settings):
    """Device, precision, processes; when it validates, writes and stops."""

    monitor: Monitored = key("val/nll", "early stopping and best checkpoint look at this")
    patience: NonNegativeInt = key(3, "validations without improvement before stopping")
    validate_every: Share = key(1.0, "share of an epoch between validations")
    save_every: PositiveInt = key(100, "optimizer steps between two writes of checkpoints/last.ckpt")
    compile: bool = key(False, "torch.compile the trunk: slower start, faster steps")
    threads: Threads = key(None, "CPU threads of torch; null leaves torch's choice")
    accumulate_grad_batches: PositiveInt


class Train(Command):
    """Train: what is trained, on what, how. Writes a run folder; its last line is `run: <folder>`."""

    command: ClassVar = "python train.py"
    examples: ClassVar = (
        ("debug=smoke", "a small piece of everything, in seconds"),
        ("data=pairs data.path=<file> model=local model.path=<folder>", "your data, your model"),
        ("-m loss=pairwise,ranking seed=0,1,2", "a sweep: six runs and one comparison"),
        ("task=active selector=logdet,random -m", "which pairs to label"),
        ("task=policy reward=<run> model=local model.path=<folder>", "a policy on that reward model"),
    )

    seed: NonNegativeInt = key(0, "of weights, order, dropout and bootstrap")
    epochs: PositiveInt = key(3, "passes over the training prompts, at most; early stopping may end before")
    batch_size: PositiveInt = key(16, "prompts (each with all its completions) per batch and process")
    max_length: AtLeastTwo = key(512,
        "tokens of prompt and one completion together; data_report.json says what that costs")
    merge: bool = key(True, "training records of one prompt become one, so that a completion is encoded once")
    max_group: AtLeastTwo = key(16,
        "completions of a prompt in one step, at most; larger groups are cut into blocks, drawn anew each epoch")
    criterion: str | None = key(None,
        "which votes count: a criterion's name; null = `overall` where there is one, else all")
    ckpt: str | None = key(None,
        "last = go on where this folder's (or the newest equal run's) last.ckpt stopped; or a path")
    bootstrap: NonNegativeInt = key(1000, "resamples behind every interval; 0 = no intervals")
    runs: str = key("runs", "where run folders go")
    batches: Batches
    task: groups.TaskSettings
    split: groups.SplitSettings
    optimizer: Optimizer
    trainer: Trainer
    shaping: groups.Shaping
    early_stopping: groups.EarlyStopping
    policy: groups.PolicySettings
    selector: groups.Selector
    votes: groups.VotesSettings
    learner: groups.LearnerSettings


class Optimised(Settings):
    """What task=policy has beside the keys of `Train`."""

    reward: Models = key(None, "for task=policy: the run whose reward model is optimised, or several: an ensemble")


class Perturbation(Settings):
    """A change of answers: it keeps a share of them, or makes them so many times as long."""

    keep: Annotated[float, Gt(0), Lt(1)]
    times: Annotated[float, Gt(1)]


class Evaluate(Command):
    """Evaluate models on data. Writes a report; its last line is `report: <folder>`."""

    command: ClassVar = "python evaluate.py"
    examples: ClassVar = (
        ("run=<folder>", "a run on the test part of its own data"),
        ("run=[a,b,c]", "several runs as an ensemble, and compared"),
        ("run=<model> data=pairs data.path=<file>", "any Hugging Face reward model on your data"),
        ("run=<folder> red_team=tasks.jsonl", "and tasks for annotators where it fails"),
        ("scores=<examples.parquet>", "scores that are there already, without a model"),
    )

    run: Models = key("???", "folder of a run, an exported model/, a Hugging Face reward model; [a,b,c] = an ensemble")
    scores: str | None = key(None,
        "instead of run: the examples.parquet of a report, or your own scores; evaluated without a model")
    against: Models = key([],
        "models compared with it on the same answers: as `run`, or {_target_: ...} of a ScoreSource")
    part: Annotated[Any, Hint("one of train, val, test, all, or null")] = key(None,
        "part of the data; null = test of the run's own data, all of other data")
    red_team: str | None = key(None,
        "a file to write: pairs on which the model fails or is unsure, as tasks for annotators")
    red_team_size: PositiveInt = key(50, "tasks of every kind in it, at most")
    bag_of_words: bool = key(True, "the baseline, trained on what the run was trained on")
    perturbed_records: Annotated[int, Ge(1), Hint("; shifts=null probes=null changes no answer")] = key(500,
        "records that shifts and probes are made of, and records read of shifted data, at most")
    bootstrap: PositiveInt = key(1000, "resamples (of prompts) behind every interval")
    seed: NonNegativeInt = key(0, "of the resampling")
    criterion: str | None = key(None,
        "which votes of other data count: a criterion's name; null = `overall` where there is one")
    block: PositiveInt = key(32, "records scored together by one process: any number of processes gives the same")
    batch_tokens: PositiveInt = key(8192, "tokens per forward pass, padding included, each prompt counted once")
    max_length: AtLeastTwo = key(2048, "tokens a foreign model may read, unless it knows fewer; runs keep their own")
    accelerator: str = key("cpu", "cpu, gpu, auto")
    devices: PositiveInt = key(1, "processes; each scores every devices-th block")
    threads: Threads = key(None, "CPU threads of torch; null leaves torch's choice")
    runs: str = key("runs", "where reports go")
    shifts: dict[str, Perturbation | None] | None
    probes: dict[str, Perturbation | None] | None


class Sample(Command):
    """Sample: prompts to completions to tasks for annotators, as records without votes."""

    command: ClassVar = "python sample.py"
    examples: ClassVar = (
        ("limit=50 out=tasks.jsonl", "the toy world's policy, 50 prompts"),
        ("data=prompts data.path=<file> model=local model.path=<folder> out=<file>", "your prompts, your model"),
        ("backend=endpoint backend.model=<name> out=<file>", "a model behind an API"),
        ("sampler=greedy k=2 out=<file>", "another decoding; two completions per prompt"),
        ("pick=best_of_n pick.reward.folder=<run> k=8 out=<file>", "the best of eight by a reward model"),
    )

    out: str = key("???", "the file of records; <out>.report.json and <out>.dropped.jsonl come beside it")
    limit: NonNegativeInt | None = key(None, "prompts to answer, at most")
    k: PositiveInt = key(4, "completions per prompt")
    min_distance: ShareOrZero = key(0.1,
        "floor on 1 - Jaccard similarity of two completions of a prompt; closer ones are drawn anew")
    attempts: PositiveInt = key(4, "draws per completion, at most")
    min_completions: NonNegativeInt = key(2,
        "records with fewer left after the filters are dropped; 1 for supervised data")
    max_new_tokens: PositiveInt = key(256, "length limit of a completion, in tokens")
    max_length: AtLeastTwo = key(2048, "tokens of prompt and completion together; longer prompts lose their beginning")
    template: str | None = key(None,
        "Jinja chat template; null = the tokenizer's; '{{ messages[-1].content }}' continues the text")
    stop: list[str] = key(["\n\nHuman:"], "texts that end a completion")
    seed: NonNegativeInt = key(0, "of completions and of the choice of prompts")
    threads: Threads = key(None, "CPU threads of torch; null leaves torch's choice")
    cache: str = key("runs/cache", "answers of endpoints")


class Annotate(Command):
    """Annotate: tasks to votes, and a report on them."""

    command: ClassVar = "python annotate.py"
    examples: ClassVar = (
        ("annotator=web tasks=<file> out=<file>", "people vote in a browser"),
        ("annotator=ai tasks=<file> out=<file>", "a language model votes"),
        ("annotator=simulated tasks=<file> out=<file>", "annotators of the toy world vote"),
        ("annotator=page tasks=<file> out=page.html", "one page to mail, that works offline"),
        ("annotator=report data=<importer> data.path=<file> out=<json>", "the report alone"),
    )

    tasks: str | None = key(None, "file of records to vote on, as sample.py writes it")
    out: str = key("???", "the same records with votes (a JSON for annotator=report); reports come beside it")
    seed: NonNegativeInt = key(0, "of sides, assignment, simulation and resampling")
    adjudicate_below: NonNegativeFloat = key(0.6,
        "pairs whose most frequent answer has a smaller share go to adjudicate.jsonl")
    threads: Threads = key(None, "CPU threads of torch; null leaves torch's choice")
    cache: str = key("runs/cache", "answers of endpoints")


class LimitsSettings(Settings):
    """What the service takes at once."""

    max_bytes: PositiveInt
    max_completions: PositiveInt
    max_tokens: PositiveInt
    queue_tokens: PositiveInt


class Serve(Command):
    """Serve a reward model over HTTP (extra: preference-reward-models[serve]); first line: `serving: <address>`."""

    command: ClassVar = "python -m rlhf.serve"
    examples: ClassVar = (
        ("run=<folder>", "on this machine, port 8100"),
        ("run=<folder> port=0", "a free port, printed"),
        ("run=<folder> device=cuda batch_tokens=65536", "on a GPU"),
        ("run=<folder> host=0.0.0.0", "for other machines; put a proxy before it"),
        ("run=<folder> log_level=warning", "a quiet log"),
    )

    run: str = key("???", "folder of a run, or its exported model/")
    host: str = key("127.0.0.1", "0.0.0.0 lets other machines in; there is no login: put a proxy before it")
    port: Annotated[int, Ge(0), Le(65535)] = key(8100, "0 = a free one, printed")
    device: str = key("cpu", "cpu, cuda, cuda:1; one process per device")
    threads: Threads = key(None, "CPU threads of torch; null leaves torch's choice")
    batch_tokens: PositiveInt = key(8192, "tokens per forward pass, a shared prompt counted once")
    shutdown_seconds: NonNegativeInt = key(30, "seconds that requests that were begun may still take after SIGTERM")
    log_level: str = key("info", "debug, info, warning: one line per request; texts are never logged")
    limits: LimitsSettings


# fmt: on
COMMANDS: dict[str, type[Command]] = {
    "train": Train,
    "evaluate": Evaluate,
    "sample": Sample,
    "annotate": Annotate,
    "serve": Serve,
}


def store_defaults() -> None:
    """Give Hydra the defaults, which `conf/<command>.yaml` takes up as `schema/<command>`."""
    stored: dict[str, type[Settings]] = {**COMMANDS, "optimised": Optimised}
    for name, schema in stored.items():
        ConfigStore.instance().store(name, defaults_of(schema), group="schema", package="_global_")
