"""The dashboard asks for nothing that the server does not say."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import promql_parser
import pytest
from prometheus_client.openmetrics import parser as openmetrics

from tests.support.photos import as_base64, photo
from tests.support.servers import SERVE, running, wait_for

DASHBOARD = json.loads(
    (Path(__file__).parents[2] / "deploy" / "grafana" / "dashboard.json").read_text()
)
OPENMETRICS = "application/openmetrics-text; version=1.0.0"

FROM_PROMETHEUS = {"job", "instance"}
"""Labels that the scraping server adds."""

VARIABLES = {"$__rate_interval": "1m", "$job": ".*"}
"""Grafana's, which it fills in before it asks."""


def expressions() -> list[str]:
    return list(_expressions())


def _expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            expression: str = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            yield expression


def metrics_and_labels(expression: str) -> dict[str, set[str]]:
    """Every metric that an expression names, with every label that it wants of it."""
    named: dict[str, set[str]] = defaultdict(set)

    def visit(node: Any, wanted: frozenset[str]) -> None:
        match node:
            case promql_parser.AggregateExpr():
                by = node.modifier.labels if node.modifier else []
                visit(node.expr, wanted | frozenset(by))
            case promql_parser.BinaryExpr():
                matching = node.modifier.matching if node.modifier else None
                on = frozenset(matching.labels) if matching else frozenset()
                visit(node.lhs, wanted | on)
                visit(node.rhs, wanted | on)
            case promql_parser.Call():
                for argument in node.args:
                    visit(argument, wanted)
            case promql_parser.ParenExpr() | promql_parser.UnaryExpr():
                visit(node.expr, wanted)
            case promql_parser.SubqueryExpr():
                visit(node.expr, wanted)
            case promql_parser.MatrixSelector():
                visit(node.vector_selector, wanted)
            case promql_parser.VectorSelector():
                assert node.name, "a selector without a metric's name"
                matched = {matcher.name for matcher in node.matchers.matchers}
                named[node.name] |= (wanted | matched) - FROM_PROMETHEUS
            case promql_parser.NumberLiteral() | promql_parser.StringLiteral():
                pass
            case _:
                raise AssertionError(f"a kind of expression unknown to this test: {node!r}")

    visit(promql_parser.parse(expression), frozenset())
    return named


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Every series of a real server after some traffic: its name and its labels."""
    log = tmp_path_factory.mktemp("server") / "log"
    with running(SERVE, log, CLIP_ENCODER="fake") as server:
        wait_for(server, "/health/ready")
        image = as_base64(photo("cat"))
        with httpx.Client(base_url=server.url, timeout=60) as client:
            for path, fields in (
                ("/embed", {}),
                ("/classify", {"labels": ["a cat", "a dog"]}),
                ("/similarity", {"text": "a cat"}),
            ):
                response = client.post(path, json={"image": image, **fields})
                assert response.status_code == 200
            assert client.post("/embed", json={"image": "aGVsbG8="}).status_code == 422
            page = client.get("/metrics", headers={"accept": OPENMETRICS})
        assert page.headers["content-type"].startswith("application/openmetrics-text")
        assert server.stop() == 0
    series: dict[str, set[str]] = defaultdict(set)
    for family in openmetrics.text_string_to_metric_families(page.text):  # type: ignore[no-untyped-call]
        for sample in family.samples:
            series[sample.name] |= set(sample.labels)
    return series


def test_the_dashboard_asks_something() -> None:
    assert len(expressions()) > 10
    assert not any("$" in expression for expression in expressions())


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_and_label_of_the_dashboard_is_exposed(
    expression: str, exposed: dict[str, set[str]]
) -> None:
    named = metrics_and_labels(expression)
    for metric, labels in named.items():
        assert metric in exposed
        assert labels <= exposed[metric], f"{metric} has only {exposed[metric]}"


def test_the_test_sees_into_every_part_of_an_expression() -> None:
    assert metrics_and_labels(
        'sum by (a) (rate(x{b="1"}[5m])) / on (c) (y offset 5m) + max_over_time(z[1h:1m]) or -w'
    ) == {"x": {"a", "b", "c"}, "y": {"c"}, "z": set(), "w": set()}


def test_legends_name_labels_that_are_there(exposed: dict[str, set[str]]) -> None:
    every_label = FROM_PROMETHEUS.union(*exposed.values())
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= every_label
