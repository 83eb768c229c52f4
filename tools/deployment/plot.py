"""A chart of a load run, from what Prometheus kept of it."""

from __future__ import annotations

from pathlib import Path

from tools.deployment.prometheus import PrometheusApi

_WINDOW = "[8s]"


def plot_load(api: PrometheusApi, instance: str, began: float, ended: float, path: Path) -> None:
    """Answers, rejections, waiting and queues between two times, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    label = f'instance="{instance}"'
    rows = [
        (
            "answered a second",
            f'sum by (api) (rate(sdpose_requests_total{{{label},outcome="ok"}}{_WINDOW}))',
            "api",
        ),
        (
            "dropped per second",
            f"sum by (reason) (rate(sdpose_shed_total{{{label}}}{_WINDOW}))",
            "reason",
        ),
        (
            "wait in the queue, p95, s",
            "histogram_quantile(0.95, sum by (le, stage)"
            f" (rate(sdpose_queue_wait_seconds_bucket{{{label}}}{_WINDOW})))",
            "stage",
        ),
        ("waiting", f"sdpose_queue_depth{{{label}}}", "stage"),
    ]
    figure, axes = pyplot.subplots(len(rows), 1, sharex=True, figsize=(8, 9), dpi=80)
    for axis, (label, expression, by) in zip(axes, rows, strict=True):
        for series in api.query_range(expression, began, ended, 1.0):
            seconds = [float(at) - began for at, _ in series["values"]]
            values = [float(value) for _, value in series["values"]]
            axis.plot(seconds, values, label=series["metric"].get(by, ""))
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(loc="upper left", fontsize="small")
    axes[-1].set_xlabel("seconds")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)
