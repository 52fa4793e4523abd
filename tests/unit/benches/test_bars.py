"""A bar that was not judged is not missed."""

import io
import json

import pytest
from rich.console import Console

from benches import bars
from benches.bars import Figure


def figure(*, met, judged=True):
    return Figure(what="something", measured="3", bar="<= 2", met=met, judged=judged, details={"all": [3]})


@pytest.mark.parametrize(
    ("met", "judged", "verdict"), [(True, True, "ok"), (False, True, "MISSED"), (False, False, "not judged")]
)
def test_the_verdict(met, judged, verdict):
    assert figure(met=met, judged=judged).verdict == verdict
    assert bars.missed([figure(met=True), figure(met=met, judged=judged)]) == (verdict == "MISSED")


def test_the_json_has_the_details_and_the_table_has_not(tmp_path, monkeypatch):
    monkeypatch.setattr(bars, "RESULTS", tmp_path)
    said = io.StringIO()
    console = Console(file=said, width=200)
    bars.show(console, [figure(met=False)])
    assert "MISSED" in said.getvalue()
    assert "all" not in said.getvalue()
    bars.write_json(console, "trial", [figure(met=False)], {"directory": tmp_path}, points=[1])
    (file,) = tmp_path.glob("trial-*.json")
    document = json.loads(file.read_text())
    assert document["figures"][0]["details"] == {"all": [3]}
    assert document["points"] == [1]
    assert document["parameters"] == {"directory": str(tmp_path)}
