"""Detection by many processes, on one machine or a cluster: pictures go out in portions, rows come back.

`portions` divides what is to be looked at, a `Worker` looks at a portion, `ClusterJob` hands portions out through Ray
Data and writes down what comes back, each picture once.

What may be changed here: how pictures reach processes, and what happens when one dies. Nothing here knows a model.
"""

from __future__ import annotations

from .portions import FilePortion, ParquetPortion, count_of, portions_of
from .run import Cluster, ClusterJob
from .worker import Attempts, Worker

__all__ = ["Attempts", "Cluster", "ClusterJob", "FilePortion", "ParquetPortion", "Worker", "count_of", "portions_of"]
