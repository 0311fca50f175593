from tests.list_names import LIST, listing


def test_the_list_of_public_names_is_that_of_the_doors():
    assert LIST.read_text() == listing(), "run: python tests/list_names.py --write"
