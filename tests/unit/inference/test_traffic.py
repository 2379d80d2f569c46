"""traffic.toml: what is written is what is read."""

from pathlib import Path

import pytest

from foretell.inference.traffic import FILE, Split, TrafficBroken, read_traffic, write_traffic

RULES = {
    "flight-delay": Split(default="1.0.0", weights={"1.0.0": 95, "1.1.0-rc.1+build": 0.5}, shadow=["1.2.0"]),
    "sentiment": Split(price_credits=0),
    'a "name" \\ and more': Split(default='1"0', weights={"1\n": 1e-07}),
}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    write_traffic(folder, RULES)
    assert read_traffic(folder) == RULES
    write_traffic(folder, {**RULES, "sentiment": Split()})
    assert "sentiment" not in read_traffic(folder)
    write_traffic(folder, {})
    assert read_traffic(folder) == {}
    assert [file.name for file in folder.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("rule", "wrong"),
    [
        ('weights = {"1.0.0" = 1, "1.1.0" = "ninety"}', 'flight-delay.weights."1.1.0" must be a number, not a text'),
        ('weights = {"1.0.0" = -1}', 'flight-delay.weights."1.0.0" must be a number >= 0.0'),
        ('weights = "many"', "flight-delay.weights must be an object, not a text"),
        ('shadow = ["1.0.0", 2]', "flight-delay.shadow[1] must be a text, not a whole number"),
        ('defualt = "1.0.0"', "flight-delay.defualt is not a known field"),
    ],
)
def test_a_wrong_rule_is_named_by_model_field_and_version(tmp_path: Path, rule: str, wrong: str) -> None:
    (tmp_path / FILE).write_text(f"[sentiment]\nprice_credits = 1\n[flight-delay]\n{rule}\n")
    with pytest.raises(TrafficBroken) as caught:
        read_traffic(tmp_path)
    assert f": {wrong} (" in str(caught.value)


@pytest.mark.parametrize("price", ["-1", "1.5", "1000001", '"1"'])
def test_a_price_that_is_none_is_refused(tmp_path: Path, price: str) -> None:
    (tmp_path / FILE).write_text(f"[flight-delay]\nprice_credits = {price}\n")
    with pytest.raises(TrafficBroken, match="price_credits"):
        read_traffic(tmp_path)
