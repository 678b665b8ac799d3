"""The routers that CARROT is measured against, from knowing nothing to knowing everything."""

from mofme.language.llm_routing.baselines.complexity import ComplexityRule
from mofme.language.llm_routing.baselines.pair import PairRouter
from mofme.language.llm_routing.baselines.single import BestSingle, Hull, Oracle
from mofme.language.llm_routing.baselines.task_table import TaskTable

__all__ = ["BestSingle", "ComplexityRule", "Hull", "Oracle", "PairRouter", "TaskTable"]
