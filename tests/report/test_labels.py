from zoo.report.labels import hover


def test_a_long_text_on_hover_is_shown_whole_in_lines_of_64_characters():
    table = "01" * 64
    assert hover(f"{table} x_7") == [table[:64], table[64:], "x_7"]
    assert hover("short") == ["short"]
    assert hover("x" * 1000) == ["x" * 64] * 4 + ["…"]
