"""Ray on this machine: processes die, and yet each picture is answered once, as one process answers it."""

from __future__ import annotations

import json
import os
from collections import Counter
from functools import partial

import fatal
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from fcos_d2.data.sources import Source
from fcos_d2.errors import FcosError
from fcos_d2.predict.cluster import Cluster, ClusterJob
from fcos_d2.predict.job import DetectionJob
from fcos_d2.predict.journal import Journal


@pytest.fixture
def cluster(monkeypatch):
    """Two workers, which have the classes of this folder by value."""
    from ray import cloudpickle

    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    cloudpickle.register_pickle_by_value(fatal)
    yield Cluster(workers=2, cpus=1)
    cloudpickle.unregister_pickle_by_value(fatal)


def rows(journal: Journal) -> list[dict]:
    return [json.loads(line) for line in journal.path.read_text().splitlines()]


@pytest.mark.slow
def test_processes_die_and_each_picture_is_answered_once(tmp_path, cluster):
    random = np.random.default_rng(0)
    images = [random.integers(0, 255, (48, 64, 3), np.uint8) for _ in range(30)]
    images[4][:], images[20][:] = fatal.POISON, fatal.ONCE
    sources, content = [], []
    for i, image in enumerate(images):
        path = tmp_path / f"{i}.png"
        Image.fromarray(image).save(path)
        content.append(path.read_bytes())
        sources.append(Source(str(path)))
    (tmp_path / "7.png").write_bytes(content[7][:99])
    tables = tmp_path / "t.parquet"
    parquet.write_table(pa.table({"image": content[10:16]}), tables, row_group_size=4)
    once = tmp_path / "once"
    once.touch()

    alone = Journal(tmp_path / "alone", "r")
    look = fatal.look()
    DetectionJob(look, alone, 0.5).run([one for i, one in enumerate(sources) if i not in (4, 7)])
    many, said = Journal(tmp_path / "many", "r"), []
    job = ClusterJob(partial(fatal.look, once), many, cluster, complain=said.append)
    job.run([*sources, Source(str(tables))])

    assert not once.exists()  # a process died of it, and another answered
    expected = {row["image"]: row for row in rows(alone)}
    expected |= {f"{tables}#{i}": {**expected[sources[10 + i].where], "image": f"{tables}#{i}"} for i in range(6)}
    assert Counter(row["image"] for row in rows(many)) == Counter(expected.keys())
    assert {row["image"]: row for row in rows(many)} == expected
    aside = {row["image"]: row["error"] for row in map(json.loads, job.aside.read_text().splitlines())}
    assert set(aside) == {sources[4].where, sources[7].where} and job.failed == 2 and len(said) == 2
    assert "processes died while they looked at it" in aside[sources[4].where]
    assert "cannot be read" in aside[sources[7].where]
    assert (job.finished, job.before) == (34, 0) and job.counts.total() == sum(len(r["detections"]) for r in rows(many))
    many.close()

    half = many.path.read_bytes().splitlines(keepends=True)[:20]
    many.path.write_bytes(b"".join(half) + b'{"image": "')  # as a crash leaves it
    again = Journal(tmp_path / "many", "r", resume=True)
    (tmp_path / "4.png").write_bytes(content[5])  # mended meanwhile
    job = ClusterJob(fatal.look, again, cluster)
    job.run([*sources, Source(str(tables))])
    assert (job.before, job.finished, job.failed) == (20, 15, 1)
    assert Counter(row["image"] for row in rows(again)) == Counter([*expected, sources[4].where])


def test_too_little_for_the_workers_says_so(tmp_path):
    job = ClusterJob(fatal.look, Journal(tmp_path, "r"), Cluster(workers=1, cpus=1 + (os.cpu_count() or 1)))
    with pytest.raises(FcosError, match=r"The Ray cluster has \d+ CPUs and .*too little for 1 workers with \d+ CPUs"):
        job.run([Source("a.png")])
