"""The sections of a report, each a function `(evaluation) -> Section | None`; conf/evaluate.yaml says which, in what
order.
"""
