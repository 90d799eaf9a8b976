"""How a commit's updates become the next global model."""

from __future__ import annotations

from typing import Literal, TypeAlias

AverageKind: TypeAlias = Literal["mean", "statistic", "integer"]
"""How a tensor averages over learners: ``mean`` is trained (a parameter: changes are added up), ``statistic`` is
measured (a floating buffer such as a running mean: values are averaged, and no server optimiser touches them),
``integer`` counts."""
