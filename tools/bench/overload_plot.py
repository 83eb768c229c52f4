"""The plot of an overload: every request over time, answered or refused."""

from __future__ import annotations

from pathlib import Path

from tools.bench.overload import Answer, Run

_KINDS = (
    (200, "answered", "tab:blue"),
    (429, "refused (429)", "tab:orange"),
)


def draw(run: Run, path: Path) -> None:
    """Writes a PNG: latency over the time of sending, and answers a second below."""
    # No pyplot: it would look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    latency, rate = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for status, name, colour in _KINDS:
        of_kind = [each for each in run.answers if each.status == status]
        latency.scatter(
            [each.sent_s for each in of_kind],
            [max(each.took_s * 1e3, 0.1) for each in of_kind],
            s=5,
            alpha=0.6,
            label=name,
            color=colour,
        )
    latency.set_yscale("log")
    latency.set_ylabel("ms until the answer")
    latency.legend(loc="upper left")
    whole = range(int(run.answers[-1].sent_s) + 1)
    for status, name, colour in _KINDS:
        a_second = _each_second(run.answers, status, len(whole))
        rate.step(whole, a_second, where="post", label=name, color=colour)
    rate.axhline(run.peak, color="grey", linestyle="--", linewidth=1)
    rate.text(0, run.peak, " peak, closed loop", va="bottom", color="grey", fontsize=8)
    rate.set_ylabel("a second")
    rate.set_xlabel("seconds")
    for axes in (latency, rate):
        axes.axvspan(run.begin_s, run.end_s, color="grey", alpha=0.1, linewidth=0)
        axes.grid(alpha=0.3)
    latency.set_title(f"{run.times:g} times the peak while grey")
    figure.savefig(path, dpi=110)


def _each_second(answers: list[Answer], status: int, seconds: int) -> list[int]:
    done = [int(each.done_s) for each in answers if each.status == status]
    return [done.count(second) for second in range(seconds)]
