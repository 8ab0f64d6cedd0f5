"""Charts as SVG: every point inside its panel, at the place its number has between two marks of the axis."""

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt3.report.svg import BOTTOM, HEAD, LEFT, TOP, Axes, Line, svg, ticks

NAMESPACE = "{http://www.w3.org/2000/svg}"
numbers = st.floats(1e-3, 1e9)
points = st.lists(
    st.tuples(numbers, numbers, st.floats(0, 1e9)), min_size=1, max_size=6, unique_by=lambda point: point[0]
)


def circles(drawing: str) -> list[tuple[float, float]]:
    found = ElementTree.fromstring(drawing).iter(f"{NAMESPACE}circle")
    return [(float(circle.get("cx", "")), float(circle.get("cy", ""))) for circle in found]


@given(points, st.sampled_from([float, math.log2]))
def test_no_point_lies_outside_its_panel(drawn, scale) -> None:
    panel = Axes("a < b", [Line("one & two", sorted(drawn), "#0072b2")], "x", scale=scale, labelled=True)
    found = circles(svg([panel], width=300, height=200))
    assert len(found) == len(drawn)
    assert all(LEFT - 0.1 <= x <= 300 and TOP - 0.1 <= y <= 200 - BOTTOM + 0.1 for x, y in found)
    assert [x for x, _ in found] == sorted(x for x, _ in found)


def test_heights_are_proportional_and_the_axis_begins_at_zero() -> None:
    curve = Line("", [(1, 0.0, 0.0), (2, 50.0, 0.0), (3, 100.0, 0.0)], "red")
    (_, low), (_, middle), (_, high) = circles(svg([Axes("t", [curve], "x")], height=200))
    assert (low, middle, high) == (200 - BOTTOM, (200 - BOTTOM + TOP) / 2, TOP)


def test_a_file_has_title_ground_legend_and_panels_beside_one_another() -> None:
    panel = Axes("p", [Line("c", [(1.0, 2.0, 0.5)], "red")], "x", level=3.0)
    drawing = svg([panel, panel], "of all", [panel.curves[0]], width=100, height=90)
    root = ElementTree.fromstring(drawing)
    assert root.get("viewBox") == f"0 0 200 {90 + 2 * HEAD}"
    assert [group.get("transform") for group in root.iter(f"{NAMESPACE}g")] == [
        f"translate(0 {2 * HEAD})", f"translate(100 {2 * HEAD})",
    ]  # fmt: skip
    texts = [text.text for text in root.iter(f"{NAMESPACE}text")]
    assert texts[:2] == ["of all", "c"]
    assert texts.count("p") == 2


@pytest.mark.parametrize("highest", [0.003, 0.99, 1.0, 7.3, 10.0, 31.0, 604.0])
def test_an_axis_has_a_few_round_marks(highest: float) -> None:
    marks = ticks(highest)
    assert marks[0] == 0
    assert marks[-1] > highest * (1 - 1e-6)
    assert 4 <= len(marks) <= 6
