from __future__ import annotations

import csv
import json
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


def pictures(path: Path, count: int) -> Path:
    """Bright on the left or on the right."""
    rng, rows = np.random.default_rng(count), []
    for i in range(count):
        pixels = rng.integers(0, 60, (8, 8)).astype(np.uint8)
        pixels[:, 4 * (i % 2) : 4 * (i % 2) + 4] += np.uint8(150)
        out = BytesIO()
        Image.fromarray(pixels).save(out, "PNG")
        rows.append({"image": {"bytes": out.getvalue()}, "label": i % 2})
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_the_full_recipe_at_small_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from images import FULL, full_share, main

    target = {"name": "label", "classes": {0: "left", 1: "right"}}
    schema = {"dataset": "toy", "kind": "image", "image": {"height": 8, "width": 8}, "target": target}
    (tmp_path / "schema.yaml").write_text(json.dumps(schema))
    command = {
        "--train": pictures(tmp_path / "train.parquet", 300),
        "--test": pictures(tmp_path / "test.parquet", 60),
        "--schema": tmp_path / "schema.yaml",
        "--epsilon": 10,
        "--public": pictures(tmp_path / "public.parquet", 40),
        "--people": 200,
        "--rows": 80,
        "--critic": '{"steps": 5, "hidden_size": 16}',
        "--out": tmp_path / "found.csv",
    }
    words = ["images.py", "--full", *(str(word) for pair in command.items() for word in pair)]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr("images.PUBLIC_STEPS", 5)
    main()
    with (tmp_path / "found.csv").open(newline="") as stream:
        before, public, after = csv.DictReader(stream)
    assert [line["trained_on"] for line in (before, public, after)] == ["synthetic", "public", "refined"]
    assert (before["public_pictures"], public["public_pictures"], after["public_pictures"]) == ("", "40", "40")
    assert float(before["critic_share"]) == float(after["critic_share"]) == round(full_share(10), 4) == 0.8889
    assert (after["steps"], after["hidden_size"]) == ("5", "16") and float(after["sample_rate"]) == FULL["sample_rate"]
    for line in (before, public, after):
        assert 0 <= float(line["recall"]) <= 1 and float(line["frechet"]) >= 0 and 0 <= float(line["accuracy"]) <= 1
    assert before["noise_multiplier"] == "" and float(after["noise_multiplier"]) > 0
    assert full_share(1) == pytest.approx(0.5 / 0.9)
