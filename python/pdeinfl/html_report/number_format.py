"""Numbers as a reader wants them: short, with a true minus sign, and words instead of NaN and infinity."""

from __future__ import annotations

import math

from pdeinfl.analysis.estimate import Estimate


def decimal(value: float, digits: int = 2) -> str:
    """A short decimal; an em dash for NaN."""
    if math.isnan(value):
        return "—"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.{digits}f}"
    return (text if float(text) != 0 else text.lstrip("-")).replace("-", "−")


def significant(value: float, digits: int = 3) -> str:
    """At most ``digits`` significant figures; in powers of ten where the number is very large or small."""
    if value == 0 or not math.isfinite(value):
        return decimal(value, 0)
    if 1e-2 <= abs(value) < 1e5:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        text = decimal(value, decimals)
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    mantissa = decimal(float(mantissa), digits - 1).rstrip("0").rstrip(".")
    power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if mantissa == "1" else f"{mantissa}·{power}"


def steps(value: float, max_lag: int) -> str:
    """A coherence time: ``3.2 steps``, ``1 step``, or ``more than 11 steps``."""
    if math.isinf(value):
        return f"more than {max_lag} step{'s' if max_lag != 1 else ''}"
    text = decimal(value, 1)
    return f"{text} step" if text == "1.0" else f"{text} steps"


def interval(estimate: Estimate, digits: int = 2, max_lag: int | None = None) -> str:
    """``[2.8, 3.6]``, with ``> max lag`` for an infinite end; empty without an interval."""
    if not estimate.has_interval:
        return ""
    low, high = (_end(end, digits, max_lag) for end in (estimate.low, estimate.high))
    return f"[{low}, {high}]"


def bounds(estimate: Estimate, digits: int = 2, max_lag: int | None = None) -> str:
    """``2.9 … 3.1``: where the error of the solves leaves the number; empty where that is not known."""
    if not estimate.has_bounds:
        return ""
    low, high = (_end(end, digits, max_lag) for end in (estimate.bound_low, estimate.bound_high))
    return low if low == high else f"{low} … {high}"


def _end(value: float, digits: int, max_lag: int | None) -> str:
    return f"> {max_lag}" if math.isinf(value) and value > 0 and max_lag is not None else decimal(value, digits)


def plural(count: int, noun: str) -> str:
    """``1 seed``, ``3 seeds``, ``2 mini-batches``, ``2 influence matrices``."""
    if count == 1:
        return f"1 {noun}"
    irregular = {"mini-batch": "mini-batches", "influence matrix": "influence matrices"}
    return f"{count} {irregular.get(noun, noun + 's')}"
