"""`Influence`: the influence matrix of one mini-batch with its labels, certificate and provenance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any

import numpy as np

from pdeinfl import _core
from pdeinfl.arguments import is_listed
from pdeinfl.data.labelled_arrays import import_xarray
from pdeinfl.engine.audit import Audit
from pdeinfl.engine.certificate import DampingPath, relative_error, rounding_factor, row_norms, row_spreads
from pdeinfl.engine.damping import Damping
from pdeinfl.engine.shortfall import shortfall
from pdeinfl.engine.sketch_path import SketchPath
from pdeinfl.engine.standardized_error import DIAGONAL_KINDS, standardized_error


@dataclass(frozen=True, eq=False)
class Labels:
    """Class, trajectory and time of each example, three ``(n,)`` int64 arrays, and the names of the classes."""

    class_ids: np.ndarray
    trajectory_ids: np.ndarray
    times: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.class_ids)


@dataclass(frozen=True, eq=False)
class Influence:
    """``H_AB[i, j] = g_A,iᵀ η⁻¹ g_B,j``: how a descent step on perturbation j lowers observable A at response i.

    Attributes:
        values: H, float64 ``(n_response_observables, n_perturbation_observables, n_response, n_perturbation)``.
        error_bound: certified elementwise ``|error|`` (MATH §3), rounding included, same shape; of `sketch` it is an
            estimate (`bound_is_estimate`), and so are ``relative_error`` and ``converged``.
        row_error: certified Euclidean norm of each row's error, ``(n_response_observables, n_perturbation_observables,
            n_response)``; smaller than the norm of the row's ``error_bound``.
        relative_error: Frobenius norm of the bound over that of the values, per pair of observables.
        converged: every relative error is at most ``tol``.
        damping, lambda_max: absolute λ and the largest eigenvalue of the metric.
        gradient_overlap: GᵀG, the shape of ``values``: H·λ in the limit λ → ∞.
        n_jvp, n_vjp: Jacobian products over the metric mini-batch.
        ritz_values, subspace_dof, effective_dof, participation: MATH §3; ``effective_dof`` is None where it was not
            asked for, else (value, low, high).
        audit: the check of some right-hand sides with float64 products; None where it was not asked for.
        product_error, gradient_error: measured relative rounding of products and of gradients.
        losses: SMSE of the response examples, ``(n_response,)``; persistence_losses: the same of a prediction that
            nothing changes; input_distance: MATH §5, ``(n_response, n_perturbation)``; each None where unknown.
        settings: everything else that decided the numbers, JSON-able.
    """

    values: np.ndarray
    error_bound: np.ndarray
    row_error: np.ndarray
    relative_error: np.ndarray
    converged: bool
    response_names: tuple[str, ...]
    perturbation_names: tuple[str, ...]
    response_labels: Labels
    perturbation_labels: Labels
    damping: float
    lambda_max: float
    gradient_overlap: np.ndarray
    n_jvp: int = 0
    n_vjp: int = 0
    ritz_values: np.ndarray = field(default_factory=lambda: np.empty(0))
    subspace_dof: float = float("nan")
    effective_dof: tuple[float, float, float] | None = None
    audit: Audit | None = None
    product_error: float = 0.0
    gradient_error: float = 0.0
    tol: float = 0.0
    losses: np.ndarray | None = None
    persistence_losses: np.ndarray | None = None
    input_distance: np.ndarray | None = None
    run: str = ""
    seed: int = 0
    epoch: int = 0
    mini_batch: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    path: DampingPath | SketchPath | None = None
    step: Callable[[int, float], Any] | None = None

    def __repr__(self) -> str:
        pairs = f"{', '.join(self.response_names)} | {', '.join(self.perturbation_names)}"
        kind = "estimated, not certified" if self.bound_is_estimate else "certified"
        state = "converged" if self.converged else f"not converged to {self.tol:g}" if self.tol else "not converged"
        state += f" ({self.shortfall})" if self.shortfall else ""
        unresolved = int(self.unresolved_rows.any((0, 1)).sum())
        if unresolved:
            state += f", {unresolved} of {len(self.response_labels)} rows unresolved"
        n, m = self.values.shape[2:]
        error = f"relative error {self.relative_error.max(initial=0.0):.1e} ({kind})"
        relative = self.damping / self.lambda_max if self.lambda_max > 0 else float("nan")
        damping = f"damping {self.damping:.3g}" + ("" if np.isnan(relative) else f" = {relative:.2g} λ_max")
        return f"Influence({pairs}: {n} x {m}, {damping}, {error}, {state})"

    @property
    def shortfall(self) -> str:
        """Why it is not ``converged``, and the remedy, in one line; empty where it is."""
        return shortfall(self)

    @property
    def bound_is_estimate(self) -> bool:
        """Whether ``error_bound`` is a statistical estimate (`sketch`) instead of a certificate."""
        return isinstance(self.path, SketchPath)

    @property
    def unresolved_rows(self) -> np.ndarray:
        """Whether the error of a row may exceed half of the row's spread ``‖H_i − mean‖``, so that its standardised
        form says little: bool ``(n_response_observables, n_perturbation_observables, n_response)``. False where bounds
        are unknown."""
        return self.row_error > 0.5 * row_spreads(self.values)

    def __getstate__(self) -> dict[str, Any]:
        # Steps are closures over the solver's basis: as in a stored result, they stay behind.
        return {**self.__dict__, "step": None}

    @classmethod
    def from_arrays(
        cls,
        values: Any,
        class_ids: Any,
        trajectory_ids: Any,
        times: Any,
        response: Sequence[str] = ("smse",),
        perturbation: Sequence[str] = ("smse",),
        class_names: Sequence[str] | None = None,
        run: str = "",
        seed: int = 0,
        epoch: int = 0,
        mini_batch: int = 0,
        input_distance: Any = None,
        losses: Any = None,
        error_bound: Any = None,
    ) -> Influence:
        """An `Influence` from a matrix computed elsewhere; it has no damping path.

        Args:
            values: ``(n_response_observables, n_perturbation_observables, n, n)``, or ``(n, n)`` for one pair.
            class_ids, trajectory_ids, times: ``(n,)`` integers.
            response, perturbation: names of the observables.
            class_names: names that ``class_ids`` index; default ``class 0``, ….
            run, seed, epoch, mini_batch: where the matrix belongs in a run.
            input_distance: ``(n, n)``, for the distance decay. losses: ``(n,)``, for the ``loss`` standardisation.
            error_bound: largest ``|error|`` of each entry, the shape of ``values``; default unknown (NaN).

        Raises:
            ValueError: a shape does not fit the others.
        """
        response = (response,) if isinstance(response, str) else tuple(response)
        perturbation = (perturbation,) if isinstance(perturbation, str) else tuple(perturbation)
        h = np.array(values, dtype=np.float64)
        h = h[None, None] if h.ndim == 2 else h
        if h.ndim != 4 or h.shape[:2] != (len(response), len(perturbation)) or h.shape[2] != h.shape[3]:
            raise ValueError(
                f"`values` must have shape (n, n) or ({len(response)}, {len(perturbation)}, n, n); "
                f"got {np.shape(values)}"
            )
        n = h.shape[2]
        arrays = []
        for name, given in (("class_ids", class_ids), ("trajectory_ids", trajectory_ids), ("times", times)):
            array = np.asarray(given)
            if array.shape != (n,) or (array.dtype.kind not in "iu" and n):
                raise ValueError(f"`{name}` must be {n} integers; got {array.dtype} of shape {array.shape}")
            arrays.append(array.astype(np.int64))
        n_classes = int(arrays[0].max(initial=-1)) + 1
        names = tuple(class_names) if class_names is not None else tuple(f"class {k}" for k in range(n_classes))
        if len(names) < n_classes:
            raise ValueError(f"`class_names` must name every class: ids reach {n_classes - 1}, got {len(names)} names")
        optional: dict[str, Any] = {}
        for name, given, shape in (("input_distance", input_distance, (n, n)), ("losses", losses, (n,))):
            optional[name] = None if given is None else np.array(given, dtype=np.float64)
            if given is not None and optional[name].shape != shape:
                raise ValueError(f"`{name}` must have shape {shape}; got {optional[name].shape}")
        labels = Labels(arrays[0], arrays[1], arrays[2], names)
        unknown = np.full(h.shape, np.nan)
        bound = unknown if error_bound is None else np.array(error_bound, dtype=np.float64)
        bound = bound[None, None] if bound.ndim == 2 else bound
        if bound.shape != h.shape:
            raise ValueError(f"`error_bound` must have the shape of `values`, {np.shape(values)}; got {bound.shape}")
        return cls(
            values=h,
            error_bound=bound,
            row_error=row_norms(bound),
            relative_error=relative_error(h, bound),
            converged=False,
            response_names=response,
            perturbation_names=perturbation,
            response_labels=labels,
            perturbation_labels=labels,
            damping=float("nan"),
            lambda_max=float("nan"),
            gradient_overlap=unknown,
            run=run,
            seed=seed,
            epoch=epoch,
            mini_batch=mini_batch,
            **optional,
        )

    @property
    def labels(self) -> Labels:
        """Labels of the response examples (those of the perturbations where the batches are the same)."""
        return self.response_labels

    @property
    def same_examples(self) -> bool:
        """Whether responses and perturbations are the same examples in the same order, by their labels."""
        a, b = self.response_labels, self.perturbation_labels
        names = ("class_ids", "trajectory_ids", "times")
        return a is b or all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)

    @property
    def participation(self) -> float:
        """``(tr H)²/‖H‖_F²`` of the first observable that both responds and perturbs on the same examples, else NaN."""
        for a, name in enumerate(self.response_names):
            if name in self.perturbation_names and self.same_examples:
                h = self.values[a, self.perturbation_names.index(name)]
                return float(np.trace(h) ** 2 / np.sum(h * h))
        return float("nan")

    def pair_index(self, response: str, perturbation: str) -> tuple[int, int]:
        """Position of a pair of observables in ``values``.

        Raises:
            KeyError: an observable that this result does not hold; the message lists those it holds.
        """
        sides = (("response", response, self.response_names), ("perturbation", perturbation, self.perturbation_names))
        for side, name, names in sides:
            if name not in names:
                raise KeyError(f"no {side} observable {name!r}; this result holds {', '.join(names)}")
        return self.response_names.index(response), self.perturbation_names.index(perturbation)

    def __getitem__(self, pair: tuple[str, str]) -> np.ndarray:
        """The block of one ``(response, perturbation)`` pair, ``(n_response, n_perturbation)``."""
        if isinstance(pair, str) or len(pair) != 2:
            raise KeyError(f'name a response and a perturbation, as in result["smse", "smse"]; got {pair!r}')
        return self.values[self.pair_index(*pair)]

    def at_damping(self, dampings: Sequence[float | Damping]) -> list[Influence]:
        """The same influence at other dampings, each with its own bounds; costs no Jacobian product.

        Args:
            dampings: absolute numbers or `Damping`s (relative ones to this result's ``lambda_max``).

        Raises:
            ValueError: a damping is not positive, or this result holds no path (built by ``from_arrays``).
        """
        if self.path is None:
            raise ValueError("this influence has no damping path: it was built from arrays, not by `pi.influence`")
        if not is_listed(dampings):
            raise ValueError(f"`dampings` must be a list of numbers or `pi.Damping`s; got {dampings!r}")
        # What contradicts the solution at one damping does so at all: they come from one subspace.
        sound = self.audit is None or self.audit.agrees
        out = []
        for damping in dampings:
            value = Damping.of(damping).resolve(self.lambda_max)
            if value == self.damping:
                out.append(self)
                continue
            top = max(self.lambda_max, self.path.largest)
            rounding = rounding_factor(self.product_error, self.gradient_error, top, value)
            certified = self.path.certified(self.values.shape, value, rounding, self.tol)
            out.append(
                replace(
                    self,
                    values=certified.values,
                    error_bound=certified.error_bound,
                    row_error=certified.row_error,
                    relative_error=certified.relative_error,
                    converged=certified.converged and sound,
                    damping=value,
                    subspace_dof=self.path.subspace_dof(value),
                    effective_dof=None,
                    audit=None if sound else self.audit,
                )
            )
        return out

    def parameter_step(self, perturbation: int, observable: str | None = None) -> Any:
        """``V_j = −η⁻¹ g_j``, the parameter step of one perturbation, a flat float64 tensor ``(P,)`` (MATH §2).

        Args:
            perturbation: index j of the perturbation example.
            observable: which perturbation observable; default the first.

        Raises:
            ValueError: the solution is not held (the result was loaded, computed with ``keep_steps=False``, or by
                `sketch`).
            IndexError: no such perturbation.
        """
        if self.step is None:
            raise ValueError(
                "parameter steps are not held by a stored result or by `sketch`: call `pi.influence` again"
            )
        n = len(self.perturbation_labels)
        if not -n <= perturbation < n:
            raise IndexError(f"`perturbation` must be an index into {n} examples; got {perturbation}")
        name = self.perturbation_names[0] if observable is None else observable
        block = self.pair_index(self.response_names[0], name)[1]
        return self.step(block * n + perturbation % n, self.damping)

    def standardize(self, kind: str = "standard") -> np.ndarray:
        """Standardised H (MATH §4), the shape of ``values``; rows without variation become NaN.

        Args:
            kind: ``standard``, ``cosine``, ``trace``, ``by_response``, ``by_perturbation``, ``loss`` or ``none``.

        Raises:
            ValueError: unknown kind; ``standard`` with one perturbation; a kind that needs a square H or losses that
                this result lacks.
        """
        n_a, n_b, n_r, n_p = self.values.shape
        if kind in DIAGONAL_KINDS and not self.same_examples:
            raise ValueError(f"`kind` {kind!r} needs the same examples as responses and perturbations, in one order")
        losses = None if self.losses is None else np.broadcast_to(self.losses, (n_a * n_b, n_r)).copy()
        values, _ = _core.standardize(self.values.reshape(n_a * n_b, n_r, n_p), kind, losses)
        return values.reshape(self.values.shape)

    def standardized_error(self, kind: str = "standard") -> np.ndarray:
        """Largest error of each entry of :meth:`standardize` that the bounds of H allow, the shape of ``values``.

        Infinite where a row's scale is not resolved, NaN where bounds are unknown or a row has no scale. It is
        certified as ``error_bound`` is, and many times the error that there usually is: entries are taken at their
        worst.

        Raises:
            ValueError: as :meth:`standardize`.
        """
        error = standardized_error(self.values, self.error_bound, self.row_error, kind, self.losses)
        return np.where(np.isnan(self.standardize(kind)), np.nan, error)

    def to_xarray(self) -> Any:
        """H, its bounds and labels as an ``xarray.Dataset``: ``influence`` and ``error_bound`` over
        ``(response_observable, perturbation_observable, response, perturbation)``, with class, trajectory and time of
        both sides as coordinates.

        Raises:
            ImportError: xarray is not installed (extra ``xarray``).
        """
        whole = ("response_observable", "perturbation_observable", "response", "perturbation")
        variables: dict[str, Any] = {
            "influence": (whole, self.values),
            "error_bound": (whole, self.error_bound),
            "relative_error": (whole[:2], self.relative_error),
        }
        if self.losses is not None:
            variables["loss"] = ("response", self.losses)
        if self.input_distance is not None:
            variables["input_distance"] = (("response", "perturbation"), self.input_distance)
        coordinates: dict[str, Any] = {whole[0]: list(self.response_names), whole[1]: list(self.perturbation_names)}
        for side, labels in (("response", self.response_labels), ("perturbation", self.perturbation_labels)):
            coordinates[f"{side}_class"] = (side, np.array(labels.class_names)[labels.class_ids])
            coordinates[f"{side}_trajectory"] = (side, labels.trajectory_ids)
            coordinates[f"{side}_time"] = (side, labels.times)
        names = ("damping", "lambda_max", "tol", "run", "seed", "epoch", "mini_batch")
        attributes = {**{name: getattr(self, name) for name in names}, "converged": int(self.converged)}
        return import_xarray().Dataset(variables, coordinates, attributes)

    def save(self, path: str | PathLike[str]) -> None:
        """Write this result to its own HDF5 file, atomically; parameter steps are not stored."""
        from pdeinfl.engine.store import save_influence

        save_influence(path, self)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Influence:
        """Read what :meth:`save` wrote.

        Raises:
            OSError, ValueError: the file is missing, truncated, or not an influence file.
        """
        from pdeinfl.engine.store import load_influence

        return load_influence(path)
