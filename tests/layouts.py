"""Small files in the public layouts, written with h5py alone."""

import h5py
import numpy as np


def fresh(path):
    """A place for a new file: overwriting one that is still open somewhere would fail."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)


def gas(n=3, n_times=4, x=6, y=5, seed=0):
    """Primitive ρ, vx, vy, p and total energy E, float32 ``(n, time, 5, x, y)``, PDEgym's channels."""
    generator = np.random.default_rng(seed)
    rho, p = generator.uniform(0.1, 2.0, (2, n, n_times, x, y)).astype(np.float32)
    vx, vy = generator.standard_normal((2, n, n_times, x, y)).astype(np.float32)
    energy = (p / 0.4 + 0.5 * rho * (vx**2 + vy**2)).astype(np.float32)
    return np.stack([rho, vx, vy, p, energy], 2)


def conserved(data):
    """What the readers make of it."""
    rho, vx, vy, _, energy = np.moveaxis(data, 2, 0)
    return np.stack([rho, rho * vx, rho * vy, energy], 2)


def write_pdegym(path, data, variable="data", **options):
    fresh(path)
    with h5py.File(path, "w") as file:
        for name, size in zip(("sample", "time", "channel", "x", "y"), data.shape, strict=True):
            file.create_dataset(name, data=np.zeros(size, np.float32)).make_scale(name)
        stored = file.create_dataset(variable, data=data, **({"chunks": (1, 1, *data.shape[2:])} | options))
        for axis, name in enumerate(("sample", "time", "channel", "x", "y")):
            stored.dims[axis].attach_scale(file[name])
    return path


def write_well(path, data, gamma=1.4, absent=()):
    """``absent``: field → axes (of sample, time, x, y) that it lacks; there it holds the values of index 0."""
    fresh(path)
    n, times, _, x, y = data.shape
    fields = {"t0_fields/density": conserved(data)[:, :, 0], "t0_fields/energy": conserved(data)[:, :, 3],
              "t0_fields/pressure": data[:, :, 3],
              "t1_fields/momentum": np.moveaxis(conserved(data)[:, :, 1:3], 2, -1)}  # fmt: skip
    with h5py.File(path, "w") as file:
        file.attrs.update({"dataset_name": "euler_multi_quadrants_periodicBC", "grid_type": "cartesian",
                           "n_spatial_dims": 2, "n_trajectories": n, "simulation_parameters": ["gamma"],
                           "gamma": gamma})  # fmt: skip
        file["dimensions/time"] = np.arange(times, dtype=np.float32) * 0.015
        file["dimensions/x"] = np.arange(x, dtype=np.float32) / x
        file["dimensions/y"] = np.arange(y, dtype=np.float32) / y
        file["scalars/gamma"] = gamma
        file.create_group("boundary_conditions/x_periodic").attrs["bc_type"] = "PERIODIC"
        file.create_group("t2_fields").attrs["field_names"] = []
        for name, values in fields.items():
            lacking = dict(absent).get(name.split("/")[1], ())
            at = tuple(0 if axis in lacking else slice(None) for axis in range(4))
            stored = file.create_dataset(name, data=values[at])
            stored.attrs["sample_varying"], stored.attrs["time_varying"] = 0 not in lacking, 1 not in lacking
            stored.attrs["dim_varying"] = [2 not in lacking, 3 not in lacking]
    return path


def write_pdebench(path, data):
    fresh(path)
    n_times, x, y = data.shape[1], *data.shape[3:]
    with h5py.File(path, "w") as file:
        for channel, name in enumerate(("density", "Vx", "Vy", "pressure")):
            file[name] = data[:, :, channel]
        file["t-coordinate"] = np.arange(n_times + 1, dtype=np.float32) * 0.05
        file["x-coordinate"] = (np.arange(x, dtype=np.float32) + 0.5) / x
        file["y-coordinate"] = (np.arange(y, dtype=np.float32) + 0.5) / y
        file.attrs.update({"eta": 0.1, "zeta": 0.1, "M": 0.1})
    return path
