"""Drawings show every node and mark what discloses."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from tercet.plans import Builder, Form, Type
from tercet.plans.drawing import draw, to_mermaid, to_svg
from tercet.plans.passes import drop_dead

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def plan(example):
    return example(100).plan


def boxes(root):
    found = []
    for group in root.iter(f"{SVG}g"):
        box = group.find(f"{SVG}rect")
        found.append([float(box.get(name)) for name in ("x", "y", "width", "height")])
    return found


def test_svg(plan):
    root = ET.fromstring(to_svg(plan))
    drawn = drop_dead(plan)
    assert len(boxes(root)) == len(drawn.nodes)
    marked = [group for group in root.iter(f"{SVG}g") if group.get("class") == "discloses"]
    assert len(marked) == len(plan.disclosures())
    assert len(root.findall(f"{SVG}path")) == sum(len({ref[0] for ref in node.args}) for node in drawn.nodes)
    text = "".join(root.itertext())
    assert "reveal 'sigmoid'" in text
    assert "words 2 x both" in text
    assert draw(plan)._repr_svg_() == str(draw(plan)) == to_svg(plan)


def test_boxes_do_not_overlap_and_stay_inside(plan):
    root = ET.fromstring(to_svg(plan))
    left, top, width, height = map(float, root.get("viewBox").split())
    found = boxes(root)
    for number, (x, y, w, h) in enumerate(found):
        assert left <= x
        assert x + w <= left + width
        assert top <= y
        assert y + h <= top + height
        for x2, y2, w2, _ in found[number + 1 :]:
            assert y2 != y or x + w <= x2 + 0.2 or x2 + w2 <= x + 0.2


def test_nodes_stand_below_what_they_read(plan):
    drawn = drop_dead(plan)
    root = ET.fromstring(to_svg(plan))
    heights = {}
    for group in root.iter(f"{SVG}g"):
        index = int(group.find(f"{SVG}title").text.split()[1])
        heights[index] = float(group.find(f"{SVG}rect").get("y"))
    for index, node in enumerate(drawn.nodes):
        assert all(heights[source] < heights[index] for source, _ in node.args)


def test_large_plans_leave_local_nodes_out():
    b = Builder("large", tile_rows=64)
    x = b.input("x", Type(Form.RING, (10,), 20, 2.0**30))
    for number in range(200):
        x = (x * x).rescale(20).bounded(1.0, f"step {number}")
    x.open("the end").builder.plan()
    x.reveal("end", to="me")
    svg = to_svg(b.plan())
    drawn = len(boxes(ET.fromstring(svg)))
    assert 200 < drawn < 220
    assert len(svg) < 200_000


def test_mermaid(plan):
    text = to_mermaid(plan)
    lines = text.splitlines()
    assert lines[0] == "flowchart TD"
    assert sum(":::discloses" in line for line in lines) == len(plan.disclosures())
    assert sum("-->" in line for line in lines) == sum(
        len({ref[0] for ref in node.args}) for node in drop_dead(plan).nodes
    )
    assert "<br/>discloses: pseudonyms (2 x 100) to the nodes" in text


def test_what_a_plan_says_is_escaped():
    b = Builder("<script>", tile_rows=64)
    b.input("x", Type(Form.RING, (10,), 0, 1.0)).reveal('<b>&"', to="<me>")
    svg = to_svg(b.plan())
    assert "<script>" not in svg
    assert "<b>" not in svg
    ET.fromstring(svg)
    assert "<me>" not in to_mermaid(b.plan())


def test_an_empty_plan_can_be_drawn():
    ET.fromstring(to_svg(Builder("empty").plan()))
