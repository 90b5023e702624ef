"""Slow, plain versions of what covis computes: loops and definitions, nothing shared with the package."""

import numpy as np


def recall(rows, positives, excluded, k):
    """recall@k query by query: rows (q, found), positives and excluded dense (q, d) bool."""
    values = []
    for query, found in enumerate(rows):
        correct = {d for d in range(positives.shape[1]) if positives[query, d] and not excluded[query, d]}
        if not correct:
            values.append(float("nan"))
            continue
        ranked = [int(d) for d in found if not excluded[query, d]]
        values.append(float(any(d in correct for d in ranked[:k])))
    return np.array(values)


def nearest(queries, database, k):
    """Rows and Euclidean distances of the k nearest, by all differences in float64."""
    difference = np.asarray(queries, dtype=np.float64)[:, None] - np.asarray(database, dtype=np.float64)[None]
    distances = np.sqrt((difference**2).sum(axis=2))
    rows = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(distances, rows, axis=1)


def all_distances(queries, database, dtype):
    """(q, d) Euclidean distances, rounded to a type."""
    difference = np.asarray(queries, dtype=np.float64)[:, None] - np.asarray(database, dtype=np.float64)[None]
    return np.sqrt((difference**2).sum(axis=2)).astype(dtype)


def average_precision(distances, correct):
    """Σ (R_n - R_(n-1)) P_n over the distinct distances, threshold by threshold."""
    total, before, area = correct.sum(), 0.0, 0.0
    for threshold in np.unique(distances):
        chosen = distances <= threshold
        recalled = correct[chosen].sum() / total
        area += (recalled - before) * correct[chosen].sum() / chosen.sum()
        before = recalled
    return area


def apply_pca(fit, apply, dim):
    """GCL's apply_pca, line by line: columns are samples, general `eig`, population covariance, truncation before the norm."""
    samples = np.asarray(fit, dtype=np.float64).T
    mean = samples.mean(axis=1, keepdims=True)
    centred = samples - mean
    covariance = centred @ centred.T
    covariance = (covariance + covariance.T) / (2 * samples.shape[1])
    values, vectors = np.linalg.eig(covariance)
    order = values.real.argsort()[::-1]
    values, vectors = values.real[order], vectors.real[:, order]
    projection = np.linalg.inv(np.sqrt(np.diag(values))) @ vectors.T
    whitened = projection[:dim] @ (np.asarray(apply, dtype=np.float64).T - mean)
    return (whitened / (np.linalg.norm(whitened, axis=0, keepdims=True) + 1e-6)).T


def bands(matrix, excluded, threshold):
    """For each query the database rows of each class (positive, soft, zero), listed one by one."""
    listed = []
    for row, out in zip(matrix, excluded, strict=True):
        classes = ([], [], [])
        for d, value in enumerate(row):
            if not out[d]:
                classes[0 if value > 0 and value >= threshold - 1e-9 else 1 if value > 0 else 2].append(d)
        listed.append(classes)
    return listed


def triplet(query, lists, margin, squared):
    """(P, N) terms of the triplet loss: the positive is the first of each list."""

    def apart(x, y):
        square = sum((x[i] - y[i] + (0 if squared else 1e-6)) ** 2 for i in range(len(x)))
        return square if squared else square**0.5

    return [[max(0.0, apart(q, one[0]) - apart(q, n) + margin) for n in one[1:]] for q, one in zip(query, lists, strict=True)]


def hardest(query, pool, vectors, barred, negatives):
    """Database rows of a query's nearest negatives among a pool, nearest first; `barred`: rows that are none."""
    allowed = [int(row) for row in pool if row not in barred]
    return sorted(allowed, key=lambda row: (float(((vectors[query] - vectors[row]) ** 2).sum()), row))[:negatives]


def multi_similarity(query, lists, positive, alpha=2.0, beta=50.0, base=0.5):
    """The multi-similarity loss of each query over its own list (Wang et al., CVPR 2019), on cosines."""
    values = []
    for q, one, chosen in zip(query, lists, positive, strict=True):
        cosines = [float(q @ x / np.linalg.norm(q) / np.linalg.norm(x)) for x in one]
        pulled = sum(np.exp(-alpha * (c - base)) for c, p in zip(cosines, chosen, strict=True) if p)
        pushed = sum(np.exp(beta * (c - base)) for c, p in zip(cosines, chosen, strict=True) if not p)
        values.append(np.log1p(pulled) / alpha + np.log1p(pushed) / beta)
    return values
