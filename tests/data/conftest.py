"""What the tests of data sets share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog


@pytest.fixture
def clean_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Mended copies go into the test's folder; the catalogs have no user's data before, and are as they were after."""
    monkeypatch.setenv("FCOS_D2_CACHE", str(tmp_path / "cache"))
    catalogs = DatasetCatalog, MetadataCatalog
    before = [dict(catalog.data) for catalog in catalogs]
    for name in [name for name in DatasetCatalog.list() if hasattr(MetadataCatalog.get(name), "fcos_report")]:
        for catalog in catalogs:
            catalog.remove(name)
    yield
    for catalog, entries in zip(catalogs, before):
        catalog.data = entries
