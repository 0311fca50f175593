import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_trainingkit.dashboards.printable import printable


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("runs/\x1b]0;owned\x07\x1b[2J", r"runs/\x1b]0;owned\x07\x1b[2J"),
        ("a\x9b31mb\x7f", r"a\x9b31mb\x7f"),  # C1, DEL
        ("a\nb\rc\td\x85e", r"a\nb\rc\td\x85e"),
        ("\u202egnp.exe\u2066\u200e", r"\u202egnp.exe\u2066\u200e"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("\udcff\ud800", r"\udcff\ud800"),
        ("\U000e0041", r"\U000e0041"),  # invisible tags
        (r"C:\runs\x1b", r"C:\runs\x1b"),
        ("Läufe/實驗/क्\u200cष/👩\u200d🔬 €", "Läufe/實驗/क्\u200cष/👩\u200d🔬 €"),
    ],
)
def test_what_could_steer_a_terminal_is_shown_as_its_escape(name, shown):
    assert printable(name) == shown


@given(st.text(st.characters(exclude_categories=())))
def test_nothing_that_steers_is_left(text):
    shown = printable(text)
    assert {unicodedata.category(each) for each in set(shown) - set("\u200c\u200d")}.isdisjoint(
        {"Cc", "Cs", "Zl", "Zp", "Cf"}
    )
    shown.encode()
    assert printable(shown) == shown


def test_all_of_unicode_but_what_steers_stays():
    for number in range(sys.maxunicode + 1):
        if unicodedata.category(chr(number))[0] in "LMNPS":
            assert printable(chr(number)) == chr(number)
