"""Cross-check of the Euler solver against pyro-hydro, an independent unsplit solver, on a smooth periodic flow and on
Riemann quadrants: L1 difference of the density, next to how far the flow itself moved.

    pip install -e '.[crosscheck]' && python benches/crosscheck_pyro.py

Both solvers are second order, so on the smooth flow the difference must fall about fourfold per doubling.
"""

from __future__ import annotations

import argparse

import numpy as np

from pdeinfl.data.simulators.euler import solve_euler
from pdeinfl.data.simulators.initial_conditions import draw_states, initial_condition

GAMMA = 1.4
CHANNELS = ("density", "x-momentum", "y-momentum", "energy")


def smooth(n: int) -> np.ndarray:
    """Crossed density and velocity waves, primitives ``(4, n, n)``."""
    x = (np.arange(n) + 0.5) / n
    wave = np.sin(2 * np.pi * (x[:, None] + 0 * x)), np.cos(2 * np.pi * (x[None, :] + 0 * x[:, None]))
    return np.stack([1 + 0.3 * wave[0] * wave[1], 0.3 * wave[1], 0.2 * wave[0], 0.8 + 0.1 * wave[0]])


def quadrants(n: int) -> np.ndarray:
    """The first RP draw of seed 0."""
    return draw_states("RP", initial_condition("RP", "release_like"), range(1), n, 0)[0]


def pyro(primitives: np.ndarray, time: float) -> np.ndarray:
    """pyro's conserved state at ``time``, ``(4, n, n)``."""
    from pyro import Pyro

    n = primitives.shape[-1]
    sides = {f"mesh.{side}boundary": "periodic" for side in ("xl", "xr", "yl", "yr")}
    box = {"mesh.nx": n, "mesh.ny": n, "mesh.xmin": 0.0, "mesh.xmax": 1.0, "mesh.ymin": 0.0, "mesh.ymax": 1.0}
    driver = {"driver.cfl": 0.4, "driver.tmax": time, "driver.max_steps": 100_000, "driver.fix_dt": -1.0}
    scheme = {"compressible.riemann": "HLLC", "compressible.limiter": 2, "compressible.cvisc": 0.0, "eos.gamma": GAMMA}
    run = Pyro("compressible")
    settings = {**sides, **box, **driver, **scheme, "driver.init_tstep_factor": 1.0, "compressible.use_flattening": 0}
    run.initialize_problem("quad", inputs_file="inputs.quad", inputs_dict=settings)
    rho, vx, vy, p = primitives
    data, grid = run.sim.cc_data, run.sim.cc_data.grid
    inside = (slice(grid.ilo, grid.ihi + 1), slice(grid.jlo, grid.jhi + 1))
    conserved = (rho, rho * vx, rho * vy, p / (GAMMA - 1) + rho * (vx**2 + vy**2) / 2)
    for name, value in zip(CHANNELS, conserved, strict=True):
        data.get_var(name)[inside] = value
    data.fill_BC_all()
    run.run_sim()
    return np.stack([np.array(data.get_var(name))[inside] for name in CHANNELS])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--time", type=float, default=0.1)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64])
    arguments = parser.parse_args()
    print("| flow | cells | L1 difference of density | L1 change of the flow |\n|---|---|---|---|")
    for name, flow in (("smooth", smooth), ("RP", quadrants)):
        for n in arguments.sizes:
            start = flow(n)
            ours = solve_euler(start[None], 1, interval=arguments.time)[0][0, -1]
            theirs = pyro(start, arguments.time)
            moved = np.abs(ours[0] - start[0]).mean()
            print(f"| {name} | {n}² | {np.abs(ours[0] - theirs[0]).mean():.2e} | {moved:.2e} |")


if __name__ == "__main__":
    main()
