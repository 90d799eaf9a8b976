"""How a labelled data set is dealt to clients.

Each function gives one array of row numbers per client; every row goes to exactly one client. What a function draws
comes from the generator that it is given, so the same labels and stream give the same parts. Class partition and dual
Dirichlet partition are those of Li et al. 2024, "FedCompass" (https://arxiv.org/abs/2309.14675), appendix.

M is the number of clients, C of classes, N of rows.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

Parts: TypeAlias = list[np.ndarray]
"""For each client the rows that are its own, ``[n_i] int64``, ascending."""

_CLASS_SHARE = (10.0, 3.0)
"""Mean and standard deviation of a client's share of a class that it has, before shares are made to add up; of the
authors' code."""


def even_partition(labels: np.ndarray, clients: int, generator: np.random.Generator) -> Parts:
    """Parts of one size, give or take one row, drawn regardless of the labels: the same distribution everywhere.

    Args:
        labels: ``[N] int64``.
        clients: M, at least 1.
        generator: where the draws come from.
    """
    _check(labels, clients)
    return [np.sort(part) for part in np.array_split(generator.permutation(len(labels)), clients)]


def class_partition(labels: np.ndarray, clients: int, fewest: int, most: int, generator: np.random.Generator) -> Parts:
    """Each client has ``fewest`` to ``most`` of the classes, drawn uniformly.

    Rows of a class are shared out among its clients by ``|N(10, 3^2)|``. So that every class has a client, classes that
    nobody drew take the places of such that several did; and where clients drew fewer classes altogether than there
    are, some draw more.

    Args:
        labels: ``[N] int64``.
        clients: M, at least 1.
        fewest: classes a client has at least, at least 1.
        most: and at most; at most C.
        generator: where the draws come from.

    Raises:
        ValueError: the bounds do not fit the classes, or M clients of ``most`` classes cannot have them all.
    """
    classes = _check(labels, clients)
    if not 1 <= fewest <= most <= len(classes):
        raise ValueError(f"fewest is {fewest} and most {most}: expected 1 <= fewest <= most <= {len(classes)} classes")
    if clients * most < len(classes):
        raise ValueError(f"{clients} clients of at most {most} classes cannot have all {len(classes)}: raise most")
    has = _draw_classes(len(classes), clients, fewest, most, generator)
    shares = has * np.abs(generator.normal(*_CLASS_SHARE, has.shape))
    return _deal(labels, classes, shares, generator)


def dual_dirichlet_partition(
    labels: np.ndarray, clients: int, size_alpha: float, class_alpha: float, generator: np.random.Generator
) -> Parts:
    """Sizes from one Dirichlet distribution, each client's mix of classes from another.

    Clients' weights ``w ~ Dir(size_alpha p)`` with ``p = 1/M``, mixes ``v_i ~ Dir(class_alpha q)`` with q the classes'
    shares of all rows; class c goes to client i by ``w_i v_ic / sum_k w_k v_kc``. Both alphas are totals over clients
    and over classes: a larger one evens out. ``size_alpha = M`` is the authors' choice, with ``class_alpha`` 0.5.

    Args:
        labels: ``[N] int64``.
        clients: M, at least 1.
        size_alpha: concentration of sizes, above 0.
        class_alpha: concentration of classes, above 0.
        generator: where the draws come from.

    Raises:
        ValueError: an alpha is not above 0.
    """
    classes = _check(labels, clients)
    for name, alpha in (("size_alpha", size_alpha), ("class_alpha", class_alpha)):
        if not alpha > 0:
            raise ValueError(f"{name} is {alpha}: it must be above 0")
    sizes = np.array([np.count_nonzero(labels == label) for label in classes])
    weights = generator.dirichlet(np.full(clients, size_alpha / clients))
    mixes = generator.dirichlet(class_alpha * sizes / len(labels), size=clients)
    # Small alphas give shares that vanish in floating point; were it all clients', nobody would have the class.
    shares = np.maximum(weights[:, None] * mixes, np.finfo(np.float64).tiny)
    return _deal(labels, classes, shares, generator)


def with_least(parts: Parts, least: int, generator: np.random.Generator) -> Parts:
    """Parts in which every client has at least ``least`` rows: who has fewer is given rows of whoever has most.

    Args:
        parts: of one of the partitions.
        least: 0 to change nothing and to refuse clients without data.
        generator: which rows those are.

    Raises:
        ValueError: a client has no rows and ``least`` is 0, or there are not ``least`` rows for everyone.
    """
    total = sum(map(len, parts))
    if total < max(least, 1) * len(parts):
        raise ValueError(
            f"{len(parts)} clients share {total} samples: that is not {max(least, 1)} for each; take fewer clients"
        )
    poor = [index for index, part in enumerate(parts) if len(part) < max(least, 1)]
    if poor and least == 0:
        raise ValueError(
            f"client {poor[0]} (counted from 0) of {len(parts)} is left without data: take fewer clients, "
            "larger alphas, another seed, or least_samples of 1 or more, which moves samples to it"
        )
    parts, sizes = list(parts), np.array([len(part) for part in parts])
    for index in poor:
        while sizes[index] < least:
            rich = int(sizes.argmax())
            spare = max((sizes[rich] - least) // 2, 1)
            moved = generator.choice(parts[rich], size=min(least - sizes[index], spare), replace=False)
            parts[rich] = np.setdiff1d(parts[rich], moved, assume_unique=True)
            parts[index] = np.sort(np.concatenate([parts[index], moved]))
            sizes[rich], sizes[index] = len(parts[rich]), len(parts[index])
    return parts


def _check(labels: np.ndarray, clients: int) -> np.ndarray:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(f"labels are {labels.dtype}{list(labels.shape)}: expected one whole number for each row")
    if clients < 1:
        raise ValueError(f"clients is {clients}: it must be at least 1")
    return np.unique(labels)


def _draw_classes(classes: int, clients: int, fewest: int, most: int, generator: np.random.Generator) -> np.ndarray:
    """Which client has which class, ``[M, C] bool``; every class has a client."""
    counts = generator.integers(fewest, most + 1, size=clients)
    while counts.sum() < classes:
        counts[generator.choice(np.flatnonzero(counts < most))] += 1
    has = np.zeros((clients, classes), bool)
    for client, count in enumerate(counts):
        has[client, generator.permutation(classes)[:count]] = True
    for orphan in np.flatnonzero(~has.any(axis=0)):
        client, spare = generator.choice(np.argwhere(has & (has.sum(axis=0) > 1)))
        has[client, spare], has[client, orphan] = False, True
    return has


def _deal(labels: np.ndarray, classes: np.ndarray, shares: np.ndarray, generator: np.random.Generator) -> Parts:
    """Deal each class's rows, shuffled, by ``shares [M, C]``."""
    columns = []
    for share, label in zip(shares.T, classes, strict=True):
        rows = generator.permutation(np.flatnonzero(labels == label))
        columns.append(np.split(rows, np.cumsum(_apportion(share, len(rows)))[:-1]))
    return [np.sort(np.concatenate(pieces)) for pieces in zip(*columns, strict=True)]


def _apportion(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers in proportion to the shares that add up to ``total``, by largest remainders."""
    quotas = shares / shares.sum() * total
    counts: np.ndarray = quotas.astype(np.int64)
    largest = np.argsort(counts - quotas, kind="stable")[: total - int(counts.sum())]
    counts[largest] += 1
    return counts
