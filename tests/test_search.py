"""Search among embeddings: the exact kind against float64 over all rows, the approximate ones by their recall."""

import builtins
import json

import numpy as np
import pytest

from cimp_core import search, search_exact
from cimp_core.errors import CimpError, OutOfRangeError, SchemaError, UnreadableFileError
from cimp_core.search import Approximation, Index
from cimp_core.search_files import load_index, save_index


def clustered(count, dim=24, seed=0, clusters=60):
    """Unit rows in overlapping clusters, float32."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((clusters, dim))
    rows = centres[rng.integers(clusters, size=count)] + 0.5 * rng.standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def brute_force(rows, queries, k):
    """In float64, of equal cosines the lowest row."""
    unit = [x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) for x in (queries, rows)]
    cosines = (unit[0][:, None] * unit[1]).sum(-1)
    order = np.argsort(-cosines.round(12), axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(cosines, order, 1)


@pytest.mark.parametrize("block", [1, 4096, 70_000, 2**24])
@pytest.mark.parametrize(("half", "queries", "k"), [(False, 7, 10), (False, 300, 1), (True, 1, 25)])
def test_exact_search_is_float64_over_all_rows_whatever_the_blocks(monkeypatch, block, half, queries, k):
    monkeypatch.setattr(search_exact, "BLOCK_BYTES", block)
    monkeypatch.setattr(search_exact, "SAMPLE", 16)
    rows = clustered(1003 if block > 1 else 90)
    rows[50:80] = rows[3]  # ties among many rows, in several blocks
    rows[-1] = rows[0]
    asked = np.concatenate([rows[[3, 0]], clustered(queries, seed=1)])[-max(queries, 3) :]
    index = Index(rows, half=half)
    found, cosines = index.search(asked, k)
    expected, values = brute_force(index.store, asked, k)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(cosines, values, atol=1e-7)
    assert index.store.dtype == (np.float16 if half else np.float32) and index.nbytes == index.store.nbytes


def test_rows_that_differ_by_less_than_float32_shows_are_told_apart(monkeypatch):
    """Cosines closer to one another than a product in float32 is to the truth come in the right order."""
    monkeypatch.setattr(search_exact, "SAMPLE", 8)
    rng = np.random.default_rng(0)
    base = clustered(1, dim=128)[0]
    rows = (base + 3e-5 * rng.standard_normal((5000, 128))).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found, _ = Index(rows).search(base, 10)
    np.testing.assert_array_equal(found, brute_force(rows, base[None], 10)[0])
    in_single = np.argsort(-(rows @ base), kind="stable")[:10]
    assert (in_single != found[0]).any()  # or this test could not fail


def test_length_does_not_count_and_a_mask_leaves_rows_out():
    rows, asked = clustered(400), clustered(5, seed=1)
    scaled = rows * np.geomspace(1e-20, 1e15, 400, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(Index(scaled).search(1e3 * asked, 3)[0], Index(rows).search(asked, 3)[0])
    among = np.random.default_rng(0).random(400) < 0.1
    found, _ = Index(rows).search(asked, 4, among=among)
    np.testing.assert_array_equal(found, np.flatnonzero(among)[brute_force(rows[among], asked, 4)[0]])


def test_more_than_there_are_is_all_there_are():
    rows = clustered(6)
    assert Index(rows).search(rows, 50)[0].shape == (6, 6)
    assert Index(rows).search(rows, 50, among=np.arange(6) < 2)[0].shape == (6, 2)
    assert Index(rows).search(rows[:0], 2)[0].shape == (0, 2)


def test_what_cannot_be_searched_is_named():
    rows = clustered(20)
    for value in (np.nan, np.inf, 0):
        bad = rows.copy()
        bad[[4, 9]] = value
        with pytest.raises(OutOfRangeError, match="2 of 20 rows are zero or not finite, the first number 4"):
            Index(bad)
        with pytest.raises(OutOfRangeError, match="2 of 20 queries"):
            Index(rows).search(bad)
    with pytest.raises(OutOfRangeError, match="queries of 23 numbers, rows of 24"):
        Index(rows).search(rows[:, :-1])
    for wrong in ({"k": 0}, {"among": np.zeros(20, bool)}, {"among": np.ones(20)}):
        with pytest.raises(OutOfRangeError):
            Index(rows).search(rows, **wrong)
    for wrong in (rows[:0], rows[0], rows.astype(str)):
        with pytest.raises(OutOfRangeError):
            Index(wrong)
    for options in ({"kind": "lsh"}, {"kind": "ivf", "half": True}, {"columns": {"a": np.zeros(3)}}):
        with pytest.raises(OutOfRangeError):
            Index(rows, **options)
    with pytest.raises(OutOfRangeError, match="probes must be at least 1"):
        Approximation(probes=0)


def recall(index, rows, asked, **options):
    found, cosines = index.search(asked, 10, **options)
    assert (np.diff(cosines, axis=1) <= 0).all()
    truth = brute_force(rows, asked, 10)[0]
    return np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, truth, strict=True)])


@pytest.mark.parametrize(("kind", "option"), [("ivf", "probes"), ("hnsw", "breadth")])
def test_approximate_kinds_find_nearly_all_and_more_with_more_effort(kind, option):
    rows, asked = clustered(2000, 48, clusters=400), clustered(50, 48, seed=1, clusters=400)
    few = Approximation(links=4)
    index = Index(3 * rows, kind, approximation=few)
    assert recall(index, rows, asked) > 0.95
    poor = recall(index, rows, asked, **{option: 1})  # what a setting that is not passed on would not show
    assert poor < recall(index, rows, asked) - 0.1
    assert index.nbytes > rows.nbytes
    among = np.arange(2000) % 2 == 0
    found, cosines = index.search(asked, 5, among=among)
    assert among[found[found >= 0]].all() and np.isnan(cosines[found < 0]).all()
    np.testing.assert_array_equal(index.search(asked)[0], Index(3 * rows, kind, approximation=few).search(asked)[0])


def test_auto_says_what_it_took_and_why(monkeypatch):
    rows = clustered(500)
    assert Index(rows).kind == "exact" and "500 rows" in Index(rows).reason
    monkeypatch.setattr(search, "EXACT_UP_TO", 100)
    assert Index(rows).kind == "ivf" and "more than 100" in Index(rows).reason
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    without = Index(rows)
    assert without.kind == "exact" and "pip install cimp-core[faiss]" in without.reason


def test_without_faiss_the_approximate_kinds_name_the_extra(monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name == "faiss":
            raise ImportError("no faiss here")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(CimpError, match=r"pip install cimp-core\[faiss\]"):
        Index(clustered(50), "hnsw")
    assert len(Index(clustered(50), "exact")) == 50


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw"])
def test_an_index_comes_back_as_it_was_saved(tmp_path, kind):
    rows, asked = clustered(700), clustered(9, seed=1)
    columns = {"image": np.arange(700), "file": np.array([f"é{i}.emd" for i in range(700)])}
    index = Index(rows, kind, about={"weights": "w", "weights_sha256": "ab"}, columns=columns)
    folder = save_index(index, tmp_path / "i.index")
    back = load_index(folder, weights="ab")
    for one, two in zip(index.search(asked, 7), back.search(asked, 7), strict=True):
        np.testing.assert_array_equal(one, two)
    assert (back.kind, back.about, back.approximation) == (kind, index.about, index.approximation)
    assert back.columns["file"][3] == "é3.emd" and back.nbytes == index.nbytes
    with pytest.raises(SchemaError, match="made with weights w"):
        load_index(folder, weights="cd")


def test_overwriting_is_asked_for_and_leaves_no_old_file(tmp_path, monkeypatch):
    folder = save_index(Index(clustered(50)), tmp_path / "i")
    with pytest.raises(CimpError, match="exists"):
        save_index(Index(clustered(60)), folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    with pytest.raises(CimpError, match="is no index"):
        save_index(Index(clustered(60)), tmp_path / "other", force=True)
    # A process killed before the last step leaves the old index.
    with monkeypatch.context() as patch:
        patch.setattr("cimp_core.search_files.json.dumps", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            save_index(Index(clustered(60)), folder, force=True)
    assert len(load_index(folder)) == 50
    save_index(Index(clustered(60)), folder, force=True)
    assert len(load_index(folder)) == 60 and len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_damage_is_refused(tmp_path, kind):
    folder = save_index(Index(clustered(80), kind), tmp_path / "i")
    record, (rows,) = folder / "index.json", [p for p in folder.iterdir() if p.name != "index.json"]
    whole, text = rows.read_bytes(), record.read_text()
    for damaged in (whole[:-1], whole[:200] + b"\x00" + whole[201:]):
        rows.write_bytes(damaged)
        with pytest.raises(SchemaError, match="damaged or changed"):
            load_index(folder)
    rows.unlink()
    with pytest.raises(SchemaError, match="is absent"):
        load_index(folder)
    rows.write_bytes(whole)
    content = json.loads(text)
    for wrong in ({"count": 81}, {"format": "cimp-index-0"}, {"about": None}, {"files": {}}, {"kind": "lsh"}):
        record.write_text(json.dumps(content | wrong))
        with pytest.raises(SchemaError):
            load_index(folder)
    for damaged in (text[:-20], "[]"):
        record.write_text(damaged)
        with pytest.raises(SchemaError):
            load_index(folder)
    with pytest.raises(UnreadableFileError, match="no index there"):
        load_index(tmp_path / "none")
