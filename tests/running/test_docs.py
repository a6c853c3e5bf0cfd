"""The example of docs/studies.md."""

import re
from pathlib import Path

from small_study import study

from zoo.report import read

PAGE = (Path(__file__).parents[2] / "docs" / "studies.md").read_text("utf-8")


def test_the_study_of_the_page_runs(tmp_path):
    (text,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "largest_number.py").write_text(text)
    (words,) = re.findall(r"python -m zoo study (\./largest_number\.py .*)", PAGE)
    printed, _ = study(tmp_path, *words.split())
    assert re.match(r"The largest number is 0\.\d\d \[", printed)
    report = read(tmp_path / "runs" / "largest")
    assert report["costs"]["rows"][0][:2] == ["Draw", 15]
    assert report["settings"] == {"sizes": [100, 1000, 10000], "seeds": 5}
