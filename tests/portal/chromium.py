"""Where a browser is that the portal can be tried in. As a program: says so if there is none."""

from __future__ import annotations

import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WITHOUT = (
    "The portal was not tried in a browser: there is no Chromium or Chrome. To have it tried: "
    "apt-get install -y chromium"
)


def find_browser() -> str | None:
    """The path of a Chromium or Chrome."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


if __name__ == "__main__" and find_browser() is None:
    print(WITHOUT)  # noqa: T201
