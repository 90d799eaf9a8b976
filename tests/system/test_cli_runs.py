"""`isogon evaluate` and `isogon report`."""

import json

from .command_line import Isogon


def test_evaluate(isogon: Isogon) -> None:
    lines = isogon("evaluate", "a", "b").out.splitlines()
    assert lines[0] == "a: playing"
    assert any(line.split() == ["runs", "a,", "b"] for line in lines)
    assert any(line.split() == ["seeds", "0,", "1"] for line in lines)
    events = [json.loads(line) for line in isogon("evaluate", "a", "b", "--json").out.splitlines()]
    assert [event["event"] for event in events] == ["message", "summary"]
    assert events[-1]["runs"] == ["a", "b"]


def test_report(isogon: Isogon) -> None:
    assert isogon("report", "a").out.splitlines() == ["a: It is still going.", "report in a/report.html"]
    assert isogon("report", "a", "b", "--output", "c.html").out.splitlines()[-1] == "report in c.html"
    assert "RUN" in isogon("report").line(2)
