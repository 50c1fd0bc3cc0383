"""The parts of a report, each a function `(judged) -> Section | None`; conf/evaluate.yaml says which, in what order."""
