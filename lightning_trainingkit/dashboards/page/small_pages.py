"""Small pages that the server sends instead of the command center: a note, or the form for the token."""

from html import escape

__all__ = ["login_form", "note"]

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{refresh}<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 36rem; margin: 15vh auto; padding: 0 1rem; }}
p {{ overflow-wrap: anywhere; }}
input, button {{ font: inherit; padding: 0.4rem 0.6rem; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{text}</p>
{below}</body>
</html>
"""
_FORM = """<form method="post" action="/login">
<label>Token <input name="token" type="password" maxlength="200" autocomplete="off" autofocus required></label>
<button>Log in</button>
</form>
"""


def note(title: str, text: str, reload_after: int | None = None) -> bytes:
    """Make a page with one message.

    Args:
        title: Title of the page.
        text: Plain text. HTML in it is shown as text.
        reload_after: Seconds after which the browser loads ``/``; None for never.
    """
    refresh = "" if reload_after is None else f'<meta http-equiv="refresh" content="{reload_after}; url=/">\n'
    return _page(title, text, refresh=refresh, below="" if reload_after is None else '<p><a href="/">Go on</a></p>\n')


def login_form(said: str = "") -> bytes:
    """Make the page that asks for the token. ``said`` is the reason why the last attempt failed."""
    text = (
        "This page is for the user who started it. Open the login file that the terminal names, or paste the token"
        " that stands in that file."
    )
    return _page("Command center", f"{said} {text}".strip(), below=_FORM)


def _page(title: str, text: str, refresh: str = "", below: str = "") -> bytes:
    page = _PAGE.format(title=escape(title), text=escape(text), refresh=refresh, below=below)
    return page.encode("utf-8", "backslashreplace")
