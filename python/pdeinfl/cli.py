"""The command line. Exit codes: 0 done, 2 bad usage or bad input (one line), 1 a fault of ours, 130 interrupted."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import click

FOLDER = click.Path(path_type=Path, file_okay=False)


def _names(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = tuple(part.strip() for part in value.split(",") if part.strip())
    if not names:
        raise click.BadParameter("give at least one name, several separated by commas")
    return names


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="pdeinfl")
def cli() -> None:
    """Has a neural PDE surrogate learned the dynamics, or memorised them?

    Influence functions for autoregressive surrogates, with certified error.
    """


@cli.command()
@click.option("--out", type=FOLDER, help="Folder of the run.  [default: runs/demo or runs/demo_ns]")
@click.option("--equation", type=click.Choice(["CE", "NS"]), default="CE", show_default=True)
def demo(out: Path | None, equation: str) -> None:
    """The whole job, small: simulate, train two surrogates, influence, report (about five minutes on two cores)."""
    from pdeinfl.experiment import parse_config, run_experiment
    from pdeinfl.experiment.config import tomllib

    name = "demo" if equation == "CE" else "demo_ns"
    text = resources.files("pdeinfl.configs").joinpath(f"{name}.toml").read_text()
    config = parse_config(tomllib.loads(text), name)
    run_experiment(config, out or Path("runs") / name, command=_command("demo", "--equation", equation, out=out))


@cli.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--out", type=FOLDER, help="Folder of the run.  [default: runs/NAME]")
@click.option("--stages", callback=_names, help="Some of data,train,influence,report.  [default: all]")
def run(config: Path, out: Path | None, stages: tuple[str, ...] | None) -> None:
    """Run CONFIG.toml: every stage that is not there yet. Under torchrun or a SLURM array, processes share the work."""
    from pdeinfl.experiment import load_config, run_experiment
    from pdeinfl.experiment.stages import STAGES

    unknown = set(stages or ()) - set(STAGES)
    if unknown:
        raise click.UsageError(f"unknown stage {sorted(unknown)[0]!r}; stages are {', '.join(STAGES)}")
    loaded = load_config(config)
    folder = out or Path("runs") / loaded.name
    run_experiment(loaded, folder, stages=stages or STAGES, command=_command("run", config, out=out))


def _command(*words: object, out: Path | None) -> str:
    """What reproduces the run, for the report."""
    return shlex.join(["pdeinfl", *map(str, words), *(["--out", str(out)] if out else [])])


@cli.command()
@click.option("--equation", type=click.Choice(["CE", "NS"]), required=True)
@click.option("--classes", callback=_names, required=True, help="Initial-condition classes, e.g. RP,CRP,RPUI.")
@click.option("--per-class", type=click.IntRange(1), required=True, help="Trajectories of each class.")
@click.option("--resolution", type=click.IntRange(4), required=True, help="Cells along each axis.")
@click.option("--steps", type=click.IntRange(1), default=20, show_default=True, help="Steps of 0.05 time units.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--preset", default="release_like", show_default=True, help="CE: release_like or paper.")
@click.option("--refinement", type=click.IntRange(1), help="CE: simulate finer and average blocks.  [default: 2]")
@click.option("--part-size", type=click.IntRange(1), help="Trajectories of a file.  [default: all of a class]")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: all]")
@click.option("--device", help="NS: where to compute, such as cuda.  [default: cpu]")
@click.option("--out", type=FOLDER, required=True, help="Folder of the files, one per class.")
def simulate(
    equation: str,
    classes: tuple[str, ...],
    per_class: int,
    resolution: int,
    steps: int,
    seed: int,
    preset: str,
    refinement: int | None,
    part_size: int | None,
    threads: int | None,
    device: str | None,
    out: Path,
) -> None:
    """Simulate labelled trajectories into files of the PDEgym layout; resumes what was interrupted."""
    from pdeinfl.data.simulators.simulation_files import simulate_to_files

    if threads is not None and equation == "NS":
        import torch

        torch.set_num_threads(threads)
    written = simulate_to_files(
        out,
        classes,
        per_class,
        resolution,
        steps,
        seed,
        preset,
        refinement=refinement,
        equation=equation,
        part_size=part_size,
        num_threads=threads,
        device=device,
        progress=True,
    )
    for path in written:
        click.echo(str(path))


@cli.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--out", type=FOLDER, help="Folder of the run.  [default: runs/NAME]")
def train(config: Path, out: Path | None) -> None:
    """Train the surrogates of CONFIG.toml (with its data); resumes what was interrupted."""
    _stages(config, out, ("data", "train"), "train")


@cli.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--out", type=FOLDER, help="Folder of the run.  [default: runs/NAME]")
def influence(config: Path, out: Path | None) -> None:
    """Compute the influences of CONFIG.toml from its checkpoints; resumes what was interrupted."""
    _stages(config, out, ("influence",), "influence")


def _stages(config: Path, out: Path | None, stages: tuple[str, ...], command: str) -> None:
    from pdeinfl.experiment import load_config, run_experiment

    loaded = load_config(config)
    run_experiment(loaded, out or Path("runs") / loaded.name, stages=stages, command=_command(command, config, out=out))


@cli.command()
@click.argument("run_directory", type=click.Path(path_type=Path))
@click.option("--out", type=FOLDER, help="Folder of the page.  [default: RUN_DIRECTORY/report]")
def report(run_directory: Path, out: Path | None) -> None:
    """Write the report of a run: figures (PNG, PDF) and one HTML page that opens offline."""
    from pdeinfl.html_report import report as write_report

    click.echo(str(write_report(run_directory, out, progress=True)))


@cli.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--mini-batch", type=click.IntRange(0), default=0, show_default=True, help="One trajectory per class.")
@click.option("--transitions", type=click.IntRange(1), help="Of each trajectory.  [default: all]")
@click.option("--response", callback=_names, help="Observables.  [default: the conserved and smse that DATA has]")
@click.option("--relative-damping", type=float, default=1e-3, show_default=True)
@click.option("--tol", type=float, default=0.02, show_default=True)
@click.option("--figure", type=click.Path(path_type=Path), help="Write the figure to this stem (.png, .pdf).")
def check(
    checkpoint: Path,
    data: tuple[Path, ...],
    mini_batch: int,
    transitions: int | None,
    response: tuple[str, ...] | None,
    relative_damping: float,
    tol: float,
    figure: Path | None,
) -> None:
    """Does the model of CHECKPOINT answer a step along -1/eta g as H says, on a mini-batch of DATA?

    CHECKPOINT is one that `pdeinfl train` or a run wrote.
    """
    from pdeinfl import figures
    from pdeinfl.analysis.response_checks import response_check
    from pdeinfl.data.readers import open_trajectories
    from pdeinfl.engine.damping import Damping
    from pdeinfl.engine.influence_matrix import influence as compute
    from pdeinfl.surrogates.checkpoint import load_checkpoint

    model, _ = load_checkpoint(checkpoint)
    batch = open_trajectories(list(data)).mini_batch(mini_batch, n_transitions=transitions)
    result = compute(model, batch, response, damping=Damping.relative(relative_damping), tol=tol, progress=True)
    found = response_check(model, batch, result)
    n, bad = found.predicted.size, found.n_exceeding
    click.echo(
        f"the model answers as H says: all {n} responses lie within its certified error"
        if not bad
        else f"the model does NOT answer as H says: {bad} of {n} responses differ by more than its certified error"
    )
    click.echo(f"observed order                 {found.order:.2f}  (2: truncation of the central difference)")
    click.echo(f"difference from -H             {found.relative_difference:.2e}  relative, of the worst observable")
    click.echo(f"certified error of H           {result.relative_error.max():.2e}")
    bound = ">= " if found.radius_is_at_least else ""
    note = "largest step tried, " if bound else ""
    click.echo(
        f"trust radius                   {bound}{found.trust_radius:g}  ({note}{found.observables[0]}; 1: whole step)"
    )
    for k, j in enumerate(found.perturbations):
        label = result.perturbation_labels
        where = f"{label.class_names[label.class_ids[j]]}, time {label.times[j]}"
        click.echo(
            f"  perturbation {j} ({where}): truncation at eps = 1: {found.errors[list(found.steps).index(1.0), k]:.2e}"
        )
    if figure is not None:
        for path in figures.save(figures.response_check(found), figure):
            click.echo(str(path))


@cli.command()
@click.argument("file", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--figure", type=click.Path(path_type=Path), help="Write thumbnails to this stem (.png, .pdf).")
def inspect(file: tuple[Path, ...], figure: Path | None) -> None:
    """What FILEs hold (trajectories, influences, checkpoints): shapes, moments, conserved totals, what is wrong.

    Exit code 2 where something is wrong.
    """
    from pdeinfl.file_contents import describe_file

    if figure is not None and len(file) > 1:
        raise click.UsageError("--figure goes with one FILE (or one folder of classes)")
    n_faults = 0
    for path in file:
        try:
            text, faults = describe_file(path, figure)
        except (ValueError, OSError) as error:
            if len(file) == 1:
                raise
            text, faults = f"error: {_one_line(error)}", 1
        click.echo(text)
        n_faults += faults
    if n_faults:
        raise ValueError(f"{n_faults} problem{'s' if n_faults > 1 else ''} found, listed above")


@cli.command()
def info() -> None:
    """Versions, devices and threads that pdeinfl runs with."""
    import platform

    import h5py
    import numpy as np
    import torch

    from pdeinfl import _core
    from pdeinfl.engine.memory import free_memory

    cuda = ", ".join(torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())) or "none"
    rows = {
        "pdeinfl": _core.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "h5py": f"{h5py.__version__} (HDF5 {h5py.version.hdf5_version})",
        "platform": platform.platform(),
        "CUDA devices": cuda,
        "torch threads": str(torch.get_num_threads()),
        "free memory": f"{free_memory(torch.device('cpu')) / 2**30:.1f} GiB",
    }
    for name, value in rows.items():
        click.echo(f"{name:14s} {value}")


def _one_line(error: BaseException | str) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def main(arguments: list[str] | None = None) -> None:
    """Entry point: maps errors to exit codes."""
    _terminate_like_interrupt()
    _spin_briefly()
    sys.exit(invoke(arguments))


def _spin_briefly() -> None:
    """Unless the environment says otherwise, have idle threads of GNU OpenMP, which PyTorch brings and which reads this
    when it is loaded, spin for half a millisecond: by default it is 16, on cores that the Rust core's threads wait for;
    not to spin at all costs more, for each of PyTorch's operations then wakes them."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _terminate_like_interrupt() -> None:
    def stop(signum: int, frame: Any) -> None:
        raise KeyboardInterrupt

    def deliver_again(unraisable: Any) -> None:
        # An interrupt that arrives inside a destructor or a weak reference's callback would be lost.
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            sys.__unraisablehook__(unraisable)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGALRM, stop)
    sys.unraisablehook = deliver_again


def invoke(arguments: Sequence[str] | None = None) -> int:
    """Run a command in this process and return its exit code; a fault of ours passes through as it is."""
    try:
        result = cli.main(arguments, prog_name="pdeinfl", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
            error.show()
            return 2
        hint = f" (see `{context.command_path} --help`)" if context is not None else ""
        click.echo(f"error: {_one_line(error.format_message())}{hint}", err=True)
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted: what was finished is kept; run the same command to go on", err=True)
        return 130
    except (ValueError, OSError, MemoryError) as error:
        click.echo(f"error: {_one_line(error)}", err=True)
        return 2


if __name__ == "__main__":
    main()
