"""The configuration file: every entry checked by name before anything starts."""

import dataclasses
import json
from importlib import resources

import pytest

import pdeinfl as pi
from pdeinfl.data.mini_batch import CE_CHANNELS, NS_CHANNELS
from pdeinfl.data.writer import write_trajectories
from pdeinfl.experiment.config import load_config, parse_config, tomllib
from pdeinfl.experiment.feasibility import check_feasible

VIT = {"vit": {"kind": "ViT", "width": 16, "depth": 1}}


def parse(**tables):
    return parse_config({"surrogates": VIT, **tables}, "name")


def test_shipped_configurations_are_feasible():
    shipped = [f for f in resources.files("pdeinfl.configs").iterdir() if f.name.startswith("demo")]
    assert shipped
    for file in shipped:
        config = parse_config(tomllib.loads(file.read_text()), file.name)
        check_feasible(config)
        assert len(config.surrogates) == 2
        assert len(config.seeds) >= 2
        assert config.influence.mini_batches >= 3


def test_defaults_and_overrides():
    tables = {"a": {"kind": "ViT"}, "b": {"kind": "UNet", "base": 4, "epochs": 3, "lr": 1}}
    config = parse(training={"epochs": 7}, surrogates=tables)
    assert config.name == "name"
    assert config.seeds == (10, 35, 42)
    assert [s.training.epochs for s in config.surrogates] == [7, 3]
    assert [s.training.lr for s in config.surrogates] == [5e-4, 1.0]
    assert config.surrogates[1].arguments == {"base": 4}
    assert config.influence.requested().is_relative
    absolute = parse(influence={"damping": 1e-4}).influence.requested()
    assert (absolute.value, absolute.is_relative) == (1e-4, False)
    assert json.loads(json.dumps(config.as_dict()))["seeds"] == [10, 35, 42]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.name = "other"


@pytest.mark.parametrize(
    ("response", "perturbation", "control"),
    [
        (("smse", "mass", "energy"), ("smse",), ("smse",)),
        (("smse", "mass"), ("mass", "smse"), ("mass", "smse")),
        (("mass", "smse"), ("mass",), ("smse", "mass")),
        (("mass", "energy"), ("smse",), ("mass", "smse")),
        (("mass", "energy"), ("mass",), ("mass",)),
    ],
)
def test_controls_respond_with_the_observable_of_the_answer(response, perturbation, control):
    influence = parse(influence={"response": response, "perturbation": perturbation}).influence
    assert influence.control_response(CE_CHANNELS) == control


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"dta": {}}, "the top level has the unknown entry 'dta'; known: data, influence"),
        ({"run": {"seed": [1]}}, r"\[run\] has the unknown entry 'seed'; known: device, name, seeds"),
        ({"influence": {"tolerance": 1}}, r"\[influence\] has the unknown entry 'tolerance'"),
        ({"data": {"resolution": "32"}}, "data.resolution must be an integer; got '32'"),
        ({"data": {"resolution": True}}, "data.resolution must be an integer; got True"),
        ({"data": {"split": ["a"]}}, "data.split must be a number; got 'a'"),
        ({"influence": {"controls": 1}}, "influence.controls must be true or false; got 1"),
        ({"influence": {"solver": "magic"}}, "influence.solver must be one of cg, .*; got 'magic'"),
        ({"influence": {"metric": "max"}}, "influence.metric must be one of sum, mean; got 'max'"),
        ({"influence": {"tol": 0.0}}, "influence.tol must be positive; got 0.0"),
        ({"influence": {"per_class": 0}}, "influence.per_class must be positive; got 0"),
        ({"influence": {"damping": -1}}, "influence.damping must not be negative; got -1"),
        ({"influence": {"relative_damping": -1}}, "influence.relative_damping: .* positive finite number; got -1"),
        ({"training": {"batch_size": 0}}, "surrogates.vit.batch_size must be positive; got 0"),
        ({"run": {"seeds": [1, 1]}}, "run.seeds must be different integers"),
        ({"run": {"seeds": []}}, "run.seeds must be different integers, at least one"),
        ({"surrogates": {}}, r"\[surrogates\] is empty"),
        ({"surrogates": {"a": {"width": 3}}}, r"\[surrogates.a\] must be a table with an entry `kind`"),
    ],
)
def test_bad_entries_are_named(tables, message):
    with pytest.raises(ValueError, match=message):
        parse(**tables)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"data": {"equation": "MHD"}}, "`equation` must be one of CE, NS; got 'MHD'"),
        ({"data": {"classes": ["RP", "BB"]}}, "must be among RP, CRP, RPUI for CE; got 'BB'"),
        ({"data": {"per_class": 2}}, "class RP has 2 trajectories, too few for 3 parts"),
        ({"data": {"split": [0.5, 0.6]}}, "sum to 1"),
        ({"data": {"preset": "best"}}, "`preset` must be one of"),
        ({"data": {"resolution": 30}}, r"\[surrogates.vit\]: .*30"),
        ({"surrogates": {"a": {"kind": "MLP"}}}, r"\[surrogates.a\]: `kind` of a surrogate must be one of"),
        ({"surrogates": {"a": {"kind": "ViT", "wdth": 3}}}, r"\[surrogates.a\]: ViT has no argument 'wdth'; valid"),
        ({"influence": {"response": ["smse", "vorticity"]}}, "influence.response: .*vorticity"),
        ({"influence": {"epochs": [50]}}, "influence.epochs must lie between 0 and the 20 epochs of vit; got 50"),
        ({"influence": {"transitions": 17}}, "influence.transitions must be at most the 16 of a trajectory; got 17"),
        ({"data": {"snapshots": 18}}, "data.snapshots must be at most the 17"),
        ({"data": {"path": ["none.nc"]}}, "none.nc"),
    ],
)
def test_what_cannot_run_is_refused(tables, message):
    check_feasible(parse())
    with pytest.raises((ValueError, OSError), match=message):
        check_feasible(parse(**tables))


def test_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no configuration at"):
        load_config(tmp_path / "none.toml")
    path = tmp_path / "mine.toml"
    path.write_text("[run\n")
    with pytest.raises(ValueError, match=r"mine\.toml is not valid TOML"):
        load_config(path)
    path.write_text('[surrogates.a]\nkind = "ViT"\n[data]\nsise = 3\n')
    with pytest.raises(ValueError, match=r"mine\.toml: \[data\] has the unknown entry 'sise'"):
        load_config(path)
    path.write_text('[surrogates.a]\nkind = "ViT"\n')
    assert load_config(path).name == "mine"


def test_what_responds_by_default_is_what_the_channels_allow():
    surrogates = {"surrogates": {"a": {"kind": "ViT"}}}
    unsaid = parse_config(surrogates).influence
    assert unsaid.responses(CE_CHANNELS) == ("smse", "mass", "energy")
    assert unsaid.responses(NS_CHANNELS) == ("smse", "kinetic_energy", "enstrophy")
    assert unsaid.responses(("heat",)) == unsaid.control_response(("heat",)) == ("smse",)
    said = parse_config({**surrogates, "influence": {"response": ["smse"]}}).influence
    assert said.responses(NS_CHANNELS) == ("smse",)


def test_own_files_of_any_equation_run_without_naming_responses(tmp_path):
    """Navier–Stokes files under the default ``equation``, which is for simulations."""
    flow = pi.simulate("NS", ("BB",), n_per_class=4, resolution=16, n_steps=2, seed=0)
    write_trajectories(tmp_path, flow)
    data = {"path": [str(tmp_path / "NS-BB.nc")], "split": [0.5, 0.25, 0.25]}
    check_feasible(parse_config({"surrogates": {"a": {"kind": "ViT", "width": 8, "depth": 1}}, "data": data}))
