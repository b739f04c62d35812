"""A watched frame as JSON."""

from typing import Any

from application.watch_ports import WatchedFrame


def as_record(frame: WatchedFrame) -> dict[str, Any]:
    """A watched frame as the JSON object that is printed, written and sent."""
    record: dict[str, Any] = {
        "time": frame.time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "source": frame.source,
        "frame": frame.frame,
        "anomaly_score": frame.anomaly_score,
        "threshold": frame.threshold,
        "alarm": frame.alarm,
    }
    if frame.scores is not None:
        record["scores"] = dict(frame.scores)
    if frame.nearest is not None:
        record["nearest"] = {"path": frame.nearest[0], "similarity": frame.nearest[1]}
    for name in ("path", "learned", "error"):
        if (value := getattr(frame, name)) is not None:
            record[name] = value
    if frame.skipped:
        record["skipped"] = frame.skipped
    return record
