# SPDX-License-Identifier: Apache-2.0
"""What the demo prints."""


class Broken(Exception):
    """A proof that failed."""


def say(text=""):
    print(text, flush=True)


def check(what, holds, detail=""):
    say(f"  {'ok ' if holds else 'NO '} {what}{' (' + detail + ')' if detail else ''}")
    if not holds:
        raise Broken(what)
