from write_what_is_read import PAGE, page


def test_the_page_of_what_is_read_is_made_from_the_tables_that_the_tests_run():
    assert PAGE.read_text("utf-8") == page()  # else: python tests/write_what_is_read.py
