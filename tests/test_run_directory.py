"""The folder of a run: paths, JSON that is whole or absent, and what is refused."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import pdeinfl as pi
from hand_made import response_check
from pdeinfl.analysis.response_checks import ResponseCheck
from pdeinfl.data.writer import write_trajectories
from pdeinfl.run_directory import (
    CHECK_VERSION,
    RunDirectory,
    _read_check,
    load_run,
    read_json,
    write_json,
    write_json_once,
)


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path)
    data = {"path": [], "labels": [], "part_order": "numeric", "equation": "CE", "classes": ["RP", "CRP"],
            "snapshots": 2, "split": [0.5, 0.25, 0.25], "split_seed": 3}  # fmt: skip
    training = {"training": {"epochs": 1}, "name": "vit"}
    run.write_config({"data": data, "surrogates": [training], "seeds": [1], "name": "r", "title": ""})
    return run


def test_paths(tmp_path):
    run = RunDirectory(str(tmp_path))
    assert run.models("vit", 3) == tmp_path / "models" / "vit" / "seed3"
    assert run.damping("vit") == tmp_path / "influence" / "vit-damping.json"
    assert run.check("vit") == tmp_path / "checks" / "vit.json"
    assert run.data_files("NS", ["BB"]) == [tmp_path / "data" / "NS-BB.nc"]


def test_data_come_in_the_order_of_the_configuration_and_cut(run):
    traj = pi.simulate("CE", ("RP", "CRP"), 4, 8, 3)
    write_trajectories(run.data, traj)
    parts = run.open_data()
    assert [len(p) for p in parts] == [4, 2, 2]
    assert parts[0].class_names == ("RP", "CRP")
    assert parts[0].n_times == 2
    want = traj.first_snapshots(2).split((0.5, 0.25, 0.25), seed=3)
    for got, expected in zip(parts, want, strict=True):
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_missing_class_is_an_error_not_a_smaller_set(run):
    write_trajectories(run.data, pi.simulate("CE", ("RP",), 4, 8, 3))
    with pytest.raises(FileNotFoundError, match=r"CE-CRP\.nc: run the data stage first"):
        run.open_data()


def test_json_is_whole_or_absent(tmp_path):
    path = tmp_path / "deep" / "a.json"
    write_json(path, {"a": [1, 2]})
    assert read_json(path) == {"a": [1, 2]}
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": [1, 2]}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]
    path.write_text('{"a": [1, ')
    with pytest.raises(ValueError, match=r"a\.json is not valid JSON"):
        read_json(path)


def test_of_several_writers_the_first_counts(tmp_path):
    path = tmp_path / "damping.json"
    assert write_json_once(path, {"value": 1}) == {"value": 1}
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(write_json_once, path, {"value": 2}).result() == {"value": 1}
    assert json.loads(path.read_text()) == {"value": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["damping.json"]


def test_response_checks_come_back_whole(tmp_path):
    predicted = np.arange(24.0).reshape(2, 3, 4)
    names = ("smse", "mass", "energy")
    check = response_check(predicted, 2 * predicted, [1.0, 0.5, 0.25], [[0.1, np.nan]] * 3, 2.0, 0.5, names)
    path = tmp_path / "check.json"
    assert _read_check(path) is None
    write_json(path, {"influence": {}, "version": CHECK_VERSION, "check": check.as_dict()})
    found = _read_check(path)
    for name, value in vars(check).items():
        np.testing.assert_array_equal(getattr(found, name), value)
    assert (found.trust_radius, found.radius_is_at_least) == (0.5, False)
    write_json(path, {"influence": {}, "check": {"steps": [1.0]}})
    assert _read_check(path) is None, "of an earlier version: made again"
    with pytest.raises(ValueError, match="a response check holds predicted, measured"):
        ResponseCheck.from_dict({"steps": [1.0]})


def test_what_is_no_run_is_refused(tmp_path, run):
    with pytest.raises(FileNotFoundError, match="is not the folder of a run"):
        load_run(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="holds no influence of a trained surrogate yet"):
        load_run(tmp_path)
